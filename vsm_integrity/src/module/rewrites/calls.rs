//! Call depth tracking: on some CPUs Linux makes a call (`.call_sites`) go to a few bytes before the function, where it
//! puts an instruction that counts (`callthunks_patch_module_calls`, arch/x86/kernel/callthunks.c, 6.2 and later).
//!
//! The instruction is `sarq $5, %gs:pcpu_hot+16`: with an absolute operand up to 6.6, relative to itself later. The address
//! of `pcpu_hot` is an export of the kernel.

use super::branch::{self, Action, CALL};
use super::nops::NOPS;
use super::{Forms, Spot};
use crate::module::habits::Choice;
use crate::module::plan::Plan;

/// Calls stay.
const KEPT: u8 = 1;
/// Calls count, with the longer instruction.
const ABSOLUTE: u8 = 2;
/// Calls count, with the shorter one.
const RELATIVE: u8 = 4;
/// Bytes of the longer instruction, and of the space that is looked at.
pub const PAD: usize = 10;
/// Bytes of the shorter one.
const SHORT: u64 = 9;
/// Offset of `call_depth` in `struct pcpu_hot` (arch/x86/include/asm/current.h).
const DEPTH: u64 = 16;

pub(super) fn forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Call);
    let Some(branch) = branch::decode(spot.original, spot.va) else { return forms };
    let original = spot.original.get(..branch.length).unwrap_or_default();
    let mut forms = forms.with(KEPT, original);
    if branch.action != Action::Call || branch.length != 5 || plan.pcpu_hot.is_none() {
        return forms;
    }
    // Functions without space before them are called directly, whatever the others are.
    if !plan.has_pad(branch.target) {
        forms.push(ABSOLUTE | RELATIVE, original);
        return forms;
    }
    for (option, length) in [(ABSOLUTE, PAD as u64), (RELATIVE, SHORT)] {
        if let Some(call) = branch::encode(CALL, spot.va, branch.target.wrapping_sub(length)) {
            forms.push(option, &call);
        }
    }
    forms
}

/// The space before a function of the module. The site is its first byte.
pub(super) fn pad_forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Call);
    let (Some(original), Some(hot)) = (spot.first::<PAD>(), plan.pcpu_hot) else { return forms };
    let mut forms = forms.with(KEPT, original);
    let depth = hot.wrapping_add(DEPTH);
    let mut bytes = [0x65, 0x48, 0xc1, 0x3c, 0x25, 0, 0, 0, 0, 5];
    if let Ok(operand) = i32::try_from(depth.cast_signed()) {
        bytes[5..9].copy_from_slice(&operand.to_le_bytes());
        forms.push(ABSOLUTE, &bytes);
    }
    let end = spot.va.wrapping_add(PAD as u64);
    if let Ok(operand) = i32::try_from(depth.wrapping_sub(end).cast_signed()) {
        let [first, ..] = *original;
        let [a, b, c, d] = operand.to_le_bytes();
        forms.push(RELATIVE, &[first, 0x65, 0x48, 0xc1, 0x3d, a, b, c, d, 5]);
    }
    forms
}

/// Whether `space`, the bytes right before a function, are NOPs that Linux would write an instruction over.
pub fn is_pad(space: &[u8]) -> bool {
    space.len() >= PAD && space.iter().rev().take(PAD).all(|byte| *byte == NOPS[1][0])
}
