//! A hypervisor that refuses at any step, and a VTL1 that cannot map: nothing is left behind.

use vsm_sim::vtl0::kexec::Placed;

use super::world::{assert_accepted, booted, image, invalidate, place, validate};
use crate::failing::{fail_each_hypercall, fail_each_mapping};
use crate::linux::Linux;

fn fail_everywhere(what: &str, prepared: impl Fn() -> (Linux, Placed), call: impl Fn(&Linux, &Placed) -> i64) {
    fail_each_hypercall(what, true, prepared, |linux, placed| {
        let result = call(linux, placed);
        assert!(result <= 0, "{what} returned {result}");
        result
    });
}

#[test]
fn a_hypercall_that_fails_at_any_step_changes_nothing() {
    for crash in [false, true] {
        let placed = || {
            let mut linux = booted(Some(30));
            let placed = place(&mut linux, &image(crash));
            (linux, placed)
        };
        fail_everywhere("validate", placed, validate);
        let occupied = || {
            let (mut linux, first) = placed();
            assert_eq!(validate(&linux, &first), 0);
            // Into the same memory: the crash image's segments are the former one's.
            let mut next = image(crash);
            if crash {
                assert_eq!(invalidate(&linux, true), 0);
                next = image(true);
            }
            let next = place(&mut linux, &next);
            if crash {
                assert_eq!(validate(&linux, &first), 0);
            }
            (linux, next)
        };
        fail_everywhere("validate in a slot that is taken", occupied, validate);
        let accepted = || {
            let (linux, placed) = placed();
            assert_eq!(validate(&linux, &placed), 0);
            (linux, placed)
        };
        fail_everywhere("invalidate", accepted, |linux, _| invalidate(linux, crash));
    }
}

#[test]
fn a_mapping_that_fails_changes_nothing() {
    for (crash, mappings) in [(false, 4), (true, 3)] {
        let mut linux = booted(Some(31));
        let placed = place(&mut linux, &image(crash));
        let (result, refusals) = fail_each_mapping(&linux, || validate(&linux, &placed));
        assert_eq!(result, 0);
        // The description, the file, the page list's one page, the kernel's segment.
        assert_eq!(refusals, mappings);
        assert_accepted(&linux, &placed);
    }
}
