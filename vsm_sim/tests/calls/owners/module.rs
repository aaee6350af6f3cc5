//! ValidateModule takes frames, and may take only those that are nobody's; its file is frozen for a while, and only where
//! the frames are nobody's; its patch sites are only read. FreeModuleInit and UnloadModule name no frames.

use std::sync::OnceLock;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{FILE, Frames, PATCHES, Placed};

use super::{OWNED, OWNERS, PLACES, machine_with};
use crate::kdata::{RAM, VTL1, load, snapshot, write};
use crate::setup::call_with_list;

fn made_up_kernel() -> &'static MadeUpKernel {
    static KERNEL: OnceLock<MadeUpKernel> = OnceLock::new();
    KERNEL.get_or_init(|| MadeUpKernel::new(100).unwrap())
}

/// A machine on which some frames are `owner`'s, that knows its kernel, and a module in its memory.
fn prepared(owner: Owner, permission: Permission) -> (HostedMachine, Placed) {
    let machine = machine_with(owner, permission);
    assert_eq!(load(&machine, &write(&machine, &made_up_kernel().data)), 0);
    let placed =
        made_up_kernel().first.place(machine.memory(), &mut Frames::consecutive(0x300_0000, 0x400_0000), 0).unwrap();
    (machine, placed)
}

fn validate(machine: &HostedMachine, ranges: &[Range]) -> i64 {
    call_with_list(machine, VsmFunction::ValidateModule, ranges, 0)
}

/// The ranges, of which the one of `kind` names other frames.
fn with_range_at(placed: &Placed, kind: u64, (first, count): (u64, u64)) -> Vec<Range> {
    let mut ranges = placed.ranges.clone();
    let range = ranges.iter_mut().find(|range| range.attributes == kind).unwrap();
    (range.va, range.pa, range.epa) = (range.va & !0xfff, first << 12, (first + count) << 12);
    ranges
}

#[test]
fn a_module_takes_only_what_is_nobodys() {
    for (owner, permission) in OWNERS {
        for kind in 0..=FILE {
            let pages = prepared(owner, permission).1.pages(kind).len() as u64;
            for place in PLACES.into_iter().chain([(OWNED, pages)]) {
                let (machine, placed) = prepared(owner, permission);
                let before = snapshot(&machine);
                let result = validate(&machine, &with_range_at(&placed, kind, place));
                let what = format!("{owner} {permission}, part {kind} in {place:x?}: {result}");
                // DATA, RO_AFTER_INIT and INIT_DATA, in exactly as many pages as the file needs.
                let data = matches!(kind, 1 | 3 | 5) && place.1 == pages;
                if owner == Owner::Nobody && data {
                    // Data may be anywhere that is nobody's, and hold anything.
                    assert_eq!(result, 1, "{what}");
                    let registry = machine.platform().frames().lock();
                    for gfn in place.0..place.0 + place.1 {
                        let (now, rights) = registry.get(gfn).unwrap();
                        assert!(
                            matches!(now, Owner::Module { token, .. } if token.get() == 1) && rights == Permission::RW,
                            "{what}"
                        );
                    }
                    continue;
                }
                let foreign = owner != Owner::Nobody;
                // Nothing lies there but zeros: no file, no text, and of the wrong size for the rest.
                assert_eq!(result == Errno::Eacces.to_result(), foreign, "{what}");
                assert!(result < 0, "{what}");
                assert!(snapshot(&machine) == before, "{what}");
            }
        }
    }
}

#[test]
fn reading_patch_sites_changes_nothing_whoever_owns_them() {
    for (owner, permission) in OWNERS {
        for place in PLACES {
            let (machine, placed) = prepared(owner, permission);
            let registry = |gfn| machine.platform().frames().lock().get(gfn);
            let before: Vec<_> = (OWNED - 2..OWNED + 12).map(registry).collect();
            // Zeros: no sites, which is fine.
            assert_eq!(
                validate(&machine, &with_range_at(&placed, PATCHES, place)),
                1,
                "{owner} {permission}, {place:x?}"
            );
            let after: Vec<_> = (OWNED - 2..OWNED + 12).map(registry).collect();
            assert_eq!(before, after, "{owner} {permission}, {place:x?}");
        }
    }
}

#[test]
fn no_part_reaches_into_vtl1_or_beyond_ram() {
    let (machine, placed) = prepared(Owner::Nobody, Permission::RW);
    let before = snapshot(&machine);
    for kind in 0..=PATCHES {
        for place in [
            (VTL1.start, 1),
            (VTL1.end - 1, 1),
            (VTL1.start - 1, 2),
            (VTL1.end - 1, 2),
            (VTL1.start, VTL1.end - VTL1.start),
            (VTL1.start - 1, VTL1.end - VTL1.start + 2),
        ] {
            machine.memory().count_fetches();
            let result = validate(&machine, &with_range_at(&placed, kind, place));
            let fetches = machine.memory().take_fetches();
            assert_eq!(result, Errno::Eacces.to_result(), "part {kind} in {place:x?}");
            assert!(!fetches.keys().any(|gpa| VTL1.contains(&(gpa >> 12))), "part {kind}: VTL1 was read");
            assert!(snapshot(&machine) == before, "part {kind} in {place:x?}");
        }
        // Two pages each: too few, too many or just right, but the hypervisor is asked first.
        for place in [(RAM, 2), (RAM - 1, 2), (1 << 30, 2)] {
            let result = validate(&machine, &with_range_at(&placed, kind, place));
            let expected: &[i64] = if kind == PATCHES {
                &[Errno::Efault.to_result(), Errno::Einval.to_result()]
            } else {
                &[Errno::Eio.to_result()]
            };
            assert!(expected.contains(&result), "part {kind} in {place:x?}: {result}");
            assert!(snapshot(&machine) == before, "part {kind} in {place:x?}");
        }
    }
}
