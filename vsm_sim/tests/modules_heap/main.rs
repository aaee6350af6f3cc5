//! Heap of ValidateModule, FreeModuleInit and UnloadModule: little of it, none of it lost, and with one that refuses any
//! one request nothing breaks and nothing is left behind.
//!
//! A test binary of its own, because it counts, and fails, allocations. The captures are test data that lie beside the
//! repository; without them the real modules are left out, and that is printed.

#[path = "../heap/mod.rs"]
mod heap;

use std::sync::Arc;

use heap::Quiet;
use heap::counting::counted;
use litebox_platform_lvbs::Platform;
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::vsm::{Gate, VsmFunction, VsmJumpTable, dispatch};
use vsm_handlers::{GATE, VSM_TABLE};
use vsm_sim::hosted::HostedMemory;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::lists::{Range, Scratch, write_list};
use vsm_sim::vtl0::made_up::{MODULES, MadeUp, MadeUpKernel};
use vsm_sim::vtl0::modules::{FILE, Frames, Module, PATCHES, Placed};
use vsm_sim::vtl0::signer::Signer;

const ENOMEM: i64 = -12;
/// The most heap that a module of 64 MiB may take, in bytes.
const MOST_HEAP: usize = 4 << 20;
/// Frames of RAM; VTL1 has the last 16 MiB.
const RAM: u64 = 0x1_0000;

static TABLE: VsmJumpTable = VSM_TABLE;
static RULES: Gate = GATE;

/// A VTL0 and VTL1 that knows its kernel.
struct Linux {
    memory: Arc<HostedMemory>,
    platform: Platform,
    frames: Frames,
}

impl Linux {
    fn new(kernel: &KernelData) -> Self {
        let memory = Arc::new(HostedMemory::new(vec![FrameRange::from_gfns(0, RAM).unwrap()]));
        let vtl1_region = FrameRange::from_gfns(RAM - 0x1000, RAM).unwrap();
        let config = PlatformConfig { vtl1_region, possible_cpus: 1, boot_vp: 0, loader: Generation::G2 };
        let platform = Platform::new(Box::new(Quiet(Arc::clone(&memory))), config).unwrap();
        let frames = Frames::scattered(0x300_0000, (RAM - 0x1000) << 12, 5);
        let mut linux = Self { memory, platform, frames };
        let ranges = kernel.write(&*linux.memory, || linux.frames.take()).unwrap();
        assert_eq!(linux.call(VsmFunction::LoadKData, &ranges, usize::MAX).0, 0);
        linux
    }

    /// Makes a call with a list; the result, the most heap in use during it, and what is in use afterwards, both beyond
    /// what was before. The `refuse`th allocation fails, if there is one.
    fn call(&self, function: VsmFunction, ranges: &[Range], refuse: usize) -> (i64, usize, isize) {
        let list = write_list(&*self.memory, &mut Scratch::default(), ranges).unwrap();
        self.raw(function, [list.pa, list.nranges, 0], refuse)
    }

    fn raw(&self, function: VsmFunction, [a1, a2, a3]: [u64; 3], refuse: usize) -> (i64, usize, isize) {
        counted(refuse, || dispatch(&TABLE, &RULES, &self.platform, 0, [function.id(), a1, a2, a3]))
    }

    fn place(&mut self, module: &Module) -> Placed {
        module.place(&*self.memory, &mut self.frames, 0x30).unwrap()
    }

    fn states(&self) -> (Vec<FrameState>, String) {
        let states = self.platform.frames().lock().intervals().collect();
        (states, format!("{:?}", self.platform.vtl0().modules().lock()))
    }
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
    let mut linux = Linux::new(&kernel.data);
    let placed = linux.place(&kernel.first);
    let before = linux.states();
    let mut refusals = 0;
    loop {
        let (result, _, kept) = linux.call(VsmFunction::ValidateModule, &placed.ranges, refusals);
        if result == 1 {
            break;
        }
        assert_eq!(result, ENOMEM, "allocation {refusals}");
        assert!(linux.states() == before, "allocation {refusals}");
        // What the registry has set aside for its transactions, and room for a module, may stay.
        assert!(kept < 64 << 10, "{kept} bytes stay after allocation {refusals} has failed");
        refusals += 1;
    }
    println!("ValidateModule: {refusals} allocations, each refused once");
    assert!(refusals > 15);
    for function in [VsmFunction::FreeModuleInit, VsmFunction::UnloadModule] {
        let before = linux.states();
        let mut refusals = 0;
        while linux.raw(function, [1, 0, 0], refusals).0 != 0 {
            assert!(linux.states() == before, "allocation {refusals}");
            refusals += 1;
        }
        println!("{}: {refusals} allocations, each refused once", function.name());
    }
}

#[test]
fn modules_that_come_and_go_lose_no_heap() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::new(&kernel.data);
    let placed = linux.place(&kernel.first);
    let mut total = 0;
    for round in 1..=20 {
        let (token, _, kept) = linux.call(VsmFunction::ValidateModule, &placed.ranges, usize::MAX);
        assert_eq!(token, round);
        let freed = linux.raw(VsmFunction::FreeModuleInit, [token.cast_unsigned(), 0, 0], usize::MAX).2;
        let gone = linux.raw(VsmFunction::UnloadModule, [token.cast_unsigned(), 0, 0], usize::MAX).2;
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
        let mut linux = Linux::new(&Capture::open(&archive).unwrap().kernel_data(0x100_0000).unwrap());
        let mut worst = (0, String::new());
        for index in 0..set.len() {
            let module = Module::captured(&set.module(index).unwrap()).unwrap();
            let placed = linux.place(&module);
            let (token, peak, kept) = linux.call(VsmFunction::ValidateModule, &placed.ranges, usize::MAX);
            assert!(token > 0, "{}: {token}", module.name);
            linux.raw(VsmFunction::FreeModuleInit, [token.cast_unsigned(), 0, 0], usize::MAX);
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
    let mut linux = Linux::new(&kernel.data);
    let made_up = MadeUp { name: "big".into(), calls: kernel.helper.clone(), start: MODULES, text_pages: 2 };
    let small = made_up.build().unwrap();
    // What follows the object in the file is signed, and means nothing.
    let mut content = small.file.clone();
    content.resize((64 << 20) - 4096, 0x11);
    let file = kernel.signer.sign(&content).unwrap();
    let placed = linux.place(&Module { file, ..small });
    let (token, peak, kept) = linux.call(VsmFunction::ValidateModule, &placed.ranges, usize::MAX);
    println!("{} ranges: {} KiB of heap at most, {} KiB kept", placed.ranges.len(), peak >> 10, kept >> 10);
    assert_eq!(token, 1);
    assert!(placed.ranges.len() > 16_000);
    assert!(peak < MOST_HEAP, "{peak} bytes of heap");
}
