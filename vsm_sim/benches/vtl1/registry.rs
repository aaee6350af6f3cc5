//! The frame registry when it holds few, many and very many intervals.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameRegistry, Permission};
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::token::Token;
use vsm_sim::random::SplitMix;

use crate::hypervisor::Counting;

/// First of the frames that are not VTL1's.
const FIRST: u64 = 0x1000;
/// Frames from one protected frame to the next.
const STEP: u64 = 4;

fn frames(start: u64, count: u64) -> FrameRange {
    FrameRange::from_gfns(start, start + count).expect("the range ascends")
}

/// A registry with about `intervals` intervals: every [`STEP`]th frame is read-only.
fn registry(hardware: &Counting, intervals: u64) -> FrameRegistry {
    let mut registry = FrameRegistry::new(frames(0x100, 0x100)).expect("a host has the memory");
    let mut transaction = registry.begin(hardware, Phase::Boot).expect("a host has the memory");
    for index in 0..intervals / 2 {
        let range = frames(FIRST + index * STEP, 1);
        let owner = Owner::BootProtected;
        transaction.stage(range, owner, owner, Permission::R).expect("the frames are free");
    }
    transaction.commit().expect("the hypervisor refuses nothing");
    registry
}

/// Adds the benchmarks.
pub fn bench(criterion: &mut Criterion) {
    let hardware = Counting::default();
    let mut group = criterion.benchmark_group("registry");
    for exponent in [2, 4, 6] {
        let intervals = 10_u64.pow(exponent);
        let mut registry = registry(&hardware, intervals);
        let slots = intervals / 2;
        let mut random = SplitMix(1);
        group.bench_function(BenchmarkId::new("look-up", intervals), |bencher| {
            bencher.iter(|| registry.get(black_box(FIRST + random.next() % (slots * STEP))));
        });
        // A free frame between two protected ones becomes read-only, and in the next turn free to write again.
        let claimant = Owner::Module { token: Token::new(1).unwrap(), kind: ModuleMemoryKind::Text };
        let change = |registry: &mut FrameRegistry, slot: u64, owner: Owner, permission: Permission| {
            let range = frames(FIRST + slot * STEP + 2, 1);
            let mut transaction = registry.begin(&hardware, Phase::Runtime).expect("a host has the memory");
            transaction.stage(range, claimant, owner, permission).expect("the frame is free");
            transaction.commit().expect("the hypervisor refuses nothing");
        };
        group.bench_function(BenchmarkId::new("two one-frame transactions", intervals), |bencher| {
            bencher.iter(|| {
                let slot = random.next() % slots;
                change(&mut registry, slot, claimant, Permission::R);
                change(&mut registry, slot, Owner::Nobody, Permission::RW);
            });
        });
    }
    group.finish();
}
