//! The small machine that the targets call; what must hold on it after every call is the simulator's to say.

use std::ops::Range;

use litebox_platform_lvbs::address::FrameRange;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::trials::stress::layout::Layout;
use vsm_sim::trials::stress::memory::AsVtl0;

pub use vsm_sim::trials::stress::rules::{Reads, Snapshot};

/// Where VTL0 keeps what.
pub const LAYOUT: Layout = Layout::FUZZ;
/// The first frame behind RAM: 4 MiB.
pub const RAM: u64 = LAYOUT.ram_end;
/// VTL1's frames.
pub const VTL1: Range<u64> = LAYOUT.vtl1;
/// Frames below the end of RAM that are none.
pub const HOLE: Range<u64> = LAYOUT.hole;
/// Where VTL0 keeps lists and buffers: the frames from here on.
pub const BUFFERS: u64 = LAYOUT.buffers;

/// A machine after VTL1's boot.
pub fn new() -> HostedMachine {
    let range = |start, end| FrameRange::from_gfns(start, end).expect("the frames ascend");
    let ram = vec![range(0, HOLE.start), range(HOLE.end, RAM)];
    let mut machine = HostedMachine::new(HostedConfig { ram, vtl1_region: range(VTL1.start, VTL1.end), vps: 2 });
    // The lines are formatted then, and written into the ring.
    machine.keep_log();
    machine
}

/// The machine's memory as VTL0's kernel gets at it.
pub fn memory(machine: &HostedMachine) -> AsVtl0<'_> {
    AsVtl0::new(machine.partition(), machine.memory(), 0)
}
