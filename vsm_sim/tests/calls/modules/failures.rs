//! A hypervisor that refuses at any step, and a VTL1 that cannot map: nothing is left behind.

use litebox_platform_lvbs::owner::Owner;
use vsm_sim::vtl0::made_up::MadeUpKernel;

use crate::failing::{fail_each_hypercall, fail_each_mapping};
use crate::linux::Linux;

#[test]
fn a_hypercall_that_fails_at_any_step_changes_nothing() {
    let kernel = MadeUpKernel::new(300).unwrap();
    for seed in [None, Some(6)] {
        let placed = || {
            let mut linux = Linux::booted(seed, &kernel.data);
            let placed = linux.place(&kernel.first, 0x40);
            (linux, placed)
        };
        fail_each_hypercall("validate", false, placed, Linux::validate);
        let validated = || {
            let (linux, placed) = placed();
            assert_eq!(linux.validate(&placed), 1);
            (linux, placed)
        };
        fail_each_hypercall("free init", true, validated, |linux, _| linux.free_init(1));
        fail_each_hypercall("unload", true, validated, |linux, _| linux.unload(1));
        let initialised = || {
            let (linux, placed) = validated();
            assert_eq!(linux.free_init(1), 0);
            (linux, placed)
        };
        fail_each_hypercall("unload after that", true, initialised, |linux, _| linux.unload(1));
    }
}

#[test]
fn a_mapping_that_fails_changes_nothing() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(Some(7), &kernel.data);
    let placed = linux.place(&kernel.first, 0x40);
    let (token, refusals) = fail_each_mapping(&linux, || linux.validate(&placed));
    assert_eq!(token, 1);
    // The file, and four parts that are explained.
    assert_eq!(refusals, 5);
    linux.assert_loaded(&placed, 1, false);
    assert!(matches!(linux.page(placed.pages(0)[0]).0, Owner::Module { token, .. } if token.get() == 1));
}
