//! What Linux may make of the code at a site when it loads a module, one file for each class of sites.
//!
//! A class says which [`Forms`] the bytes at a site can take, given the relocated bytes of the file; memory must hold one
//! of them, and the one that it holds narrows the module's habits. Targets of branches are never taken from memory: they
//! are values that VTL1 has of the kernel.

pub(super) mod alternatives;
pub(super) mod branch;
pub(super) mod calls;
mod ftrace;
mod jump_labels;
mod locks;
pub(super) mod nops;
pub(super) mod paravirt;
mod replacements;
pub(super) mod retpolines;
pub(super) mod returns;
mod seals;

use super::error::{Few, ModuleError};
use super::habits::{Choice, Habits};
use super::memory::ModuleMemory;
use super::plan::Plan;
use super::sites::{Class, Site};

/// The most bytes at a site, an alternative excepted.
pub(super) const MAX_SITE: usize = 16;
/// The most forms at a site.
const MAX_FORMS: usize = 8;

/// Bytes that a site may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// The options of the choice that make the site look like this, one bit each.
    pub options: u8,
    /// The bytes.
    pub bytes: Few<MAX_SITE>,
}

/// All that a site may look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forms {
    /// What decides between them.
    pub choice: Choice,
    list: [Form; MAX_FORMS],
    count: usize,
}

impl Forms {
    /// No forms, until there are some.
    pub fn new(choice: Choice) -> Self {
        Self { choice, list: [Form { options: 0, bytes: Few::new(&[]) }; MAX_FORMS], count: 0 }
    }

    /// Adds a form that those options make.
    pub fn push(&mut self, options: u8, bytes: &[u8]) {
        if let Some(slot) = self.list.get_mut(self.count) {
            *slot = Form { options, bytes: Few::new(bytes) };
            self.count += 1;
        }
    }

    /// With another form.
    pub fn with(mut self, options: u8, bytes: &[u8]) -> Self {
        self.push(options, bytes);
        self
    }

    /// Without the forms that other sites have ruled out.
    pub fn allowed(&self, habits: &Habits) -> Self {
        let options = habits.options(self.choice);
        let mut allowed = Self::new(self.choice);
        for form in self.iter() {
            if form.options & options != 0 {
                allowed.push(form.options & options, form.bytes.as_slice());
            }
        }
        allowed
    }

    /// All forms.
    pub fn iter(&self) -> impl Iterator<Item = &Form> {
        self.list.iter().take(self.count)
    }

    /// The options with which the site looks like `found`.
    pub fn options(&self, found: &[u8]) -> u8 {
        self.iter().filter(|form| form.bytes.as_slice() == found).fold(0, |options, form| options | form.options)
    }
}

/// A site that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Spot<'s> {
    /// The site.
    pub site: Site,
    /// Its address.
    pub va: u64,
    /// The file's bytes, relocated, from the site on; at least those of the site.
    pub original: &'s [u8],
    /// What memory holds there.
    pub found: &'s [u8],
}

impl<'s> Spot<'s> {
    /// The first `N` original bytes.
    fn first<const N: usize>(&self) -> Option<&'s [u8; N]> {
        self.original.first_chunk()
    }
}

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
        Class::Pad => Some(calls::PAD),
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

/// Where the branch at the start of `code` goes, which is at `va`.
pub(super) fn target(code: &[u8], va: u64) -> Option<u64> {
    branch::decode(code, va).map(|branch| branch.target)
}

/// Bytes of the jump label at the start of `code`.
pub(super) fn jump_label_length(code: &[u8]) -> Option<usize> {
    jump_labels::length(code)
}
