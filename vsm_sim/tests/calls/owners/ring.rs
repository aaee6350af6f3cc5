//! AllocateRingbufferMemory takes frames, and may take only those that are nobody's.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;

use super::{OWNERS, PLACES, machine_with};
use crate::kdata::{RAM, VTL1, machine, snapshot};

fn allocate(machine: &HostedMachine, first: u64, count: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::AllocateRingbufferMemory.id(), first << 12, count << 12, 0)
}

#[test]
fn the_ring_takes_only_what_is_nobodys() {
    for (owner, permission) in OWNERS {
        for (first, count) in PLACES {
            let machine = machine_with(owner, permission);
            let before = snapshot(&machine);
            let result = allocate(&machine, first, count);
            // Frames of a ring there is none of cannot be but by this table's own doing.
            let may = matches!(owner, Owner::Nobody | Owner::RingBuffer);
            assert_eq!(
                result,
                if may { 0 } else { Errno::Eacces.to_result() },
                "{owner} {permission} {first:#x}+{count}"
            );
            let after = snapshot(&machine);
            if may {
                let registry = machine.platform().frames().lock();
                for gfn in 0..RAM {
                    let index = usize::try_from(gfn).unwrap();
                    if (first..first + count).contains(&gfn) {
                        assert_eq!(registry.get(gfn), Some((Owner::RingBuffer, Permission::R)));
                        assert_eq!(after.0[index], Permission::R.map_flags());
                    } else {
                        let was =
                            before.1.iter().find(|state| (state.frames.start()..state.frames.end()).contains(&gfn));
                        assert_eq!(registry.get(gfn), was.map(|state| (state.owner, state.permission)));
                        assert_eq!(after.0[index], before.0[index]);
                    }
                }
            } else {
                assert!(after == before, "{owner} {permission} {first:#x}+{count}");
                assert!(machine.ring().mapped().is_none() && machine.platform().log_ring().lock().is_none());
            }
        }
    }
}

#[test]
fn vtl1_and_what_is_no_memory_are_refused() {
    for (first, count, result) in [
        (VTL1.start, 1, Errno::Eacces.to_result()),
        (VTL1.start - 1, 2, Errno::Eacces.to_result()),
        (VTL1.end - 1, 2, Errno::Eacces.to_result()),
        (VTL1.start, VTL1.end - VTL1.start, Errno::Eacces.to_result()),
        (RAM, 1, Errno::Eio.to_result()),
        (RAM - 1, 2, Errno::Eio.to_result()),
    ] {
        let machine = machine();
        let before = snapshot(&machine);
        assert_eq!(allocate(&machine, first, count), result, "{first:#x}+{count}");
        assert!(snapshot(&machine) == before, "{first:#x}+{count}");
    }
}
