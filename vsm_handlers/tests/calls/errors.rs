//! Errors are ABI: a result that its call's row does not list is found, and the words say what to add where.

use crate::common::{BOOT_VP, Machine, kernel};
use litebox_platform_lvbs::vsm::{CallContext, CallRow, ErrnoMeta, HandlerMeta, Refusal, VsmFunction, VsmJumpTable};
use litebox_platform_lvbs::{Errno, VsmError};
use vsm_handlers::{Answer, AnswerCheck, GATE, ROWS, VSM_TABLE, dispatch};

const CHECK: AnswerCheck<'_> = AnswerCheck::new(&ROWS);

/// The handler of PatchText, which answers what its attribute does not say.
fn surprising(_: &CallContext<'_>, _: &[u64; 3]) -> Result<u32, Refusal> {
    Err(Refusal::ByHandler(VsmError::AlreadySet("a surprise")))
}

#[test]
fn a_handler_that_answers_what_it_does_not_list_is_named_with_its_line() {
    let rows = ROWS.map(|row| match row.function {
        VsmFunction::PatchText => CallRow { entry: surprising, ..row },
        _ => row,
    });
    let id = VsmFunction::PatchText.id();
    let answer = dispatch(&VsmJumpTable::new(&rows), &GATE, &kernel(&Machine::default()), BOOT_VP, [id, 0, 0, 0]);
    assert_eq!(answer, Answer { result: Errno::Ebusy.to_result(), by_handler: true });
    let words = AnswerCheck::new(&rows).check(id, answer).expect_err("PatchText does not list EBUSY");
    assert!(words.starts_with("PatchText answered -EBUSY"), "{words}");
    assert!(words.contains("`EBUSY = \"when it occurs\"` to `errors(…)` of `patch_text`"), "{words}");
    assert!(words.contains("vsm_handlers/src/patch.rs:"), "{words}");
}

/// The gate of every call, and the parameters of this one, may answer what this handler may not.
#[test]
fn a_handler_may_answer_only_what_it_lists_itself() {
    let answer = |by_handler, errno: Errno| Answer { result: errno.to_result(), by_handler };
    let id = VsmFunction::PatchText.id();
    assert_eq!(CHECK.check(id, answer(false, Errno::Eio)), Ok(Errno::Eio.to_result()));
    let words = CHECK.check(id, answer(true, Errno::Eio)).expect_err("PatchText does not list EIO");
    assert!(words.starts_with("PatchText answered -EIO, which its handler does not list"), "{words}");
    for row in &ROWS {
        for errno in Errno::ALL {
            let by_flag = !row.meta.implemented && *errno == Errno::Enotsup;
            let listed = by_flag || row.meta.errors.iter().any(|listed| listed.errno == *errno);
            let checked = CHECK.check(row.function.id(), answer(true, *errno));
            assert_eq!(checked.is_ok(), listed, "{}", row.function.name());
        }
    }
}

/// An errno that the handler and a parameter's type may both give is told apart by who gave it.
#[test]
fn who_answered_is_known() {
    let platform = kernel(&Machine::default());
    let made = |registers| dispatch(&VSM_TABLE, &GATE, &platform, BOOT_VP, registers);
    let free = VsmFunction::FreeModuleInit.id();
    let einval = |by_handler| Answer { result: Errno::Einval.to_result(), by_handler };
    assert_eq!(made([free, u64::MAX, 0, 0]), einval(false), "no token");
    assert_eq!(made([free, 1, 0, 0]), einval(true), "no module");
    assert_eq!(made([1, 0, 0, 0]), einval(false), "no call");
    crate::common::end_boot(&platform);
    let lock = VsmFunction::LockRegs.id();
    assert_eq!(made([lock, 0, 0, 0]), Answer { result: Errno::Eperm.to_result(), by_handler: false }, "the gate");
}

#[test]
fn what_a_row_lists_is_fine_and_anything_else_is_not() {
    let check = |id, result| CHECK.check(id, Answer { result, by_handler: false });
    for row in &ROWS {
        let id = row.function.id();
        assert!(check(id, 0).is_ok() && check(id, 0x7fff_ffff).is_ok());
        for errno in Errno::ALL {
            let listed = row.errnos().contains(*errno);
            assert_eq!(check(id, errno.to_result()).is_ok(), listed, "{}: {}", row.function.name(), errno.name());
        }
        assert!(check(id, -3).is_err_and(|words| words.contains("-3, which is no errno")));
    }
    assert!(check(1, Errno::Einval.to_result()).is_ok(), "what is no call has no row");
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
    let answer = Answer { result: Errno::Enoent.to_result(), by_handler: false };
    crate::common::check(VsmFunction::SignalEndOfBoot.id(), answer);
}
