//! Heap of ValidateModule, FreeModuleInit and UnloadModule.

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::made_up::{MODULES, MadeUp, MadeUpKernel};
use vsm_sim::vtl0::modules::{FILE, Module, PATCHES, Placed};
use vsm_sim::vtl0::signer::Signer;

use crate::counting::{Counted, NEVER};
use crate::linux::Linux;

/// The most heap that a module of 64 MiB may take, in bytes.
const MOST_HEAP: usize = 4 << 20;

/// A VTL0 whose VTL1 knows its kernel.
fn knowing(kernel: &KernelData) -> Linux {
    Linux::new(kernel, 0x300_0000)
}

fn place(linux: &mut Linux, module: &Module) -> Placed {
    module.place(&*linux.memory, &mut linux.frames, 0x30).unwrap()
}

fn validate(linux: &Linux, placed: &Placed, refuse: usize) -> Counted<i64> {
    linux.call_with_list(VsmFunction::ValidateModule, &placed.ranges, 0, refuse)
}

#[test]
fn a_heap_that_refuses_any_one_request_is_an_errno_and_leaves_nothing_behind() {
    refuse_each(&MadeUpKernel::new(300).unwrap());
    // The arithmetic of RSA cannot do without, and has a reserve: whatever else is refused, that is not.
    let signer = Signer::rsa_authority("the builder of a distribution's kernel").unwrap();
    refuse_each(&MadeUpKernel::signed_by(signer, 300).unwrap());
}

/// Makes the calls of a module's life, with each allocation refused in turn.
fn refuse_each(kernel: &MadeUpKernel) {
    let mut linux = knowing(&kernel.data);
    let placed = place(&mut linux, &kernel.first);
    let (token, refusals) = linux.refuse_each(|refuse| validate(&linux, &placed, refuse));
    assert_eq!(token, 1);
    println!("ValidateModule: {refusals} allocations, each refused once");
    assert!(refusals > 15);
    for function in [VsmFunction::FreeModuleInit, VsmFunction::UnloadModule] {
        let (result, refusals) = linux.refuse_each(|refuse| linux.call(function, [1, 0, 0], refuse));
        assert_eq!(result, 0);
        println!("{}: {refusals} allocations, each refused once", function.name());
    }
}

#[test]
fn modules_that_come_and_go_lose_no_heap() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = knowing(&kernel.data);
    let placed = place(&mut linux, &kernel.first);
    let mut total = 0;
    for round in 1..=20 {
        let Counted { result: token, kept, .. } = validate(&linux, &placed, NEVER);
        assert_eq!(token, round);
        let freed = linux.call(VsmFunction::FreeModuleInit, [token.cast_unsigned(), 0, 0], NEVER).kept;
        let gone = linux.call(VsmFunction::UnloadModule, [token.cast_unsigned(), 0, 0], NEVER).kept;
        if round > 10 {
            // By then nothing more is set aside.
            total += kept + freed + gone;
        }
    }
    assert_eq!(total, 0, "bytes lost in 10 lives");
}

#[test]
fn the_largest_modules_take_little_heap() {
    for archive in captures::archives().unwrap() {
        let set = Set::open(&archive).unwrap();
        let mut linux = knowing(&Capture::open(&archive).unwrap().kernel_data(0x100_0000).unwrap());
        let mut worst = (0, String::new());
        for index in 0..set.len() {
            let module = Module::captured(&set.module(index).unwrap()).unwrap();
            let placed = place(&mut linux, &module);
            let Counted { result: token, peak, kept, .. } = validate(&linux, &placed, NEVER);
            assert!(token > 0, "{}: {token}", module.name);
            linux.call(VsmFunction::FreeModuleInit, [token.cast_unsigned(), 0, 0], usize::MAX);
            placed.free(&mut linux.frames, |kind| [FILE, PATCHES].contains(&kind));
            let line = format!(
                "{}: {} KiB of file: {} KiB of heap at most, {} KiB kept",
                module.name,
                module.file.len() >> 10,
                peak >> 10,
                kept >> 10
            );
            worst = worst.max((peak, line));
        }
        println!("{}: {}", set.name(), worst.1);
        assert!(worst.0 < MOST_HEAP);
    }
}

#[test]
fn a_file_of_64_mib_in_scattered_frames_fits() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = knowing(&kernel.data);
    let made_up = MadeUp { name: "big".into(), calls: kernel.helper.clone(), start: MODULES, text_pages: 2 };
    let small = made_up.build().unwrap();
    // What follows the object in the file is signed, and means nothing.
    let mut content = small.file.clone();
    content.resize((64 << 20) - 4096, 0x11);
    let file = kernel.signer.sign(&content).unwrap();
    let placed = place(&mut linux, &Module { file, ..small });
    let Counted { result: token, peak, kept, .. } = validate(&linux, &placed, NEVER);
    println!("{} ranges: {} KiB of heap at most, {} KiB kept", placed.ranges.len(), peak >> 10, kept >> 10);
    assert_eq!(token, 1);
    assert!(placed.ranges.len() > 16_000);
    assert!(peak < MOST_HEAP, "{peak} bytes of heap");
}
