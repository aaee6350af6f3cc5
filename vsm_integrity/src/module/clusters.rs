//! Sites that touch each other, and what they hold: alternatives with all that is in them, the others one by one.
//!
//! Works on a copy of the file's bytes there, relocated; trusts that memory does not change.

use super::error::ModuleError;
use super::plan::Plan;
use super::rewrites::{self, Spot, alternatives, retpolines};
use super::sites::{Class, Site};
use super::statistics::Reason;
use super::walk::{Position, Walk, Walked};

/// The most bytes of rewrites that touch each other.
const MAX_CLUSTER: usize = 512;

impl<'p, 'a, 'm> Walk<'p, 'a, 'm> {
    /// Explains the sites at the position, and all that overlap them.
    pub fn cluster(&mut self, walked: &Walked<'p, 'a, 'm>, position: &mut Position) -> Result<(), ModuleError> {
        let plan = self.plan;
        let start = position.at;
        let (first, mut end) = (position.site, start);
        while let Some(at) = self.site_offset(walked, position.site).filter(|at| *at < end || position.site == first) {
            let Some(site) = plan.sites.get(position.site) else { break };
            let code = walked.file.get(at..).unwrap_or_default();
            end = end.max(at + rewrites::length(plan, *site, code)?);
            position.site += 1;
        }
        let length = end - start;
        if length > MAX_CLUSTER {
            return Err(walked.refused(start, "rewrites must not overlap over more than 512 bytes"));
        }
        let mut buffer = [0; MAX_CLUSTER];
        let original = buffer.get_mut(..length).unwrap_or_default();
        let found = walked.memory.get(start..end);
        let found = found.ok_or_else(|| walked.refused(start, "a site must lie within its section"))?;
        let relocated = self.originals(walked, position, start, original)?;
        let sites = plan.sites.get(first..position.site).unwrap_or_default();
        self.explain_sites(walked, start, original, found, sites)?;
        let same = original.iter().zip(found).filter(|(one, other)| one == other).count();
        let relocated = relocated.min(same);
        self.statistics.count(Reason::Relocation, relocated);
        self.statistics.count(Reason::Verbatim, same - relocated);
        position.at = end;
        Ok(())
    }

    /// The relocated bytes of the file at a cluster; returns how many of them relocations wrote.
    fn originals(
        &mut self,
        walked: &Walked<'p, 'a, 'm>,
        position: &mut Position,
        start: usize,
        into: &mut [u8],
    ) -> Result<usize, ModuleError> {
        let end = start + into.len();
        let file = walked.file.get(start..end);
        into.copy_from_slice(file.ok_or_else(|| walked.refused(start, "a site must lie within its section"))?);
        let mut count = 0;
        while let Some((relocation, kind, at)) = Self::next_relocation(walked, position)? {
            if at >= end {
                break;
            }
            let written = self.value_at(walked, &relocation, kind, at)?;
            let field = into.get_mut(at - start..at - start + kind.width());
            let rule = "a relocation must not cross the end of a site";
            field.ok_or_else(|| walked.refused(at, rule))?.copy_from_slice(written.as_slice());
            count += kind.width();
            position.relocation += 1;
        }
        Ok(count)
    }

