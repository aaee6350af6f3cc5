//! Jump labels: a jump or a NOP of the same size. At this point the file's own form is there; older kernels make all of
//! them NOPs first (`jump_label_apply_nops`, kernel/jump_label.c).

use super::forms::{Forms, Spot};
use super::nops::NOPS;
use crate::module::habits::Choice;

/// As in the file.
const KEPT: u8 = 1;
/// A NOP.
const NOP: u8 = 2;

/// Bytes of the jump or NOP at the start of `code`, none of which needs relocation.
pub fn length(code: &[u8]) -> Option<usize> {
    match *code {
        [0xeb, ..] | [0x66, 0x90, ..] => Some(2),
        [0xe9, ..] | [0x0f, 0x1f, 0x44, 0, 0, ..] => Some(5),
        _ => None,
    }
}

pub(super) fn forms(spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::JumpLabel);
    let Some(length) = length(spot.original) else { return forms };
    let original = spot.original.get(..length).unwrap_or_default();
    let nop = NOPS.get(length).copied().unwrap_or_default();
    if original == nop { forms.with(KEPT | NOP, original) } else { forms.with(KEPT, original).with(NOP, nop) }
}
