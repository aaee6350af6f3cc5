//! The lists VTL0's HEKI driver sends: their layout in memory, the checks, and the walk.
//!
//! A list is a chain of pages in VTL0 memory that VTL0 can rewrite at any time. Nothing in it is trusted: a page is
//! copied into VTL1 once, and only the copy is looked at.

mod layout;
#[cfg(test)]
mod tests;
mod walk;

pub use crate::frames::MemAttr;
pub use layout::{HekiPage, HekiPatch, HekiRange, MAX_PATCH_CODE, RANGES_PER_PAGE};
pub use walk::{CheckedRange, HekiList, MAX_RANGES, Walk};
