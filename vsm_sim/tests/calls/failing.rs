//! A hypervisor that refuses at any step of a call, and a VTL1 that cannot map: nothing is left behind.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode};
use vsm_sim::hv::Injection;

use crate::linux::{Linux, RAM};

const MODIFY: HypercallCode = HypercallCode::MODIFY_VTL_PROTECTION_MASK;

/// Makes `call` succeed once, on a machine that `prepared` has made, and counts its hypercalls; then makes each of them
/// fail, at several elements of its list. `call` returns an errno, 0 or a token. Unless `may_execute`, no frame may be executed
/// when the roll-back fails as well.
pub fn fail_each_hypercall<T>(
    what: &str,
    may_execute: bool,
    prepared: impl Fn() -> (Linux, T),
    call: impl Fn(&Linux, &T) -> i64,
) {
    let (linux, placed) = prepared();
    let before = linux.machine.partition().hypercall_count(MODIFY);
    assert!(call(&linux, &placed) >= 0, "{what}");
    let steps = linux.machine.partition().hypercall_count(MODIFY) - before;
    assert!(steps > 0, "{what} makes no hypercall");
    let (mut linux, mut placed) = prepared();
    let before = linux.snapshot();
    let mut failures = 0;
    for step in 0..steps {
        for element in [0, 1, 2] {
            let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(element);
            linux.machine.partition().inject(failing);
            let result = call(&linux, &placed);
            linux.machine.partition().clear_injections();
            if result >= 0 && element > 0 {
                // The hypercall's list is shorter.
                (linux, placed) = prepared();
                continue;
            }
            failures += 1;
            assert_eq!(result, Errno::Eio.to_result(), "{what}, step {step}, element {element}");
            assert!(linux.snapshot() == before, "{what}, step {step}, element {element}");
        }
        // The roll-back fails as well: registry and hypervisor agree, and nothing can be written and executed.
        let (linux, placed) = prepared();
        let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(0);
        linux.machine.partition().inject(failing.repeated(1_000_000));
        assert_eq!(call(&linux, &placed), Errno::Eio.to_result());
        linux.machine.partition().clear_injections();
        for gfn in 0..RAM {
            let (owner, permission) = linux.page(gfn << 12);
            let allowed = may_execute || !permission.contains(Permission::EXEC);
            assert!(allowed && !permission.is_write_and_execute(), "{what}, step {step}: {owner} may {permission}");
        }
    }
    assert!(call(&linux, &placed) >= 0, "{what} after all of it");
    println!("{what}: {steps} hypercalls, which have failed in {failures} ways, and for good");
}

/// Makes `call` with each of its mappings refused in turn, and in the end with none refused: the last result, and how many
/// mappings there were.
pub fn fail_each_mapping(linux: &Linux, call: impl Fn() -> i64) -> (i64, u64) {
    let before = linux.snapshot();
    let mut refusals = 0;
    loop {
        linux.machine.views().fail_after(refusals);
        let result = call();
        linux.machine.views().fail_after(u64::MAX);
        if result >= 0 {
            return (result, refusals);
        }
        assert_eq!(result, Errno::Enomem.to_result(), "mapping {refusals}");
        assert!(linux.snapshot() == before, "mapping {refusals}");
        refusals += 1;
    }
}
