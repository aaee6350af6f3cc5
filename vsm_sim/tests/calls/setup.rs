//! What the tests of all calls need of a hosted machine.

use std::ops::Range;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::vtl0::lists::{self, List, Scratch};

/// A machine with two processors, `ram` frames of RAM, and VTL1 in some of them.
pub fn machine(ram: u64, vtl1: Range<u64>) -> HostedMachine {
    HostedMachine::new(HostedConfig {
        ram: vec![FrameRange::from_gfns(0, ram).unwrap()],
        vtl1_region: FrameRange::from_gfns(vtl1.start, vtl1.end).unwrap(),
        vps: 2,
    })
}

/// Writes `ranges` as a list in VTL0's scratch memory.
pub fn list(machine: &HostedMachine, ranges: &[lists::Range]) -> List {
    lists::write_list(machine.memory(), &mut Scratch::default(), ranges).unwrap()
}

/// Makes a call with a list of `ranges`, on the boot processor.
pub fn call_with_list(machine: &HostedMachine, function: VsmFunction, ranges: &[lists::Range], a3: u64) -> i64 {
    let list = list(machine, ranges);
    machine.vtl_call(0, function.id(), list.pa, list.nranges, a3)
}

pub fn end_boot(machine: &HostedMachine) -> i64 {
    machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0)
}

/// Makes frames `owner`'s, as one of its calls would.
pub fn give_frames(machine: &HostedMachine, gfns: Range<u64>, owner: Owner, permission: Permission) {
    machine.in_vtl1(0, |platform| {
        let mut registry = platform.frames().lock();
        let mut transaction = registry.begin(platform.hardware(), Phase::Boot).unwrap();
        let frames = FrameRange::from_gfns(gfns.start, gfns.end).unwrap();
        transaction.stage(frames, owner, owner, permission).unwrap();
        transaction.commit().unwrap();
    });
}

/// Rights to the first `ram` frames at the hypervisor, and the registry.
pub fn rights_and_owners(machine: &HostedMachine, ram: u64) -> (Vec<MapFlags>, Vec<FrameState>) {
    let map = machine.partition().protections();
    let rights = (0..ram).map(|gfn| map.get(gfn)).collect();
    (rights, machine.platform().frames().lock().intervals().collect())
}
