//! A hosted machine and a VTL0 that hands over kernel data, for the tests named `kdata_…`.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::vtl0::kdata::{Export, KernelData, consecutive};
use vsm_sim::vtl0::lists::{List, Range, Scratch, write_list};

/// Frames of RAM.
pub const RAM: u64 = 0x8000;
/// VTL1's frames.
pub const VTL1: std::ops::Range<u64> = 0x6000..0x7000;
/// Where the objects lie.
pub const OBJECTS: std::ops::Range<u64> = 0x400_0000..0x600_0000;

pub const EIO: i64 = -5;
pub const EFAULT: i64 = -14;
pub const EINVAL: i64 = -22;

pub fn machine() -> HostedMachine {
    HostedMachine::new(HostedConfig {
        ram: vec![FrameRange::from_gfns(0, RAM).unwrap()],
        vtl1_region: FrameRange::from_gfns(VTL1.start, VTL1.end).unwrap(),
        vps: 2,
    })
}

/// Writes `ranges` as a list in VTL0's scratch memory.
pub fn list(machine: &HostedMachine, ranges: &[Range]) -> List {
    write_list(machine.memory(), &mut Scratch::default(), ranges).unwrap()
}

/// Makes the call with a list of `ranges`.
pub fn load(machine: &HostedMachine, ranges: &[Range]) -> i64 {
    let list = list(machine, ranges);
    machine.vtl_call(0, VsmFunction::LoadKData.id(), list.pa, list.nranges, 0)
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
pub fn everything(machine: &HostedMachine) -> (Vec<MapFlags>, Vec<FrameState>, Option<String>) {
    let map = machine.partition().protections();
    let rights = (0..RAM).map(|gfn| map.get(gfn)).collect();
    let intervals = machine.platform().frames().lock().intervals().collect();
    let data = machine.platform().vtl0().kernel_data().map(|data| format!("{data:?}"));
    (rights, intervals, data)
}
