//! ProtectMemory passes over what is not the kernel's, for the list of all RAM names everything; and changes the rest.

use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::lists::Range;

use super::{OWNED, OWNERS, PLACES, machine_with};
use crate::kdata::{RAM, VTL1, machine, snapshot};
use crate::setup::call_with_list;

pub fn range(first: u64, count: u64, attributes: u64) -> Range {
    let va = 0xffff_8880_0000_0000 + (first << 12);
    Range { va, pa: first << 12, epa: (first + count) << 12, attributes }
}

pub fn protect(machine: &HostedMachine, ranges: &[Range]) -> i64 {
    call_with_list(machine, VsmFunction::ProtectMemory, ranges, 0)
}

#[test]
fn only_the_kernels_and_nobodys_frames_change() {
    for (owner, permission) in OWNERS {
        for (first, count) in PLACES {
            // READ; READ|WRITE; READ|EXEC; everything.
            for (attributes, becomes) in [
                (1, (Owner::BootProtected, Permission::R)),
                (3, (Owner::Nobody, Permission::RW)),
                (5, (Owner::KernelText, Permission::RX)),
                (7, (Owner::BootProtected, Permission::ALL)),
            ] {
                let machine = machine_with(owner, permission);
                let before = machine.partition().protections();
                assert_eq!(protect(&machine, &[range(first, count, attributes)]), 0);
                let registry = machine.platform().frames().lock();
                let rights = machine.partition().protections();
                for gfn in OWNED - 4..OWNED + 12 {
                    let named = (first..first + count).contains(&gfn);
                    let owned = (OWNED..OWNED + 8).contains(&gfn);
                    let kernels = matches!(owner, Owner::Nobody | Owner::BootProtected | Owner::KernelText);
                    let what = format!("{owner} {permission}, frame {gfn:#x} of {first:#x}+{count} for {attributes}");
                    if named && (!owned || kernels) {
                        assert_eq!(registry.get(gfn), Some(becomes), "{what}");
                        assert_eq!(rights.get(gfn), becomes.1.map_flags(), "{what}");
                    } else {
                        let was = if owned { (owner, permission) } else { (Owner::Nobody, Permission::ALL) };
                        assert_eq!(registry.get(gfn), Some(was), "{what}");
                        assert_eq!(rights.get(gfn), before.get(gfn), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn vtl1_is_passed_over() {
    let (start, end) = (VTL1.start, VTL1.end);
    for (first, count) in [(start, 1), (end - 1, 1), (start - 1, 2), (end - 1, 2), (start - 1, end - start + 2)] {
        let machine = machine();
        let before = snapshot(&machine);
        assert_eq!(protect(&machine, &[range(first, count, 7)]), 0);
        let after = snapshot(&machine);
        let vtl1 = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        assert!(after.0[vtl1.clone()] == before.0[vtl1], "{first:#x}+{count}");
        let registry = machine.platform().frames().lock();
        assert!((start..end).all(|gfn| registry.get(gfn) == Some((Owner::Vtl1, Permission::NONE))));
    }
}

#[test]
fn what_is_no_memory_stays_as_it_is_and_the_rest_is_protected() {
    for (first, count) in [(RAM, 1), (RAM - 1, 2), (1 << 30, 1)] {
        for attributes in [1, 3, 5] {
            let machine = machine();
            let ranges = [range(0x100, 4, 1), range(first, count, attributes), range(0x200, 4, 5)];
            assert_eq!(protect(&machine, &ranges), 0, "{first:#x}+{count}");
            let registry = machine.platform().frames().lock();
            for gfn in RAM.max(first)..first + count {
                assert_eq!(registry.get(gfn), Some((Owner::Nobody, Permission::ALL)), "{gfn:#x}");
            }
            assert_eq!(registry.get(0x103), Some((Owner::BootProtected, Permission::R)));
            assert_eq!(registry.get(0x203), Some((Owner::KernelText, Permission::RX)));
            if first < RAM {
                assert_ne!(registry.get(first), Some((Owner::Nobody, Permission::ALL)));
            }
        }
        // Everything is what it has: no hypercall asks whether it is memory.
        let machine = machine();
        assert_eq!(protect(&machine, &[range(first, count, 7)]), 0, "{first:#x}+{count}");
    }
}
