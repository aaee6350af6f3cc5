//! Which lists may name the same bytes, and what those then look like. All other pairs are errors.
//!
//! | lists | why both name it | what it looks like |
//! |---|---|---|
//! | `.call_sites`, `__mcount_loc` | objtool lists every call, the compiler those of `__fentry__` | as `__mcount_loc` says: Linux never counts it (`skip_addr`, callthunks.c) |
//! | `.smp_locks` twice | a macro used within a macro | as once |
//! | `.altinstructions` twice | several features may replace it | all entries applied one after the other |
//! | `.altinstructions`, a list of what is rewritten before or after | the code that is replaced is code of that list | what Linux makes of it in its order of passes |
//!
//! The last row is for what begins within the alternative; such sites must not overlap each other.

use super::sites::{Class, Site};

/// What a place is that two lists name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// What the second list says.
    Second,
    /// All that Linux does to an alternative and what is in it.
    Alternative,
}

/// What a place is that two lists name, the first of which has the lower class.
pub const fn together(first: Class, second: Class) -> Option<Pair> {
    match (first, second) {
        (Class::Call, Class::Ftrace) | (Class::Lock, Class::Lock) => Some(Pair::Second),
        (Class::Paravirt | Class::Retpoline | Class::Return | Class::Call | Class::Alternative, Class::Alternative)
        | (Class::Alternative, Class::Lock) => Some(Pair::Alternative),
        _ => None,
    }
}

/// Whether an alternative's bytes may hold a site of the class.
pub fn within_alternative(class: Class) -> bool {
    let (first, second) =
        if class < Class::Alternative { (class, Class::Alternative) } else { (Class::Alternative, class) };
    together(first, second) == Some(Pair::Alternative)
}

/// Leaves one of two neighbours at a place of which the second alone counts: to be called with each pair of sites.
pub fn replaces(second: Site, first: &mut Site) -> bool {
    let replaces = first.same_place(second) && together(first.class(), second.class()) == Some(Pair::Second);
    if replaces {
        *first = second;
    }
    replaces
}
