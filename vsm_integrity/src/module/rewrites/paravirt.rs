//! Calls through `pv_ops`: Linux makes them direct calls of what the operation is set to, or nothing (`apply_paravirt`,
//! arch/x86/kernel/alternative.c, up to 6.7; later kernels use alternatives for it).
//!
//! The targets are those that VTL0 gave before it could be hostile (KERNEL_INFO).

use super::branch::{self, CALL};
use super::forms::{Forms, MAX_SITE, Spot};
use super::nops::{self, Filling};
use crate::bytes::array_at;
use crate::module::habits::Choice;
use crate::module::plan::Plan;

/// The call through memory stays.
const KEPT: u8 = 1;
/// It is a direct one, or nothing.
const DIRECT: u8 = 2;

/// An entry of `.parainstructions` (`struct paravirt_patch_site`).
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Number of the word in `pv_ops`.
    pub operation: u8,
    /// Bytes of the site.
    pub length: u8,
}

impl Plan<'_> {
    /// The entry of `.parainstructions` of that number.
    pub(crate) fn paravirt(&self, index: usize) -> Option<Entry> {
        let section = self.elf.section(self.tables.paravirt)?;
        let at = index.checked_mul(16)?.checked_add(8)?;
        let [operation, length] = array_at(self.elf.bytes(&section), at)?;
        Some(Entry { operation, length })
    }
}

pub(super) fn forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Paravirt);
    let Some(entry) = plan.paravirt(spot.site.index()) else { return forms };
    let length = usize::from(entry.length);
    let Some(original) = spot.original.get(..length).filter(|_| length <= MAX_SITE) else { return forms };
    let mut forms = forms.with(KEPT, original);
    let Some(target) = plan.kernel.arch.pv_ops.get(usize::from(entry.operation)) else { return forms };
    let target = if *target == 0 { plan.kernel.arch.pv_bug } else { *target };
    for filling in [Filling::Eight, Filling::Eleven] {
        let mut bytes = [0; MAX_SITE];
        let mut used = 0;
        if target != plan.kernel.arch.pv_nop {
            let Some(call) = branch::encode(CALL, spot.va, target).filter(|_| length >= 5) else { return forms };
            bytes[..5].copy_from_slice(&call);
            used = 5;
        }
        nops::fill(bytes.get_mut(used..length).unwrap_or_default(), filling);
        forms.push(DIRECT, bytes.get(..length).unwrap_or_default());
    }
    forms
}
