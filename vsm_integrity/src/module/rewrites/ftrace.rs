//! Entries of functions: the compiler calls `__fentry__`; Linux makes that a NOP (`ftrace_init_nop`,
//! arch/x86/kernel/ftrace.c), or objtool did so already.

use super::branch::CALL;
use super::forms::{Forms, Spot};
use super::nops::NOPS;
use crate::module::habits::Choice;

/// The call stays.
const KEPT: u8 = 1;
/// The call is a NOP.
const NOP: u8 = 2;

pub(super) fn forms(spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Ftrace);
    let Some(original) = spot.first::<5>() else { return forms };
    if original == NOPS[5] {
        return forms.with(KEPT | NOP, original);
    }
    let forms = forms.with(KEPT, original);
    if original.first() == Some(&CALL) { forms.with(NOP, NOPS[5]) } else { forms }
}
