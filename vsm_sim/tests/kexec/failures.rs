//! A hypervisor that refuses at any step, and a VTL1 that cannot map: nothing is left behind.

use litebox_platform_lvbs::hv::{HvStatus, HypercallCode};
use vsm_sim::hv::Injection;
use vsm_sim::vtl0::kexec::Placed;

use crate::linux::{EIO, ENOMEM, Linux, RAM};
use crate::world::{assert_accepted, booted, image, invalidate, place, validate};

const MODIFY: HypercallCode = HypercallCode::MODIFY_VTL_PROTECTION_MASK;

/// Makes `call` succeed once, on a machine that `prepared` has made, and counts its hypercalls; then makes each of them
/// fail, at several elements of its list.
fn fail_everywhere(what: &str, prepared: impl Fn() -> (Linux, Placed), call: impl Fn(&Linux, &Placed) -> i64) {
    let (linux, placed) = prepared();
    let before = linux.machine.partition().hypercall_count(MODIFY);
    assert_eq!(call(&linux, &placed), 0, "{what}");
    let steps = linux.machine.partition().hypercall_count(MODIFY) - before;
    assert!(steps > 0, "{what} makes no hypercall");
    let (mut linux, mut placed) = prepared();
    let before = linux.everything();
    let mut failures = 0;
    for step in 0..steps {
        for element in [0, 1, 2] {
            let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(element);
            linux.machine.partition().inject(failing);
            let result = call(&linux, &placed);
            linux.machine.partition().clear_injections();
            if result == 0 && element > 0 {
                // The hypercall's list is shorter.
                (linux, placed) = prepared();
                continue;
            }
            failures += 1;
            assert_eq!(result, EIO, "{what}, step {step}, element {element}");
            assert!(linux.everything() == before, "{what}, step {step}, element {element}");
        }
        // The roll-back fails as well: registry and hypervisor agree, and nothing can be written and executed.
        let (linux, placed) = prepared();
        let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(0);
        linux.machine.partition().inject(failing.repeated(1_000_000));
        assert_eq!(call(&linux, &placed), EIO);
        linux.machine.partition().clear_injections();
        for gfn in 0..RAM {
            let (owner, permission) = linux.page(gfn << 12);
            assert!(!permission.is_write_and_execute(), "{what}, step {step}: {owner} may {permission}");
        }
    }
    assert_eq!(call(&linux, &placed), 0, "{what} after all of it");
    println!("{what}: {steps} hypercalls, which have failed in {failures} ways, and for good");
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
        let before = linux.everything();
        let mut refusals = 0;
        loop {
            linux.machine.views().fail_after(refusals);
            let result = validate(&linux, &placed);
            linux.machine.views().fail_after(u64::MAX);
            if result == 0 {
                break;
            }
            assert_eq!(result, ENOMEM, "mapping {refusals}");
            assert!(linux.everything() == before, "mapping {refusals}");
            refusals += 1;
        }
        // The description, the file, the page list's one page, the kernel's segment.
        assert_eq!(refusals, mappings);
        assert_accepted(&linux, &placed);
    }
}