    /// Explains overlapping sites: alternatives with all that is in them, and the others one by one.
    fn explain_sites(
        &mut self,
        walked: &Walked<'p, 'a, 'm>,
        start: usize,
        original: &[u8],
        found: &[u8],
        sites: &'p [Site],
    ) -> Result<(), ModuleError> {
        let mut rest = sites;
        let mut done = 0;
        while let Some(site) = rest.first() {
            let at = Self::offset_in(walked, *site, start);
            if at < done {
                let again = rest.len() < sites.len() && sites.get(sites.len() - rest.len() - 1) == Some(site);
                if again || site.class() == Class::Lock && Self::is_repeated(sites, rest) {
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
                return Err(walked.refused(start + at, "sites must not overlap"));
            }
            Self::unlisted(walked, start, (done, at), original, found)?;
            // All sites within an alternative that starts here.
            let same = rest.iter().take_while(|other| other.same_place(*site));
            let longest = same.filter(|other| other.class() == Class::Alternative);
            let longest = longest.filter_map(|other| plan_length(self.plan, *other)).max().filter(|length| *length > 0);
            if longest.is_none() && site.class() == Class::Alternative && plan_length(self.plan, *site) == Some(0) {
                // No bytes, nothing to replace.
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let used;
            if let Some(length) = longest {
                let inside = |other: &&Site| Self::offset_in(walked, **other, start) < at + length;
                let count = rest.iter().take_while(inside).count();
                let (inner, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                self.alternative(walked, start, (at, length), (original, found), inner)?;
                rest = after;
                used = length;
            } else {
                used = self.single(walked, start, at, (original, found), *site)?;
                rest = rest.get(1..).unwrap_or_default();
            }
            done = at + used;
        }
        Self::unlisted(walked, start, (done, original.len()), original, found)
    }

    /// Whether the first of `rest` names a place that a site before it named: lists of LOCK prefixes may repeat.
    fn is_repeated(sites: &[Site], rest: &[Site]) -> bool {
        let before = sites.get(..sites.len() - rest.len()).unwrap_or_default();
        rest.first()
            .is_some_and(|site| before.iter().any(|other| other.same_place(*site) && other.class() == site.class()))
    }

    fn offset_in(walked: &Walked<'_, '_, '_>, site: Site, start: usize) -> usize {
        let offset = usize::try_from(site.offset().saturating_sub(walked.start)).unwrap_or(usize::MAX);
        offset.saturating_sub(start)
    }

    /// Bytes of a cluster that are in no site.
    fn unlisted(
        walked: &Walked<'_, '_, '_>,
        start: usize,
        (from, to): (usize, usize),
        original: &[u8],
        found: &[u8],
    ) -> Result<(), ModuleError> {
        let (original, found) = (original.get(from..to).unwrap_or_default(), found.get(from..to).unwrap_or_default());
        if original == found {
            return Ok(());
        }
        Err(walked.unexplained(start + from, original, "the bytes must be as in the file"))
    }

    fn single(
        &mut self,
        walked: &Walked<'p, 'a, 'm>,
        start: usize,
        at: usize,
        (original, found): (&[u8], &[u8]),
        site: Site,
    ) -> Result<usize, ModuleError> {
        let refused = |rule| walked.refused(start + at, rule);
        let original = original.get(at..).unwrap_or_default();
        let length = rewrites::length(self.plan, site, original)?;
        let original = original.get(..length).ok_or_else(|| refused("a site must lie within its section"))?;
        let found = found.get(at..at + length).ok_or_else(|| refused("a site must lie within its section"))?;
        let va = walked.va.wrapping_add((start + at) as u64);
        let spot = Spot { site, va, original, found };
        let forms = rewrites::forms(self.plan, self.habits, self.memory, &spot);
        let options = forms.options(found) & self.habits.options(forms.choice);
        if options == 0 || !self.habits.narrow(forms.choice, options) {
            let likely = forms.iter().find(|form| form.options & self.habits.options(forms.choice) != 0);
            let expected = likely.map_or(original, |form| form.bytes.as_slice());
            return Err(walked.unexplained(start + at, expected, "a site must have a form that its list allows"));
        }
        if site.class() == Class::Retpoline
            && let Some((number, page)) = retpolines::thunk_page_of(self.plan, &spot, options)
            && !self.habits.thunk_page(number, page)
        {
            return Err(walked.unexplained(start + at, &[], "all thunks of a page must be in one page"));
        }
        let changed = original.iter().zip(found).filter(|(one, other)| one != other).count();
        self.statistics.count(reason(site.class(), walked.section.name), changed);
        Ok(length)
    }

    fn alternative(
        &mut self,
        walked: &Walked<'p, 'a, 'm>,
        start: usize,
        (at, length): (usize, usize),
        (original, found): (&[u8], &[u8]),
        sites: &[Site],
    ) -> Result<(), ModuleError> {
        let refused = || walked.refused(start + at, "an alternative must lie within its section");
        let original = original.get(at..at + length).ok_or_else(refused)?;
        let found = found.get(at..at + length).ok_or_else(refused)?;
        let va = walked.va.wrapping_add((start + at) as u64);
        let group = alternatives::Group { va, original, found, sites };
        let solution = alternatives::solve(self.plan, self.habits, self.memory, &group);
        let solution = solution.map_err(|rule| walked.unexplained(start + at, original, rule))?;
        let changed = original.iter().zip(found).filter(|(one, other)| one != other).count();
        let reason = match solution.inner {
            _ if solution.applied => Reason::Alternative,
            Some(class) => reason(class, walked.section.name),
            None => Reason::NopMerging,
        };
        self.statistics.count(reason, changed);
        Ok(())
    }
}

/// Bytes of an alternative's site.
fn plan_length(plan: &Plan<'_>, site: Site) -> Option<usize> {
    plan.alternative(site.index()).map(|entry| usize::from(entry.length))
}

/// What a changed site counts as.
fn reason(class: Class, section: &[u8]) -> Reason {
    match class {
        // Trampolines that only return are listed as returns.
        Class::Return if section == b".static_call.text" => Reason::StaticCall,
        Class::Return => Reason::Return,
        Class::Retpoline => Reason::Retpoline,
        Class::Paravirt => Reason::Paravirt,
        Class::Alternative => Reason::Alternative,
        Class::Call | Class::Pad => Reason::CallDepth,
        Class::Seal => Reason::Seal,
        Class::Lock => Reason::SmpLock,
        Class::Ftrace => Reason::Ftrace,
        Class::JumpLabel => Reason::JumpLabel,
    }
}
