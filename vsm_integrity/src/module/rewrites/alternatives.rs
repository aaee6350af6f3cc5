//! Alternatives: code that Linux replaces when the CPU has a feature (`apply_alternatives`,
//! arch/x86/kernel/alternative.c), and the merging of NOPs where it does not.
//!
//! Several entries may be about one place: they are applied one after the other. What was there before may itself be a
//! site, of a paravirt call or of a branch to a thunk, and has been rewritten first. The replacement is code of the module
//! too, and is taken from memory as it has been rewritten there: it is explained where it lies.
//!
//! Which features the CPU has, and which Linux' version is, is not asked: every way to get to what is in memory is tried,
//! and what those that fit have in common is kept as a habit.

use super::nops::{self, MERGINGS};
use super::{Form, Forms, Spot, replacements, retpolines};
use crate::module::habits::{Choice, Habits};
use crate::module::memory::ModuleMemory;
use crate::module::plan::Plan;
use crate::module::sites::{Class, Site};

/// The most entries about one place, and sites within it.
const MAX_PARTS: usize = 8;
/// Bytes that are worked on, with room to spare.
pub(super) type Buffer = [u8; 256];
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

/// An entry of `.altinstructions` (`struct alt_instr`).
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Number of the CPU feature.
    pub feature: u16,
    /// Whether it is the feature's absence that counts.
    pub inverted: bool,
    /// Whether it stands for a direct call instead of one through `pv_ops` (6.8 and later).
    pub direct_call: bool,
    /// Bytes at the site.
    pub length: u8,
    /// Bytes of the replacement.
    pub replacement_length: u8,
    /// Address of the replacement.
    pub replacement: u64,
}

impl Entry {
    /// Decodes an entry of 12 or 14 bytes, whose replacement is at that address.
    pub fn decode(bytes: &[u8], replacement: u64) -> Option<Self> {
        let (feature, inverted, direct_call, rest) = match *bytes {
            [_, _, _, _, _, _, _, _, a, b, ref rest @ ..] if bytes.len() == 12 => {
                let feature = u16::from_le_bytes([a, b]);
                (feature & 0x7fff, feature & 0x8000 != 0, false, rest)
            }
            [_, _, _, _, _, _, _, _, a, b, flags, upper, ref rest @ ..] if bytes.len() == 14 && upper == 0 => {
                (u16::from_le_bytes([a, b]), flags & 1 != 0, flags & 2 != 0, rest)
            }
            _ => return None,
        };
        let [length, replacement_length] = *rest else { return None };
        let fits = feature < 1024 && replacement_length <= length;
        fits.then_some(Self { feature, inverted, direct_call, length, replacement_length, replacement })
    }
}

/// The entries about a place, and the other sites in its bytes.
pub struct Group<'s> {
    /// Address of the first byte.
    pub va: u64,
    /// The file's bytes, relocated.
    pub original: &'s [u8],
    /// What memory holds.
    pub found: &'s [u8],
    /// All sites in these bytes, those of the alternative itself included.
    pub sites: &'s [Site],
}

impl Group<'_> {
    /// The site at `offset` of the bytes.
    fn spot(&self, site: Site, offset: usize) -> Spot<'_> {
        Spot {
            site,
            va: self.va.wrapping_add(offset as u64),
            original: self.original.get(offset..).unwrap_or_default(),
            found: self.found.get(offset..).unwrap_or_default(),
        }
    }
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
    let mut fit = Fit::new();
    let features = parts.features(habits);
    for states in 0..1u32 << features.len() {
        for (number, version) in VERSIONS.iter().enumerate() {
            let option = 1u8 << number;
            if habits.options(Choice::Alternative) & option == 0 {
                continue;
            }
            let mut choice = [0usize; MAX_PARTS];
            loop {
                parts.attempt(plan, memory, group, (states, version, option), &choice, &features, &mut fit);
                if !parts.advance(&mut choice) {
                    break;
                }
            }
        }
    }
    if !fit.any {
        return Err("an alternative must be as in the file or as one of its replacements");
    }
    let agrees = parts.learn(habits, &features, &fit) && parts.learn_pages(plan, habits, group, &fit);
    agrees.then_some(fit.solution).ok_or("an alternative must agree with other sites")
}

/// A rewritten site within the bytes of an alternative.
struct Inner {
    offset: usize,
    site: Site,
    forms: Forms,
}

/// Everything about a place.
struct Parts {
    entries: [Option<Entry>; MAX_PARTS],
    inner: [Option<Inner>; MAX_PARTS],
    /// Offsets of LOCK prefixes.
    locks: [Option<usize>; MAX_PARTS],
}

/// The features that are not known yet: their numbers.
struct Unknown {
    numbers: [u16; MAX_PARTS],
    count: usize,
    /// What is known of each entry's.
    known: [Option<bool>; MAX_PARTS],
}

impl Unknown {
    fn len(&self) -> usize {
        self.count
    }
}

/// What all attempts that fit have in common.
struct Fit {
    any: bool,
    versions: u8,
    locks: u8,
    inner: [u8; MAX_PARTS],
    /// For each unknown feature whether it was absent, and whether it was there.
    features: [(bool, bool); MAX_PARTS],
    solution: Solution,
}

impl Fit {
    fn new() -> Self {
        Self {
            any: false,
            versions: 0,
            locks: 0,
            inner: [0; MAX_PARTS],
            features: [(false, false); MAX_PARTS],
            solution: Solution::default(),
        }
    }
}

