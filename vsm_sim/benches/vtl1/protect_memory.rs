//! ProtectMemory with lists such as a machine sends: 40,000 ranges, in one pass over the list and the registry.

use std::cell::Cell;

use criterion::{BatchSize, Criterion, Throughput};
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::vsm::{Gate, VsmFunction, VsmJumpTable};
use vsm_handlers::{GATE, VSM_TABLE, dispatch};
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::memory_map::{MemoryMap, default_region_size};
use vsm_sim::vtl0::ranges::boot_ranges;

use crate::hypervisor::{Counting, LIST};

static TABLE: VsmJumpTable = VSM_TABLE;
static RULES: Gate = GATE;
/// RAM of the VTL0 whose list it is.
const GIB: u64 = 8;

/// The list of a VTL0 whose memory is full of single read-only pages.
fn ascending() -> Vec<Range> {
    let map = MemoryMap::new(GIB << 30, None, default_region_size(2)).expect("VTL1 fits into the memory");
    boot_ranges(&map, 20_000, 1)
}

/// The same ranges in an order that has nothing to do with addresses (Fisher–Yates).
fn shuffled() -> Vec<Range> {
    let mut ranges = ascending();
    let mut random = SplitMix(2);
    for last in (1..ranges.len()).rev() {
        let other = random.next() % (last as u64 + 1);
        ranges.swap(last, usize::try_from(other).expect("an index of the list"));
    }
    ranges
}

/// Adds the benchmarks.
pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ProtectMemory");
    for (name, ranges) in [("ascending", ascending()), ("shuffled", shuffled())] {
        let count = ranges.len() as u64;
        group.throughput(Throughput::Elements(count));
        let registers = [VsmFunction::ProtectMemory.id(), LIST, count, 0];
        let machine = Counting::with_list(&ranges);
        let protect = |kernel| {
            assert_eq!(dispatch(&TABLE, &RULES, &kernel, 0, registers).result, 0);
            kernel
        };

        let before = machine.hypercalls();
        let kernel = protect(machine.kernel());
        let hypercalls = machine.hypercalls() - before;
        println!(
            "ProtectMemory/{name}: {count} ranges of {GIB} GiB: {hypercalls} hypercalls, {} per GiB; {} intervals",
            hypercalls / GIB,
            kernel.frames().lock().interval_count()
        );

        group.bench_function(format!("{name}, first list"), |bencher| {
            bencher.iter_batched(|| machine.kernel(), protect, BatchSize::PerIteration);
        });
        let kernel = Cell::new(Some(kernel));
        group.bench_function(format!("{name}, same list again"), |bencher| {
            bencher.iter(|| kernel.set(kernel.take().map(protect)));
        });
        group.bench_function(format!("{name}, walk of the list only"), |bencher| {
            let kernel = machine.kernel();
            let list = HekiList::new(&kernel, LIST, count).expect("the list is well-formed");
            bencher
                .iter(|| list.walk(&kernel).map(|range| range.expect("the range is good").byte_count()).sum::<u64>());
        });
    }
    group.finish();
}
