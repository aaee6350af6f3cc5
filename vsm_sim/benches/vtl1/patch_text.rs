//! PatchText when VTL1 has recorded few, many and very many sites; more than LoadKData takes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::vtl0::{PatchData, PatchDataMap};
use vsm_sim::random::SplitMix;

/// The first site, and bytes from one site to the next: some cross a page.
const FIRST: u64 = 0x1000_0000;
const STEP: u64 = 13;

fn sites(count: u64) -> PatchDataMap {
    let pa = |raw| PhysAddr::new(raw).expect("a physical address");
    let site = |index| {
        let at = FIRST + index * STEP;
        let next = (at / 4096 + 1) * 4096;
        let next_page = (at + 5 > next).then(|| pa(next));
        PatchData::new(pa(at), next_page, &[0xe9, 1, 2, 3, 4]).expect("a site")
    };
    PatchDataMap::new((0..count).map(site).collect()).expect("the sites are apart")
}

/// Adds the benchmarks.
pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("patch_text");
    for exponent in [2, 4, 6] {
        let count = 10_u64.pow(exponent);
        let map = sites(count);
        let mut random = SplitMix(1);
        // First bytes, second bytes, and bytes that are neither.
        group.bench_function(BenchmarkId::new("look-up of a site", count), |bencher| {
            bencher.iter(|| {
                let at = FIRST + random.next() % count * STEP + random.next() % 3;
                map.near(black_box(PhysAddr::new(at).expect("a physical address"))).is_some()
            });
        });
    }
    group.finish();
}
