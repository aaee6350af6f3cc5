//! How much heap a large module takes. A test of its own, for heap is counted for the whole process.

#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../explain/object.rs"]
mod object;
#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../explain/world.rs"]
mod world;

use std::time::Instant;

use peak_alloc::PeakAlloc;

use crate::object::{A, ABS64, Object, PC32, Symbol, X};
use crate::world::{PCPU_HOT, PV_BUG, SAFE_RETURN, World};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// A module of about that many bytes in its file, as dense as real ones are: a call or a return every 16 bytes of code,
/// every fifth of them a listed return, as much unwinding data, and many symbols.
fn module(size: usize) -> Object {
    let mut object = Object::new("license=GPL|");
    // Code, unwinding data, and what relocates both; a fifth of a site and of a symbol.
    let calls = size / (16 + 24 + 10 + 24 + (4 + 24 + 24) / 5);
    let text = object.section(".text", A | X, 16, &vec![0x90; calls * 16]);
    let (thunk, code) = (object.undefined("__x86_return_thunk"), object.symbol_of(text));
    let mut returns = Vec::new();
    for call in 0..calls {
        let at = call * 16;
        object.sections[text].bytes[at..at + 5].copy_from_slice(&[0xe9, 0, 0, 0, 0]);
        object.relocate((text, at as u64 + 1), PC32, thunk, -4);
        if call % 5 == 0 {
            returns.push((text, at as u64));
            let value = at as u64;
            object.symbols.push(Symbol { name: String::new(), info: 2, section: 2, value });
        }
    }
    object.section(".orc_unwind", A, 1, &[1, 0, 0, 0, 5, 0].repeat(calls));
    let index = object.section(".orc_unwind_ip", A, 1, &vec![0; calls * 4]);
    for entry in 0..calls {
        object.relocate((index, entry as u64 * 4), PC32, code, (entry * 16).cast_signed() as i64);
    }
    object.list(".return_sites", &returns);
    object
}

/// Explains a module of about that many bytes; returns the most heap that was in use for it.
fn peak(size: usize) -> usize {
    let world = World::load(&module(size));
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let start = Instant::now();
    world.accepted();
    let (time, peak) = (start.elapsed(), HEAP.peak_usage().saturating_sub(before));
    println!("{} MiB in {time:?}, {} KiB at most", world.file.len() >> 20, peak >> 10);
    peak
}

#[test]
fn heap_hardly_grows_with_code() {
    assert!(peak(2 << 20) < 128 << 10);
}

/// As many sites as the module of Linux 6.12 that has the most: functions whose calls may be counted, each with its call of
/// `__fentry__` in two lists, four more calls and a return.
#[test]
fn a_module_with_the_most_sites_takes_less_than_2_mib() {
    const SITES: usize = 145_861;
    /// Entries of lists for each function.
    const EACH: usize = 7;
    let functions = SITES / EACH;
    let mut object = Object::new("license=GPL|");
    let mut code = vec![0x90; 16];
    code.extend([0xe8, 0, 0, 0, 0].repeat(5));
    code.extend([0xe9, 0, 0, 0, 0, 0xcc, 0xcc]);
    let text = object.section(".text", A | X, 16, &code.repeat(functions));
    let (fentry, thunk, own) =
        (object.undefined("__fentry__"), object.undefined("__x86_return_thunk"), object.symbol_of(text));
    let (mut calls, mut returns) = (Vec::new(), Vec::new());
    for function in 0..functions {
        let at = (function * 48 + 16) as u64;
        object.relocate((text, at + 1), PC32, fentry, -4);
        for call in 1..5 {
            let other = (function * 7 + call) % functions;
            object.relocate((text, at + call as u64 * 5 + 1), PC32, own, (other * 48 + 16).cast_signed() as i64 - 4);
        }
        object.relocate((text, at + 26), PC32, thunk, -4);
        calls.extend((0..5).map(|call| (text, at + call * 5)));
        returns.push((text, at + 25));
    }
    let entries = object.section("__mcount_loc", A, 8, &vec![0; functions * 8]);
    for function in 0..functions {
        object.relocate((entries, function as u64 * 8), ABS64, own, (function * 48 + 16).cast_signed() as i64);
    }
    object.list(".call_sites", &calls);
    object.list(".return_sites", &returns);
    let mut exports = World::load(&Object::new("license=GPL|")).exports;
    exports.0.insert("pcpu_hot".into(), (PCPU_HOT, false, String::new()));
    exports.0.insert("BUG_func".into(), (PV_BUG, false, String::new()));
    let mut world = World::load_with(&object, exports, 0);
    world.return_thunk = SAFE_RETURN;
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let start = Instant::now();
    world.accepted();
    let peak = HEAP.peak_usage().saturating_sub(before);
    println!("{} sites in {:?}, {} KiB at most", functions * EACH, start.elapsed(), peak >> 10);
    assert!(peak < 2 << 20);
}

#[test]
#[ignore = "takes a minute without optimisation, and counts heap alone: cargo test --release -- --ignored"]
fn a_module_of_64_mib_takes_less_than_4_mib() {
    assert!(peak(64 << 20) < 4 << 20);
}
