//! Alternatives: code that Linux replaces when the CPU has a feature (`apply_alternatives`,
//! arch/x86/kernel/alternative.c), and the merging of NOPs where it does not.
//!
//! Several entries may be about one place: they are applied one after the other. What was there before may itself be a
//! site, of a paravirt call or of a branch to a thunk, and has been rewritten first; calls are counted and LOCK prefixes
//! taken out afterwards. The replacement is code of the module too, and is taken from memory as it has been rewritten there
//! before: it is explained where it lies.
//!
//! Which features the CPU has, and which Linux' version is, is not asked: every way to get to what is in memory is tried,
//! and what those that fit have in common is kept as a habit.

use super::entries::{Buffer, Entry, Group};
use super::forms::{Form, Forms};
use super::nops::{self, MERGINGS};
use super::{calls, locks, replacements, retpolines};
use crate::module::habits::{Choice, Habits};
use crate::module::memory::ModuleMemory;
use crate::module::pairs::within_alternative;
use crate::module::plan::Plan;
use crate::module::sites::{Class, Site};

/// The most entries about one place, and sites within it.
const MAX_PARTS: usize = 8;
/// How versions of Linux write alternatives; an option each.
const VERSIONS: [Version; 8] = [
    // Up to 6.2; the same with the longer NOPs, 6.3 and 6.4.
    Version { whole: false, merging: 0, evened: false },
    Version { whole: false, merging: 1, evened: false },
    // The same with replacements relocated as later, as stable kernels may have it.
    Version { whole: true, merging: 0, evened: false },
    Version { whole: true, merging: 1, evened: false },
    // 6.5 to 6.9.
    Version { whole: true, merging: 2, evened: false },
    Version { whole: true, merging: 3, evened: false },
    // 6.10 and later.
    Version { whole: true, merging: 2, evened: true },
    Version { whole: true, merging: 3, evened: true },
];

/// How a version of Linux writes alternatives.
#[derive(Clone, Copy)]
struct Version {
    /// Whether every instruction of a replacement is relocated, and not only a branch that is all of it.
    whole: bool,
    /// How NOPs are merged.
    merging: usize,
    /// Whether all entries about a place count as having the length of the longest.
    evened: bool,
}

/// What explains a place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solution {
    /// Whether a replacement was applied.
    pub applied: bool,
    /// Whether the bytes come from a paravirt site, a retpoline or a return.
    pub inner: Option<Class>,
}

/// Explains the bytes, and narrows the habits. `Err` says why there is no explanation.
pub fn solve(
    plan: &Plan<'_>,
    habits: &mut Habits,
    memory: &ModuleMemory<'_>,
    group: &Group<'_>,
) -> Result<Solution, &'static str> {
    let parts = Parts::collect(plan, habits, memory, group)?;
    let unknown = parts.unknown_features(habits);
    let mut search =
        Search { plan, memory, group, parts, unknown, calls: habits.options(Choice::Call), fit: Fit::default() };
    search.try_all(habits);
    if !search.fit.any {
        return Err("an alternative must be as in the file or as one of its replacements");
    }
    let agrees = search.learn(habits) && search.learn_pages(habits);
    agrees.then_some(search.fit.solution).ok_or("an alternative must agree with other sites")
}

/// A rewritten site within the bytes of an alternative.
struct Inner {
    offset: usize,
    site: Site,
    forms: Forms,
}

/// All rewrites of a place.
struct Parts {
    entries: [Option<Entry>; MAX_PARTS],
    inner: [Option<Inner>; MAX_PARTS],
    /// Offsets of LOCK prefixes.
    locks: [Option<usize>; MAX_PARTS],
    /// Offsets of listed calls, which are counted after all else.
    calls: [Option<usize>; MAX_PARTS],
}

/// The features that are not known yet: their numbers.
struct Unknown {
    numbers: [u16; MAX_PARTS],
    count: usize,
    /// What is known of each entry's.
    known: [Option<bool>; MAX_PARTS],
}