impl Parts {
    fn collect(
        plan: &Plan<'_>,
        habits: &Habits,
        memory: &ModuleMemory<'_>,
        group: &Group<'_>,
    ) -> Result<Self, &'static str> {
        const MANY: &str = "there must not be more than 8 rewrites at a place";
        let mut parts =
            Self { entries: [None; MAX_PARTS], inner: [const { None }; MAX_PARTS], locks: [None; MAX_PARTS] };
        let start = group.sites.first().map_or(0, |site| site.offset());
        let (mut entries, mut inner, mut locks) = (0, 0, 0);
        for site in group.sites {
            let offset = usize::try_from(site.offset().saturating_sub(start)).unwrap_or(usize::MAX);
            match site.class() {
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
                _ => {
                    let forms = super::forms(plan, habits, memory, &group.spot(*site, offset)).allowed(habits);
                    *parts.inner.get_mut(inner).ok_or(MANY)? = Some(Inner { offset, site: *site, forms });
                    inner += 1;
                }
            }
        }
        if parts.inner.iter().flatten().count() > 2 {
            return Err("there must not be more than two other rewrites within an alternative");
        }
        Ok(parts)
    }

    fn features(&self, habits: &Habits) -> Unknown {
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

    /// Does what Linux would do, and compares.
    #[expect(clippy::too_many_arguments, reason = "one place where everything about a site comes together")]
    fn attempt(
        &self,
        plan: &Plan<'_>,
        memory: &ModuleMemory<'_>,
        group: &Group<'_>,
        (states, version, number): (u32, &Version, u8),
        choice: &[usize; MAX_PARTS],
        unknown: &Unknown,
        fit: &mut Fit,
    ) {
        let length = group.original.len();
        let mut buffer: Buffer = [0; 256];
        let Some(code) = buffer.get_mut(..length) else { return };
        code.copy_from_slice(group.original);
        let mut inner_options = [0; MAX_PARTS];
        for ((inner, chosen), options) in self.inner.iter().flatten().zip(choice).zip(&mut inner_options) {
            let Some(Form { options: chosen, bytes }) = inner.forms.iter().nth(*chosen) else { return };
            *options = *chosen;
            let bytes = bytes.as_slice();
            let Some(into) = code.get_mut(inner.offset..inner.offset + bytes.len()) else { return };
            into.copy_from_slice(bytes);
        }
        let merging = MERGINGS.get(version.merging).copied().unwrap_or(MERGINGS[0]);
        let longest = self.entries.iter().flatten().map(|entry| entry.length).max().unwrap_or_default();
        let mut applied = false;
        for (entry, known) in self.entries.iter().flatten().zip(&unknown.known) {
            let length = if version.evened { longest } else { entry.length };
            let Some(site) = code.get_mut(..usize::from(length)) else { return };
            let has = known.unwrap_or_else(|| {
                let number = unknown.numbers.iter().position(|number| *number == entry.feature).unwrap_or(0);
                states >> number & 1 != 0
            });
            if has != entry.inverted {
                if replacements::replace(plan, memory, entry, group, site, version.whole).is_none() {
                    return;
                }
                applied = true;
            }
            nops::merge(site, merging);
        }
        for option in super::locks::OPTIONS {
            for offset in self.locks.iter().flatten() {
                let taken = super::locks::taken(plan, group.va.wrapping_add(*offset as u64)) & option != 0;
                // SECTION takes less than RANGE and comes first, so that nothing has to be put back.
                if let Some(byte) = code.get_mut(*offset).filter(|byte| **byte == super::locks::LOCK && taken) {
                    *byte = super::locks::DS;
                }
            }
            if code != group.found {
                continue;
            }
            fit.any = true;
            fit.versions |= number;
            fit.locks |= option;
            for (all, options) in fit.inner.iter_mut().zip(inner_options) {
                *all |= options;
            }
            for (number, (absent, there)) in fit.features.iter_mut().enumerate().take(unknown.len()) {
                if states >> number & 1 == 0 { *absent = true } else { *there = true }
            }
            let inner = self.inner.iter().flatten().next().map(|inner| inner.site.class());
            fit.solution = Solution { applied, inner };
        }
    }

    /// Keeps what the attempts that fit have in common; `false` when that contradicts what other sites showed.
    fn learn(&self, habits: &mut Habits, unknown: &Unknown, fit: &Fit) -> bool {
        let mut agrees = habits.narrow(Choice::Alternative, fit.versions);
        if self.locks.iter().flatten().next().is_some() {
            agrees &= habits.narrow(Choice::Lock, fit.locks);
        }
        for (inner, options) in self.inner.iter().flatten().zip(fit.inner) {
            // Where a replacement covers it, every form fits, and nothing is learnt.
            agrees &= habits.narrow(inner.forms.choice, options);
        }
        for (feature, (absent, there)) in unknown.numbers.iter().zip(fit.features).take(unknown.len()) {
            if absent != there {
                habits.learn_feature(*feature, there);
            }
        }
        agrees
    }
}

impl Parts {
    /// Remembers the pages of thunks that inner branches go to.
    fn learn_pages(&self, plan: &Plan<'_>, habits: &mut Habits, group: &Group<'_>, fit: &Fit) -> bool {
        self.inner.iter().flatten().zip(fit.inner).all(|(inner, options)| {
            let retpoline = inner.site.class() == Class::Retpoline;
            let page = if retpoline {
                retpolines::thunk_page_of(plan, &group.spot(inner.site, inner.offset), options)
            } else {
                None
            };
            page.is_none_or(|(number, page)| habits.thunk_page(number, page))
        })
    }
}
