//! ENDBR of functions that are not called indirectly: Linux overwrites it with a NOP of its own (`apply_ibt_endbr` and
//! `apply_seal_endbr`, arch/x86/kernel/alternative.c; `gen_endbr_poison`, arch/x86/include/asm/ibt.h).

use super::forms::{Forms, Spot};
use crate::module::habits::Choice;

/// ENDBR64.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// The poison up to Linux 6.14: NOPW (%rax).
const NOPW: [u8; 4] = [0x66, 0x0f, 0x1f, 0x00];
/// The poison of later ones: NOPL -42(%rax).
const NOPL: [u8; 4] = [0x0f, 0x1f, 0x40, 0xd6];

pub(super) fn forms(spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Seal);
    let Some(original) = spot.first::<4>() else { return forms };
    if *original != ENDBR {
        // Linux warns and leaves it.
        return forms.with(u8::MAX, original);
    }
    forms.with(1, original).with(2, &NOPW).with(4, &NOPL)
}