/// What all attempts that fit have in common.
#[derive(Default)]
struct Fit {
    any: bool,
    versions: u8,
    locks: u8,
    calls: u8,
    inner: [u8; MAX_PARTS],
    /// For each unknown feature whether it was absent, and whether it was there.
    features: [(bool, bool); MAX_PARTS],
    solution: Solution,
}

impl Parts {
    fn collect(
        plan: &Plan<'_>,
        habits: &Habits,
        memory: &ModuleMemory<'_>,
        group: &Group<'_>,
    ) -> Result<Self, &'static str> {
        const MANY: &str = "there must not be more than 8 rewrites at a place";
        let mut parts = Self {
            entries: [None; MAX_PARTS],
            inner: [const { None }; MAX_PARTS],
            locks: [None; MAX_PARTS],
            calls: [None; MAX_PARTS],
        };
        let start = group.sites.first().map_or(0, |site| site.offset());
        let (mut entries, mut inner, mut locks, mut calls) = (0, 0, 0, 0);
        // Where the last site that is more than a prefix ends.
        let mut end = 0;
        for site in group.sites {
            let offset = usize::try_from(site.offset().saturating_sub(start)).unwrap_or(usize::MAX);
            let class = site.class();
            if !within_alternative(class) && entries != 0 {
                return Err("an alternative must not hold code of that list");
            }
            if !matches!(class, Class::Alternative | Class::Lock) {
                let code = group.original.get(offset..).unwrap_or_default();
                let length =
                    super::length(plan, *site, code).map_err(|_| "a site must have code of its list's kind")?;
                if offset < end {
                    return Err("sites within an alternative must not overlap");
                }
                end = offset + length;
            }
            match class {
                Class::Alternative if offset != 0 => return Err("alternatives must not overlap"),
                Class::Alternative => {
                    let entry = plan.alternative(site.index()).ok_or("an alternative's entry must be complete")?;
                    *parts.entries.get_mut(entries).ok_or(MANY)? = Some(entry);
                    entries += 1;
                }
                Class::Lock => {
                    *parts.locks.get_mut(locks).ok_or(MANY)? = Some(offset);
                    locks += 1;
                }
                Class::Call => {
                    *parts.calls.get_mut(calls).ok_or(MANY)? = Some(offset);
                    calls += 1;
                }
                _ => {
                    let forms = super::forms(plan, habits, memory, &group.spot(*site, offset)).allowed(habits);
                    *parts.inner.get_mut(inner).ok_or(MANY)? = Some(Inner { offset, site: *site, forms });
                    inner += 1;
                }
            }
        }
        if inner > 2 {
            return Err("there must not be more than two other rewrites within an alternative");
        }
        Ok(parts)
    }

    fn unknown_features(&self, habits: &Habits) -> Unknown {
        let mut unknown = Unknown { numbers: [0; MAX_PARTS], count: 0, known: [None; MAX_PARTS] };
        for (entry, known) in self.entries.iter().flatten().zip(&mut unknown.known) {
            *known = habits.feature(entry.feature);
            let so_far = unknown.numbers.get(..unknown.count).unwrap_or_default();
            if known.is_none()
                && !so_far.contains(&entry.feature)
                && let Some(slot) = unknown.numbers.get_mut(unknown.count)
            {
                *slot = entry.feature;
                unknown.count += 1;
            }
        }
        unknown
    }

    /// The next choice of a form for each inner site; `false` after the last one.
    fn advance(&self, choice: &mut [usize; MAX_PARTS]) -> bool {
        for (inner, chosen) in self.inner.iter().flatten().zip(choice) {
            *chosen += 1;
            if *chosen < inner.forms.iter().count() {
                return true;
            }
            *chosen = 0;
        }
        false
    }
}

impl Unknown {
    /// Whether the CPU has an entry's feature, of which `known` is known, in an attempt with those `states`.
    fn has(&self, entry: &Entry, known: Option<bool>, states: u32) -> bool {
        known.unwrap_or_else(|| {
            let number = self.numbers.iter().position(|number| *number == entry.feature).unwrap_or(0);
            states >> number & 1 != 0
        })
    }
}

