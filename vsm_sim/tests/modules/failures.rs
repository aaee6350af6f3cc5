//! A hypervisor that refuses at any step, and a VTL1 that cannot map: nothing is left behind.

use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode};
use litebox_platform_lvbs::owner::Owner;
use vsm_sim::hv::Injection;
use vsm_sim::vtl0::made_up::MadeUpKernel;

use crate::linux::{EIO, ENOMEM, Linux, RAM};

const MODIFY: HypercallCode = HypercallCode::MODIFY_VTL_PROTECTION_MASK;

/// Makes `call` succeed once, on a machine that `prepared` has made, and counts its hypercalls; then makes each of them
/// fail, at several elements of its list. `call` returns what is 0 or a token.
fn fail_everywhere(what: &str, prepared: impl Fn() -> Linux, call: impl Fn(&Linux) -> i64) {
    let linux = prepared();
    let before = linux.machine.partition().hypercall_count(MODIFY);
    assert!(call(&linux) >= 0, "{what}");
    let steps = linux.machine.partition().hypercall_count(MODIFY) - before;
    assert!(steps > 0, "{what} makes no hypercall");
    let mut linux = prepared();
    let before = linux.everything();
    let mut failures = 0;
    for step in 0..steps {
        for element in [0, 1, 2] {
            let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(element);
            linux.machine.partition().inject(failing);
            let result = call(&linux);
            linux.machine.partition().clear_injections();
            if result >= 0 && element > 0 {
                // The hypercall's list is shorter.
                linux = prepared();
                continue;
            }
            failures += 1;
            assert_eq!(result, EIO, "{what}, step {step}, element {element}");
            assert!(linux.everything() == before, "{what}, step {step}, element {element}");
        }
        // The roll-back fails as well: whatever VTL0 may do then, it is not to write what it executes.
        let linux = prepared();
        let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(0);
        linux.machine.partition().inject(failing.repeated(1_000_000));
        assert_eq!(call(&linux), EIO);
        linux.machine.partition().clear_injections();
        for gfn in 0..RAM {
            let (owner, permission) = linux.page(gfn << 12);
            assert!(!permission.is_write_and_execute(), "{what}, step {step}: {owner} may {permission}");
            let executable = permission.contains(Permission::EXEC);
            assert!(!executable || what != "validate", "{what}, step {step}: {owner} may {permission}");
        }
    }
    assert!(call(&linux) >= 0, "{what} after all of it");
    println!("{what}: {steps} hypercalls, which have failed in {failures} ways, and for good");
}

#[test]
fn a_hypercall_that_fails_at_any_step_changes_nothing() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let placed = |linux: &mut Linux| linux.place(&kernel.first, 0x40);
    for seed in [None, Some(6)] {
        let boot = || Linux::booted(seed, &kernel.data);
        // Frames are handed out in the same order each time.
        let place = placed(&mut boot());
        fail_everywhere(
            "validate",
            || {
                let mut linux = boot();
                placed(&mut linux);
                linux
            },
            |linux| linux.validate(&place),
        );
        let validated = || {
            let mut linux = boot();
            let place = placed(&mut linux);
            assert_eq!(linux.validate(&place), 1);
            linux
        };
        fail_everywhere("free init", validated, |linux| linux.free_init(1));
        fail_everywhere("unload", validated, |linux| linux.unload(1));
        let initialised = || {
            let linux = validated();
            assert_eq!(linux.free_init(1), 0);
            linux
        };
        fail_everywhere("unload after that", initialised, |linux| linux.unload(1));
    }
}

#[test]
fn a_mapping_that_fails_changes_nothing() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(Some(7), &kernel.data);
    let placed = linux.place(&kernel.first, 0x40);
    let before = linux.everything();
    let mut refusals = 0;
    loop {
        linux.machine.views().fail_after(refusals);
        let result = linux.validate(&placed);
        linux.machine.views().fail_after(u64::MAX);
        if result == 1 {
            break;
        }
        assert_eq!(result, ENOMEM, "mapping {refusals}");
        assert!(linux.everything() == before, "mapping {refusals}");
        refusals += 1;
    }
    // The file, and four parts that are explained.
    assert_eq!(refusals, 5);
    linux.assert_loaded(&placed, 1, false);
    assert!(matches!(linux.page(placed.pages(0)[0]).0, Owner::Module { token, .. } if token.get() == 1));
}
