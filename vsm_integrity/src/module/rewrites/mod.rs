//! What Linux may make of the code at a site when it loads a module, one file for each class of sites.
//!
//! A class says which [`Forms`] the bytes at a site can take, given the relocated bytes of the file; memory must hold one
//! of them, and the one that it holds narrows the module's habits. Targets of branches are never taken from memory: they
//! are values that VTL1 has of the kernel.

pub(super) mod alternatives;
pub(super) mod branch;
mod calls;
mod entries;
mod forms;
mod ftrace;
mod jump_labels;
mod locks;
mod nops;
mod paravirt;
mod replacements;
pub(super) mod retpolines;
pub(super) mod returns;
mod seals;

pub(super) use entries::Group;
pub(super) use forms::{Forms, Spot};

use super::error::ModuleError;
use super::habits::{Choice, Habits};
use super::memory::ModuleMemory;
use super::plan::Plan;
use super::sites::{Class, Site};

/// Bytes of a site, from the file's bytes there, which need not be relocated.
///
/// # Errors
/// When no such code can be at a site of the class.
pub(super) fn length(plan: &Plan<'_>, site: Site, code: &[u8]) -> Result<usize, ModuleError> {
    let length = match site.class() {
        Class::Paravirt => plan.paravirt(site.index()).map(|entry| usize::from(entry.length)),
        Class::Alternative => plan.alternative(site.index()).map(|entry| usize::from(entry.length)),
        Class::Retpoline | Class::Return | Class::Call => branch::length(code),
        Class::Seal => Some(4),
        Class::Lock => Some(1),
        Class::Ftrace => Some(5),
        Class::JumpLabel => jump_labels::length(code),
        Class::Pad => Some(plan.pad_length(site.index())),
    };
    length.ok_or_else(|| plan.refuse_site(site, "a site must have code of its list's kind"))
}

/// What the site may look like, and by which choice.
pub(super) fn forms(plan: &Plan<'_>, habits: &Habits, memory: &ModuleMemory<'_>, spot: &Spot<'_>) -> Forms {
    match spot.site.class() {
        Class::Paravirt => paravirt::forms(plan, spot),
        Class::Retpoline => retpolines::forms(plan, habits, memory, spot),
        Class::Return => returns::forms(plan, spot),
        Class::Call => calls::forms(plan, spot),
        Class::Pad => calls::pad_forms(plan, spot),
        Class::Seal => seals::forms(spot),
        Class::Lock => locks::forms(plan, spot),
        Class::Ftrace => ftrace::forms(spot),
        Class::JumpLabel => jump_labels::forms(spot),
        // Handled by itself.
        Class::Alternative => Forms::new(Choice::Alternative),
    }
}

/// Bytes of the jump label at the start of `code`.
pub(super) fn jump_label_length(code: &[u8]) -> Option<usize> {
    jump_labels::length(code)
}