/// One way in which the kernel may have come to what is in memory.
struct Attempt {
    /// Which of the unknown features the CPU has, one bit each.
    states: u32,
    version: Version,
    /// The version's option.
    option: u8,
    /// The number of the form of each inner site.
    choice: [usize; MAX_PARTS],
}

/// The search for all attempts that fit.
struct Search<'s, 'a, 'm> {
    plan: &'s Plan<'a>,
    memory: &'s ModuleMemory<'m>,
    group: &'s Group<'s>,
    parts: Parts,
    unknown: Unknown,
    /// The options of counted calls that are left.
    calls: u8,
    fit: Fit,
}

impl Search<'_, '_, '_> {
    fn try_all(&mut self, habits: &Habits) {
        for states in 0..1u32 << self.unknown.count {
            for (number, version) in VERSIONS.into_iter().enumerate() {
                let option = 1u8 << number;
                if habits.options(Choice::Alternative) & option == 0 {
                    continue;
                }
                let mut attempt = Attempt { states, version, option, choice: [0; MAX_PARTS] };
                loop {
                    self.attempt(&attempt);
                    if !self.parts.advance(&mut attempt.choice) {
                        break;
                    }
                }
            }
        }
    }

    /// Does what Linux would do, and compares. `None`: it would not.
    fn attempt(&mut self, attempt: &Attempt) -> Option<()> {
        let mut buffer: Buffer = [0; 256];
        let code = buffer.get_mut(..self.group.original.len())?;
        code.copy_from_slice(self.group.original);
        let mut inner_options = [0; MAX_PARTS];
        for ((inner, chosen), options) in self.parts.inner.iter().flatten().zip(attempt.choice).zip(&mut inner_options)
        {
            let Form { options: chosen, bytes } = inner.forms.iter().nth(chosen)?;
            *options = *chosen;
            let bytes = bytes.as_slice();
            code.get_mut(inner.offset..inner.offset + bytes.len())?.copy_from_slice(bytes);
        }
        let applied = self.apply(attempt, code)?;
        let (mut counts, before) = (false, buffer);
        for option in self.plan.counting_options() {
            let mut buffer = before;
            let code = buffer.get_mut(..self.group.original.len())?;
            if !self.count_calls(*option, code) {
                break;
            }
            counts = true;
            if self.calls & *option != 0 {
                let solution = Solution { applied, inner: self.inner_class(before.starts_with(code)) };
                self.compare(attempt, inner_options, *option, solution, code);
            }
        }
        // Without a call the counting makes no difference.
        let options = if counts { calls::KEPT } else { u8::MAX };
        if self.calls & options != 0 {
            let solution = Solution { applied, inner: self.inner_class(true) };
            self.compare(attempt, inner_options, options, solution, buffer.get_mut(..self.group.original.len())?);
        }
        Some(())
    }

    /// The class of what the bytes come from; a counted call where these are not `kept`.
    fn inner_class(&self, kept: bool) -> Option<Class> {
        if !kept {
            return Some(Class::Call);
        }
        self.parts.inner.iter().flatten().next().map(|inner| inner.site.class())
    }

    /// Counts the calls at listed places, in Linux' order; says whether there is one.
    fn count_calls(&self, option: u8, code: &mut [u8]) -> bool {
        let class = self.plan.counted_class();
        let listed = self.parts.calls.iter().flatten().copied();
        let paravirt = self.parts.inner.iter().flatten().filter(|inner| class == Some(inner.site.class()));
        let paravirt = paravirt.filter(|inner| inner.site.class() == Class::Paravirt).map(|inner| inner.offset);
        let entries = self.parts.entries.iter().flatten().filter(|_| class == Some(Class::Alternative)).map(|_| 0);
        let mut any = false;
        for offset in listed.chain(paravirt).chain(entries) {
            let va = self.group.va.wrapping_add(offset as u64);
            any |= self.plan.count_call(option, va, code.get_mut(offset..).unwrap_or_default());
        }
        any
    }

    /// Takes LOCK prefixes out, and compares.
    fn compare(
        &mut self,
        attempt: &Attempt,
        inner_options: [u8; MAX_PARTS],
        call_options: u8,
        solution: Solution,
        code: &mut [u8],
    ) {
        for option in locks::OPTIONS {
            for offset in self.parts.locks.iter().flatten() {
                let taken = locks::taken(self.plan, self.group.va.wrapping_add(*offset as u64)) & option != 0;
                // SECTION takes less than RANGE and comes first, so that nothing has to be put back.
                if let Some(byte) = code.get_mut(*offset).filter(|byte| **byte == locks::LOCK && taken) {
                    *byte = locks::DS;
                }
            }
            if code == self.group.found {
                self.fit.locks |= option;
                self.fit.calls |= call_options;
                self.fit.solution = solution;
                self.fits(attempt, inner_options);
            }
        }
    }

    /// Applies all entries; says whether one of them replaced something.
    fn apply(&self, attempt: &Attempt, code: &mut [u8]) -> Option<bool> {
        let version = attempt.version;
        let merging = MERGINGS.get(version.merging).copied().unwrap_or(MERGINGS[0]);
        let longest = self.parts.entries.iter().flatten().map(|entry| entry.length).max().unwrap_or_default();
        let mut applied = false;
        for (entry, known) in self.parts.entries.iter().flatten().zip(self.unknown.known) {
            let length = if version.evened { longest } else { entry.length };
            let site = code.get_mut(..usize::from(length))?;
            if self.unknown.has(entry, known, attempt.states) != entry.inverted {
                replacements::replace(self.plan, self.memory, entry, self.group, site, version.whole)?;
                applied = true;
            }
            nops::merge(site, merging);
        }
        Some(applied)
    }

    /// Notes an attempt that fits.
    fn fits(&mut self, attempt: &Attempt, inner_options: [u8; MAX_PARTS]) {
        let fit = &mut self.fit;
        fit.any = true;
        fit.versions |= attempt.option;
        for (all, options) in fit.inner.iter_mut().zip(inner_options) {
            *all |= options;
        }
        for (number, (absent, there)) in fit.features.iter_mut().enumerate().take(self.unknown.count) {
            if attempt.states >> number & 1 == 0 { *absent = true } else { *there = true }
        }
    }

    /// Keeps what the attempts that fit have in common; `false` when that contradicts what other sites showed.
    fn learn(&self, habits: &mut Habits) -> bool {
        let mut agrees = habits.narrow(Choice::Alternative, self.fit.versions);
        agrees &= habits.narrow(Choice::Call, self.fit.calls);
        if self.parts.locks.iter().flatten().next().is_some() {
            agrees &= habits.narrow(Choice::Lock, self.fit.locks);
        }
        for (inner, options) in self.parts.inner.iter().flatten().zip(self.fit.inner) {
            // Where a replacement covers it, every form fits, and nothing is learnt.
            agrees &= habits.narrow(inner.forms.choice, options);
        }
        for (feature, (absent, there)) in self.unknown.numbers.iter().zip(self.fit.features).take(self.unknown.count) {
            if absent != there {
                habits.learn_feature(*feature, there);
            }
        }
        agrees
    }

    /// Remembers the pages of thunks that inner branches go to.
    fn learn_pages(&self, habits: &mut Habits) -> bool {
        self.parts.inner.iter().flatten().zip(self.fit.inner).all(|(inner, options)| {
            let retpoline = inner.site.class() == Class::Retpoline;
            let spot = retpoline.then(|| self.group.spot(inner.site, inner.offset));
            let page = spot.and_then(|spot| retpolines::thunk_page_of(self.plan, &spot, options));
            page.is_none_or(|(number, page)| habits.thunk_page(number, page))
        })
    }
}
