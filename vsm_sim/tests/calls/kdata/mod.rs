//! A hosted machine and a VTL0 that hands over kernel data.

mod load;

use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::kdata::{Export, KernelData, consecutive};
use vsm_sim::vtl0::lists::Range;

use crate::setup::{self, call_with_list, rights_and_owners};

/// Frames of RAM.
pub const RAM: u64 = 0x8000;
/// VTL1's frames.
pub const VTL1: std::ops::Range<u64> = 0x6000..0x7000;
/// Where the objects lie.
pub const OBJECTS: std::ops::Range<u64> = 0x400_0000..0x600_0000;

pub fn machine() -> HostedMachine {
    setup::machine(RAM, VTL1)
}

/// Makes the call with a list of `ranges`.
pub fn load(machine: &HostedMachine, ranges: &[Range]) -> i64 {
    call_with_list(machine, VsmFunction::LoadKData, ranges, 0)
}

/// Writes the objects of `kernel`, page after page, and returns their ranges.
pub fn write(machine: &HostedMachine, kernel: &KernelData) -> Vec<Range> {
    kernel.write(machine.memory(), consecutive(OBJECTS.start, OBJECTS.end)).unwrap()
}

/// A kernel small enough to try many times.
pub fn small() -> (KernelData, Vec<Export>) {
    KernelData::made_up(300, 1)
}

/// Everything that a call could leave behind: rights at the hypervisor, the registry, the data.
pub fn snapshot(machine: &HostedMachine) -> (Vec<MapFlags>, Vec<FrameState>, Option<String>) {
    let (rights, owners) = rights_and_owners(machine, RAM);
    let data = machine.platform().vtl0().kernel_data().map(|data| format!("{data:?}"));
    (rights, owners, data)
}
