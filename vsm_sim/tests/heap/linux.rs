//! A VTL0 that makes calls with its kernel's data, modules and kexec images, and a VTL1 whose heap is counted while they last.

use std::sync::Arc;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::vsm::{Gate, VsmFunction, VsmJumpTable};
use litebox_platform_lvbs::{Errno, Platform};
use vsm_handlers::{GATE, VSM_TABLE, dispatch};
use vsm_sim::hosted::HostedMemory;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::lists::{Filling, Range, Scratch, write_list_filled};
use vsm_sim::vtl0::modules::Frames;

use crate::counting::{Counted, NEVER, counted};
use crate::quiet::Quiet;

/// Frames of RAM below the end of VTL1, which has the last 16 MiB of them.
pub const RAM: u64 = 0x1_0000;
/// Where RAM ends above VTL1.
const MORE_RAM: u64 = 0x4_0000;
/// What a call that fails may leave in use, in bytes: what the registry has set aside for its transactions, room for a module.
const SET_ASIDE: isize = 64 << 10;

static TABLE: VsmJumpTable = VSM_TABLE;
static RULES: Gate = GATE;

pub fn memory() -> Arc<HostedMemory> {
    Arc::new(HostedMemory::new(vec![FrameRange::from_gfns(0, MORE_RAM).unwrap()]))
}

/// A VTL1 over `memory` that has just been booted.
pub fn platform(memory: &Arc<HostedMemory>) -> Platform {
    let vtl1_region = FrameRange::from_gfns(RAM - 0x1000, RAM).unwrap();
    let config = PlatformConfig { vtl1_region, possible_cpus: 1, boot_vp: 0, loader: Generation::G2 };
    Platform::new(Box::new(Quiet(Arc::clone(memory))), config).unwrap()
}

/// Makes a call and counts; the `refuse`th allocation fails, if there is one.
pub fn call(platform: &Platform, function: VsmFunction, [a1, a2, a3]: [u64; 3], refuse: usize) -> Counted<i64> {
    counted(refuse, || dispatch(&TABLE, &RULES, platform, 0, [function.id(), a1, a2, a3]).result)
}

/// A VTL0 whose VTL1 knows its kernel.
pub struct Linux {
    pub memory: Arc<HostedMemory>,
    pub platform: Platform,
    pub frames: Frames,
}

impl Linux {
    /// Loads the kernel's data. Everything that is placed lies scattered from `free` on.
    pub fn new(kernel: &KernelData, free: u64) -> Self {
        let memory = memory();
        let platform = platform(&memory);
        let frames = Frames::scattered(free, (RAM - 0x1000) << 12, 5);
        let mut linux = Self { memory, platform, frames };
        let ranges = kernel.write(&*linux.memory, || linux.frames.take()).unwrap();
        assert_eq!(linux.call_with_list(VsmFunction::LoadKData, &ranges, 0, NEVER).result, 0);
        linux
    }

    pub fn call(&self, function: VsmFunction, parameters: [u64; 3], refuse: usize) -> Counted<i64> {
        call(&self.platform, function, parameters, refuse)
    }

    pub fn call_with_list(&self, function: VsmFunction, ranges: &[Range], a3: u64, refuse: usize) -> Counted<i64> {
        // In full pages, for some name more ranges than VTL0's scratch memory has room for in the driver's pages.
        let list = write_list_filled(&*self.memory, &mut Scratch::default(), ranges, Filling::Full).unwrap();
        self.call(function, [list.pa, list.nranges, a3], refuse)
    }

    /// Everything that a call could leave behind.
    fn states(&self) -> (Vec<FrameState>, String) {
        let states = self.platform.frames().lock().intervals().collect();
        let vtl0 = self.platform.vtl0();
        (states, format!("{:?} {:?}", vtl0.modules().lock(), vtl0.kexec().lock()))
    }

    /// Makes a call with each of its allocations refused in turn, which must be an errno and leave nothing behind, and in the
    /// end with none refused. The last result, and how many allocations there were.
    pub fn refuse_each(&self, call: impl Fn(usize) -> Counted<i64>) -> (i64, usize) {
        let before = self.states();
        let mut refusals = 0;
        loop {
            let Counted { result, kept, .. } = call(refusals);
            if result >= 0 {
                return (result, refusals);
            }
            assert_eq!(result, Errno::Enomem.to_result(), "allocation {refusals}");
            assert!(self.states() == before, "allocation {refusals}");
            assert!(kept < SET_ASIDE, "{kept} bytes stay after allocation {refusals} has failed");
            refusals += 1;
        }
    }
}
