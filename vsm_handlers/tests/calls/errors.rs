//! Errors are ABI: a result that its call's row does not list is found, and the words say what to add where.

use crate::common::{BOOT_VP, Machine, kernel};
use litebox_platform_lvbs::vsm::{CallContext, CallRow, ErrnoMeta, HandlerMeta, VsmFunction, VsmJumpTable, dispatch};
use litebox_platform_lvbs::{Errno, VsmError};
use vsm_handlers::{GATE, ROWS, unlisted, unlisted_in};

/// The handler of PatchText, which answers what its attribute does not say.
fn surprising(_: &CallContext<'_>, _: &[u64; 3]) -> Result<u32, VsmError> {
    Err(VsmError::AlreadySet("a surprise"))
}

#[test]
fn a_handler_that_answers_what_it_does_not_list_is_named_with_its_line() {
    static SURPRISING: [CallRow; VsmFunction::COUNT] = {
        let mut rows = ROWS;
        rows[VsmFunction::PatchText as usize - VsmFunction::EnableAPsVtl as usize].entry = surprising;
        rows
    };
    let id = VsmFunction::PatchText.id();
    let result = dispatch(&VsmJumpTable::new(&SURPRISING), &GATE, &kernel(&Machine::default()), BOOT_VP, [id, 0, 0, 0]);
    assert_eq!(result, Errno::Ebusy.to_result());
    let words = unlisted_in(&SURPRISING, id, result).expect("PatchText does not list EBUSY").to_string();
    assert!(words.starts_with("PatchText answered -EBUSY"), "{words}");
    assert!(words.contains("`EBUSY = \"when it occurs\"` to `errors(…)` of `patch_text`"), "{words}");
    assert!(words.contains("vsm_handlers/src/patch.rs:"), "{words}");
}

#[test]
fn what_a_row_lists_is_fine_and_anything_else_is_not() {
    for row in &ROWS {
        let id = row.function.id();
        assert!(unlisted(id, 0).is_none() && unlisted(id, 0x7fff_ffff).is_none());
        for errno in Errno::ALL {
            let listed = row.errnos().contains(*errno);
            assert_eq!(unlisted(id, errno.to_result()).is_none(), listed, "{}: {}", row.function.name(), errno.name());
        }
        assert!(unlisted(id, -3).is_some_and(|words| words.to_string().contains("-3, which is no errno")));
    }
    assert!(unlisted(1, Errno::Einval.to_result()).is_none(), "what is no call has no row");
}

#[test]
fn gate_and_parameters_bring_their_own_errnos() {
    const ONE: &[ErrnoMeta] = &[ErrnoMeta::new(Errno::Erange, "never")];
    let of = |function: VsmFunction| *ROWS.iter().find(|row| row.function == function).unwrap();
    let listed = |row: &CallRow, errno| row.errnos().contains(errno);
    let (boot, any) = (of(VsmFunction::LockRegs), of(VsmFunction::FreeModuleInit));
    assert!(listed(&boot, Errno::Eperm) && !listed(&any, Errno::Eperm), "the phase");
    assert!(listed(&of(VsmFunction::EnableAPsVtl), Errno::Efault), "the frame number");
    assert!(listed(&boot, Errno::Eio) && listed(&any, Errno::Eio), "VTL1 may have failed");
    let bare = CallRow { meta: HandlerMeta { errors: &[], ..any.meta }, ..any };
    assert!(listed(&bare, Errno::Einval) && !listed(&bare, Errno::Ebusy), "the token");
    let more = CallRow { meta: HandlerMeta { errors: ONE, implemented: false, ..any.meta }, ..any };
    assert!(listed(&more, Errno::Erange) && listed(&more, Errno::Enotsup));
}

#[test]
#[should_panic(expected = "SignalEndOfBoot answered -ENOENT, which its row does not list")]
fn every_call_of_these_tests_is_looked_at() {
    crate::common::check(VsmFunction::SignalEndOfBoot.id(), Errno::Enoent.to_result());
}
