//! A VSM call from its four registers to its result, through the real table and gate.
//!
//! The call that is let in has no handler yet or does next to nothing, so that the time is that of the way there and
//! back. No logger is installed: writing log lines is not part of it.

use std::hint::black_box;

use criterion::Criterion;
use litebox_platform_lvbs::Platform;
use litebox_platform_lvbs::vsm::{Gate, VsmFunction, VsmJumpTable};
use vsm_handlers::{GATE, VSM_TABLE, dispatch};

use crate::hypervisor::Counting;

static TABLE: VsmJumpTable = VSM_TABLE;
static RULES: Gate = GATE;

fn call(platform: &Platform, registers: [u64; 4]) -> i64 {
    dispatch(black_box(&TABLE), black_box(&RULES), platform, black_box(0), black_box(registers)).result
}

/// Adds the benchmarks.
pub fn bench(criterion: &mut Criterion) {
    let booting = Counting::default().kernel();
    let running = Counting::default().kernel();
    assert_eq!(call(&running, [VsmFunction::SignalEndOfBoot.id(), 0, 0, 0]), 0);

    let unload = VsmFunction::UnloadModule.id();
    let protect = VsmFunction::ProtectMemory.id();
    let cases = [
        ("known id, parameters parsed, handler entered", &running, [unload, 1, 0, 0]),
        ("boot-phase call, refused by its parameter", &booting, [protect, 1, 1, 0]),
        ("unknown id below the table", &running, [0, 0, 0, 0]),
        ("unknown id with upper bits", &running, [unload | 1 << 32, 0, 0, 0]),
        ("reserved id inside the table", &running, [VsmFunction::OpteeMessage.id() - 1, 0, 0, 0]),
        ("refused by phase", &running, [protect, 1, 1, 0]),
    ];
    let mut group = criterion.benchmark_group("dispatch");
    for (name, platform, registers) in cases {
        println!("dispatch/{name}: result {}", call(platform, registers));
        group.bench_function(name, |bencher| bencher.iter(|| call(platform, registers)));
    }
    group.finish();
}
