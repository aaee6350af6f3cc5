//! Call depth tracking: on some CPUs Linux makes a call (`.call_sites`) go to a few bytes before the function, where it
//! puts an instruction that counts (`callthunks_patch_module_calls`, arch/x86/kernel/callthunks.c, 6.2 and later).
//!
//! The instruction is `sarq $5, %gs:pcpu_hot+16`: with an absolute operand up to 6.6, relative to itself later. The address
//! of `pcpu_hot` is an export of the kernel.

use super::branch::{self, Action, CALL};
use super::forms::{Forms, Spot};
use super::nops::NOPS;
use crate::module::habits::Choice;
use crate::module::layout::Place;
use crate::module::plan::Plan;
use crate::module::sites::{Class, Site};

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

impl Plan<'_> {
    /// Adds the space before each function that a listed call may count for.
    pub(crate) fn place_pads(&mut self) {
        if self.pcpu_hot.is_none() {
            return;
        }
        let count = self.sites.len();
        for at in 0..count {
            let Some(site) = self.sites.get(at).copied().filter(|site| site.class() == Class::Call) else { continue };
            let target = self.branch_at(site).map(|(branch, _)| branch.target);
            let Some(target) = target.filter(|target| self.has_pad(*target)) else { continue };
            let Some((kind, offset)) = self.layout.find(target.wrapping_sub(PAD as u64)) else { continue };
            // Room was made for them.
            if let Some(pad) = Site::new(kind.is_init(), offset, Class::Pad, 0)
                && self.sites.len() < self.sites.capacity()
            {
                self.sites.push(pad);
            }
        }
        self.sites.sort_unstable_by(Site::cmp);
        self.sites.dedup();
    }

    /// Whether a function at the address has space before it for counting its calls: always, outside of the module.
    fn has_pad(&self, function: u64) -> bool {
        let Some((kind, offset)) = self.layout.find(function).filter(|(kind, _)| kind.is_text()) else {
            return self.layout.find(function).is_none();
        };
        let space = self.layout.section_at(kind, offset).and_then(|index| {
            let Place::Range(_, start) = self.layout.place(index) else { return None };
            let end = usize::try_from(offset.checked_sub(start)?).ok()?;
            self.elf.bytes(&self.elf.section(index)?).get(end.checked_sub(PAD)?..end)
        });
        space.is_some_and(is_pad)
    }
}

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
fn is_pad(space: &[u8]) -> bool {
    space.len() >= PAD && space.iter().rev().take(PAD).all(|byte| *byte == NOPS[1][0])
}
