//! Returns: the compiler jumps to `__x86_return_thunk`; Linux makes that a jump to the thunk it chose, or a plain RET
//! (`apply_returns`, arch/x86/kernel/alternative.c). A trampoline of a static call that only returns is such a site too.
//!
//! With the thunk against ITS, which of both depends on where in a cache line the site is (`cpu_wants_rethunk_at`).

use super::branch::{self, Action, INT3, RET};
use super::forms::{Forms, Spot};
use crate::module::habits::Choice;
use crate::module::plan::Plan;

/// The jump to `__x86_return_thunk` stays.
const KEPT: u8 = 1;
/// RET, filled with INT3.
const PLAIN: u8 = 2;
/// A jump to the thunk in use.
const THUNK: u8 = 4;
/// A jump to the thunk in use where the site is in the lower half of a cache line, RET elsewhere.
const ITS: u8 = 8;

/// What a return at `va` may become where the kernel writes one anew, given the options that are left: a plain RET, and a jump
/// to the return thunk in use.
pub fn written(options: u8, va: u64) -> (bool, bool) {
    let (upper, lower) = if va & 0x20 == 0 { (0, ITS) } else { (ITS, 0) };
    (options & (PLAIN | upper) != 0, options & (KEPT | THUNK | lower) != 0)
}

pub(super) fn forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Return);
    let Some(branch) = branch::decode(spot.original, spot.va) else { return forms };
    let original = spot.original.get(..branch.length).unwrap_or_default();
    let mut forms = forms.with(KEPT, original);
    if branch.action != Action::Jump || branch.target != plan.kernel.arch.return_thunk_init {
        return forms;
    }
    let mut filled = [INT3; 6];
    filled[0] = RET;
    let bytes = filled.get(..branch.length).unwrap_or_default();
    let lower = spot.va & 0x20 == 0;
    forms.push(if lower { PLAIN } else { PLAIN | ITS }, bytes);
    if plan.kernel.arch.return_thunk != plan.kernel.arch.return_thunk_init
        && let Some(jump) = branch::encode(branch::JUMP, spot.va, plan.kernel.arch.return_thunk)
    {
        let mut filled = [INT3; 6];
        filled[..5].copy_from_slice(&jump);
        let bytes = filled.get(..branch.length).unwrap_or_default();
        forms.push(if lower { THUNK | ITS } else { THUNK }, bytes);
    }
    forms
}
