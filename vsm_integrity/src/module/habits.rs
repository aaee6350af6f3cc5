//! How this kernel rewrites code on this machine, as far as it shows.
//!
//! Many rewrites are possible at a site, but a kernel decides once which of them it makes: whether returns go to a thunk,
//! which CPU features there are, how NOPs are merged. [`Habits`] holds what is still possible, and every site that is
//! explained narrows it, so that VTL0 can't choose for each site. It trusts nothing.

use alloc::vec::Vec;

/// What is decided once for all sites of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What a return becomes.
    Return,
    /// What a branch through a retpoline becomes.
    Retpoline,
    /// How alternatives are written and NOPs merged: differs between versions of Linux.
    Alternative,
    /// Whether calls of `__fentry__` become NOPs.
    Ftrace,
    /// Whether LOCK prefixes are taken out.
    Lock,
    /// What ENDBR of functions that are not called indirectly becomes.
    Seal,
    /// Whether jump labels start as NOPs.
    JumpLabel,
    /// Whether paravirt sites are patched.
    Paravirt,
    /// Whether calls count their depth.
    Call,
    /// Whether lengths in `.altinstructions` are evened out.
    AlternativeLength,
}

/// How many choices there are.
const CHOICES: usize = Choice::AlternativeLength as usize + 1;
/// CPU features, as Linux numbers them: words of 32 bits, bugs at the end.
const FEATURES: usize = 1024;
/// `X86_FEATURE_ALWAYS` (arch/x86/include/asm/cpufeatures.h): set on every machine.
const ALWAYS: u16 = 3 * 32 + 21;
/// The most pages of thunks for a module.
const MAX_THUNK_PAGES: usize = 1 << 12;

/// A set of 32-bit words as a set of features.
type Bits = [u32; FEATURES / 32];

/// What is still possible.
#[derive(Clone, Debug)]
pub struct Habits {
    choices: [u8; CHOICES],
    known: Bits,
    set: Bits,
    /// Where Linux placed the module's per-CPU variables.
    pub(super) per_cpu: Option<u64>,
    /// Addresses of the pages of thunks; 0 for one that no branch has shown.
    pub(super) thunk_pages: Vec<u64>,
}

impl Default for Habits {
    fn default() -> Self {
        let mut habits = Self {
            choices: [u8::MAX; CHOICES],
            known: [0; FEATURES / 32],
            set: [0; FEATURES / 32],
            per_cpu: None,
            thunk_pages: Vec::new(),
        };
        habits.learn_feature(ALWAYS, true);
        habits
    }
}

impl Habits {
    /// The options of a choice that are still possible, one bit each.
    pub fn options(&self, choice: Choice) -> u8 {
        self.choices.get(choice as usize).copied().unwrap_or_default()
    }

    /// Keeps only those options; says whether one is left. Nothing changes if not.
    #[must_use]
    pub fn narrow(&mut self, choice: Choice, options: u8) -> bool {
        match self.choices.get_mut(choice as usize) {
            Some(left) if *left & options != 0 => {
                *left &= options;
                true
            }
            _ => false,
        }
    }

    /// Whether the machine has the feature; `None` while both is possible.
    pub fn feature(&self, feature: u16) -> Option<bool> {
        let (word, bit) = (usize::from(feature / 32), 1u32 << (feature % 32));
        let known = self.known.get(word)? & bit != 0;
        known.then(|| self.set.get(word).is_some_and(|word| word & bit != 0))
    }

    /// Fixes whether the machine has the feature.
    pub fn learn_feature(&mut self, feature: u16, has: bool) {
        let (word, bit) = (usize::from(feature / 32), 1u32 << (feature % 32));
        if let (Some(known), Some(set)) = (self.known.get_mut(word), self.set.get_mut(word)) {
            *known |= bit;
            *set = if has { *set | bit } else { *set & !bit };
        }
    }

    /// What holds for the next module as well: everything but addresses.
    #[must_use]
    pub fn for_next_module(mut self) -> Self {
        self.per_cpu = None;
        self.thunk_pages = Vec::new();
        // The first depends on how many CPUs run at the moment; tracing may be switched off for good at any time.
        for choice in [Choice::Lock, Choice::Ftrace] {
            if let Some(options) = self.choices.get_mut(choice as usize) {
                *options = u8::MAX;
            }
        }
        self
    }

    /// Whether the thunk page of that number is at `page`; remembers it when it is the first time.
    #[must_use]
    pub(super) fn thunk_page(&mut self, number: usize, page: u64) -> bool {
        if number >= MAX_THUNK_PAGES || page == 0 || !page.is_multiple_of(super::memory::PAGE) {
            return false;
        }
        if let Some(known) = self.thunk_pages.get(number).filter(|known| **known != 0) {
            return *known == page;
        }
        let more = (number + 1).saturating_sub(self.thunk_pages.len());
        if self.thunk_pages.contains(&page) || self.thunk_pages.try_reserve(more).is_err() {
            return false;
        }
        if more != 0 {
            self.thunk_pages.resize(number + 1, 0);
        }
        if let Some(slot) = self.thunk_pages.get_mut(number) {
            *slot = page;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_narrows_and_never_widens() {
        let mut habits = Habits::default();
        assert!(habits.narrow(Choice::Return, 0b110));
        assert!(!habits.narrow(Choice::Return, 0b001));
        assert_eq!(habits.options(Choice::Return), 0b110);
        assert!(habits.narrow(Choice::Return, 0b011));
        assert_eq!(habits.options(Choice::Return), 0b010);
        assert_eq!(habits.options(Choice::Lock), u8::MAX);
    }

    #[test]
    fn features_are_learnt() {
        let mut habits = Habits::default();
        assert_eq!(habits.feature(ALWAYS), Some(true));
        assert_eq!((habits.feature(7), habits.feature(1023), habits.feature(u16::MAX)), (None, None, None));
        habits.learn_feature(1023, true);
        habits.learn_feature(7, false);
        assert_eq!((habits.feature(7), habits.feature(1023)), (Some(false), Some(true)));
    }

    #[test]
    fn a_thunk_page_stays_where_it_is() {
        let mut habits = Habits::default();
        assert!(!habits.thunk_page(0, 0) && !habits.thunk_page(0, 0x1001) && !habits.thunk_page(usize::MAX, 0x1000));
        assert!(habits.thunk_page(1, 0x1000) && !habits.thunk_page(1, 0x2000) && habits.thunk_page(1, 0x1000));
        assert!(!habits.thunk_page(0, 0x1000) && habits.thunk_page(0, 0x3000));
    }
}
