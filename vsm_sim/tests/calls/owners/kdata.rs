//! LoadKData. Six of the seven kinds are read only: VTL1's own frames must not be, the others' change nothing. The
//! trampoline takes frames, and may take only those that are nobody's, its own, or the boot-protected kernel's.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::Owner;
use vsm_sim::vtl0::kdata::kind;
use vsm_sim::vtl0::lists::Range;

use super::{OWNED, OWNERS, PLACES, machine_with};
use crate::kdata::{RAM, VTL1, load, machine, small, snapshot, write};

/// The kernel's ranges, with the one of `kind` lying at `pa` and `bytes` long.
fn with_range_at(ranges: &[Range], kind: u64, pa: u64, bytes: u64) -> Vec<Range> {
    let mut ranges = ranges.to_vec();
    let range = ranges.iter_mut().find(|range| range.attributes == kind).unwrap();
    (range.pa, range.epa) = (pa, pa + bytes);
    ranges
}

#[test]
fn the_trampoline_takes_only_what_it_may() {
    for (owner, permission) in OWNERS {
        for (first, count) in PLACES {
            let machine = machine_with(owner, permission);
            let ranges = write(&machine, &small().0);
            let ranges = with_range_at(&ranges, kind::KEXEC_TRAMPOLINE, first << 12, count << 12);
            let before = snapshot(&machine);
            let result = load(&machine, &ranges);
            let may = matches!(owner, Owner::Nobody | Owner::BootProtected | Owner::KernelText | Owner::Trampoline);
            assert_eq!(
                result,
                if may { 0 } else { Errno::Eacces.to_result() },
                "{owner} {permission} {first:#x}+{count}"
            );
            if !may {
                assert!(snapshot(&machine) == before, "{owner} {permission} {first:#x}+{count}");
                continue;
            }
            let (rights, ..) = snapshot(&machine);
            for gfn in 0..RAM {
                let (now, was) = (rights[usize::try_from(gfn).unwrap()], before.0[usize::try_from(gfn).unwrap()]);
                if (first..first + count).contains(&gfn) {
                    assert_eq!(now, Permission::R.map_flags());
                    // Taken, but never weakened: VTL0 can do nothing that it could not before.
                    assert!(was.contains(now), "{owner} {permission}: {was:?} became {now:?}");
                } else {
                    assert_eq!(now, was);
                }
            }
        }
    }
}

#[test]
fn reading_a_frame_changes_nothing_whoever_owns_it() {
    for (owner, permission) in OWNERS {
        for kind in 0..6 {
            let machine = machine_with(owner, permission);
            let ranges = write(&machine, &small().0);
            let before = snapshot(&machine);
            // Nothing lies there but zeros, which is wrong for every kind that is not optional.
            let bytes = if kind == kind::KERNEL_INFO { 4096 } else { 4 << 12 };
            let result = load(&machine, &with_range_at(&ranges, kind, (OWNED - 1) << 12, bytes));
            assert!([0, Errno::Einval.to_result()].contains(&result), "{owner}, kind {kind}: {result}");
            let after = snapshot(&machine);
            let registry = machine.platform().frames().lock();
            for gfn in OWNED..OWNED + 8 {
                assert_eq!(registry.get(gfn), Some((owner, permission)), "kind {kind}, frame {gfn:#x}");
            }
            let owned = usize::try_from(OWNED).unwrap();
            assert_eq!(after.0[owned - 1..owned + 9], before.0[owned - 1..owned + 9], "{owner}, kind {kind}");
        }
    }
}

#[test]
fn no_kind_reaches_into_vtl1() {
    let machine = machine();
    let ranges = write(&machine, &small().0);
    let before = snapshot(&machine);
    let (start, end) = (VTL1.start << 12, VTL1.end << 12);
    for kind in 0..=6 {
        let unit = if kind == kind::KEXEC_TRAMPOLINE { 4096 } else { 1 };
        for (what, pa, bytes) in [
            ("the first page", start, 4096),
            ("the last page", end - 4096, 4096),
            ("half below", start - 4096, 8192),
            ("half above", end - 4096, 8192),
            ("the last bytes before and the first one", start - 4096, 4096 + unit),
            ("the last one", end - unit, unit + 4096),
            ("all of it", start, end - start),
            ("more than all of it", start - 4096, end - start + 8192),
        ] {
            machine.memory().count_fetches();
            assert_eq!(
                load(&machine, &with_range_at(&ranges, kind, pa, bytes)),
                Errno::Eacces.to_result(),
                "kind {kind}, {what}"
            );
            let fetches = machine.memory().take_fetches();
            assert!(!fetches.keys().any(|gpa| VTL1.contains(&(gpa >> 12))), "kind {kind}, {what}: VTL1 was read");
            assert!(snapshot(&machine) == before, "kind {kind}, {what}");
        }
        // The page before and the page after are fair game, as far as owners are concerned.
        for pa in [start - 4096, end] {
            let machine = crate::kdata::machine();
            let ranges = write(&machine, &small().0);
            assert_ne!(
                load(&machine, &with_range_at(&ranges, kind, pa, 4096)),
                Errno::Eacces.to_result(),
                "kind {kind} at {pa:#x}"
            );
        }
    }
}

#[test]
fn what_is_no_memory_is_refused() {
    let machine = machine();
    let ranges = write(&machine, &small().0);
    let before = snapshot(&machine);
    let end = RAM << 12;
    for kind in 0..=6 {
        for (pa, bytes) in [(end, 4096), (end - 4096, 8192), (1 << 40, 4096), ((1 << 52) - 8192, 4096)] {
            let result = load(&machine, &with_range_at(&ranges, kind, pa, bytes));
            // What is read faults, or breaks a rule before; what is to be protected is refused by the hypervisor.
            let expected: &[i64] = if kind == kind::KEXEC_TRAMPOLINE {
                &[Errno::Eio.to_result()]
            } else {
                &[Errno::Efault.to_result(), Errno::Einval.to_result()]
            };
            assert!(expected.contains(&result), "kind {kind} at {pa:#x}: {result}");
            assert!(snapshot(&machine) == before, "kind {kind} at {pa:#x}");
        }
        let beyond = with_range_at(&ranges, kind, (1 << 52) - 4096, 8192);
        assert_eq!(load(&machine, &beyond), Errno::Efault.to_result(), "kind {kind}");
    }
}

#[test]
fn patch_sites_cannot_name_vtl1() {
    use vsm_sim::vtl0::kdata::{KernelData, Site, patch_record};
    let jump = [0xe9, 0, 0, 0, 0];
    let (start, end) = (VTL1.start << 12, VTL1.end << 12);
    for (pa, next_page, result) in [
        (start, 0, Errno::Eacces.to_result()),
        (end - 5, 0, Errno::Eacces.to_result()),
        (start - 2, start, Errno::Eacces.to_result()),
        (end - 2, end, Errno::Eacces.to_result()),
        (0x1ffe, start, Errno::Eacces.to_result()),
        (start - 5, 0, 0),
        (end, 0, 0),
    ] {
        let machine = machine();
        let patches = patch_record(&[Site { pa, next_page, jump, size: 5 }]);
        let ranges = write(&machine, &KernelData { patches, ..small().0 });
        assert_eq!(load(&machine, &ranges), result, "{pa:#x} {next_page:#x}");
    }
}
