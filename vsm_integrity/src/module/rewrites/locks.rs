//! LOCK prefixes: with one CPU Linux makes them DS prefixes, which do nothing (`alternatives_smp_unlock`,
//! arch/x86/kernel/alternative.c): up to 6.3 in the section `.text` only, later in all code that is not for
//! initialisation.

use super::forms::{Forms, Spot};
use crate::module::habits::Choice;
use crate::module::plan::Plan;

/// The LOCK prefix.
pub const LOCK: u8 = 0xf0;
/// The DS prefix.
pub const DS: u8 = 0x3e;
/// LOCK prefixes stay.
pub const KEPT: u8 = 1;
/// LOCK prefixes in `.text` go.
const SECTION: u8 = 2;
/// LOCK prefixes in the range of kind TEXT go.
const RANGE: u8 = 4;

/// The options with which the LOCK prefix at `va` goes; it stays with the others.
pub fn taken(plan: &Plan<'_>, va: u64) -> u8 {
    match (plan.in_main_text(va), plan.in_text(va)) {
        (true, _) => SECTION | RANGE,
        (false, true) => RANGE,
        (false, false) => 0,
    }
}

pub(super) fn forms(plan: &Plan<'_>, spot: &Spot<'_>) -> Forms {
    let forms = Forms::new(Choice::Lock);
    let original = spot.original.get(..1).unwrap_or_default();
    let taken = if original == [LOCK] { taken(plan, spot.va) } else { 0 };
    let forms = forms.with((KEPT | SECTION | RANGE) & !taken, original);
    if taken == 0 { forms } else { forms.with(taken, &[DS]) }
}

/// All options.
pub const OPTIONS: [u8; 3] = [KEPT, SECTION, RANGE];
