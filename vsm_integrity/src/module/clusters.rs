//! Sites that touch each other, and what they hold: alternatives with all that is in them, the others one by one.
//!
//! Works on a copy of the file's bytes there, relocated; trusts that memory does not change.

use core::ops::Range;

use super::error::ModuleError;
use super::rewrites::{self, Group, Spot, alternatives, retpolines};
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
        self.explain_sites(&Cluster { walked, start, original, found, sites })?;
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
    fn explain_sites(&mut self, cluster: &Cluster<'_, 'p, 'a, 'm>) -> Result<(), ModuleError> {
        let mut rest = cluster.sites;
        let mut done = 0;
        while let Some(site) = rest.first() {
            let at = cluster.offset(*site);
            if at < done {
                return Err(cluster.refused(at, "sites must not overlap"));
            }
            cluster.unlisted(done, at)?;
            // All sites within an alternative that starts here.
            let same = rest.iter().take_while(|other| other.same_place(*site));
            let longest = same.filter_map(|other| self.alternative_length(*other)).max();
            if longest == Some(0) && site.class() == Class::Alternative {
                // No bytes, nothing to replace.
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            // A paravirt site that may be counted is worked through like an alternative with no entry.
            let paravirt = longest.is_none() && self.counts_paravirt(*site);
            let length = if paravirt { Some(rewrites::length(self.plan, *site, &[])?) } else { longest };
            let count = if let Some(length) = length.filter(|length| *length > 0) {
                let count = rest.iter().take_while(|other| cluster.offset(**other) < at + length).count();
                self.alternative(cluster, at..at + length, rest.get(..count).unwrap_or_default())?;
                done = at + length;
                count
            } else {
                done = at + self.single(cluster, at, *site)?;
                1
            };
            rest = rest.get(count..).unwrap_or_default();
        }
        cluster.unlisted(done, cluster.original.len())
    }

    /// Bytes of a site, if it is an alternative's.
    fn alternative_length(&self, site: Site) -> Option<usize> {
        let entry = self.plan.alternative(site.index()).filter(|_| site.class() == Class::Alternative);
        entry.map(|entry| usize::from(entry.length))
    }

    /// Whether calls are counted that paravirt sites have become, and the site is one.
    fn counts_paravirt(&self, site: Site) -> bool {
        site.class() == Class::Paravirt
            && self.plan.counted_class() == Some(Class::Paravirt)
            && !self.plan.counting_options().is_empty()
    }

    /// Explains a site that no other one overlaps; returns how many bytes it has.
    fn single(&mut self, cluster: &Cluster<'_, 'p, 'a, 'm>, at: usize, site: Site) -> Result<usize, ModuleError> {
        let length = rewrites::length(self.plan, site, cluster.original.get(at..).unwrap_or_default())?;
        let Bytes { va, original, found } = cluster.bytes(at..at + length, "a site must lie within its section")?;
        let spot = Spot { site, va, original, found };
        let forms = rewrites::forms(self.plan, self.habits, self.memory, &spot);
        let options = forms.options(found) & self.habits.options(forms.choice);
        if options == 0 || !self.habits.narrow(forms.choice, options) {
            let likely = forms.iter().find(|form| form.options & self.habits.options(forms.choice) != 0);
            let expected = likely.map_or(original, |form| form.bytes.as_slice());
            return Err(cluster.unexplained(at, expected, "a site must have a form that its list allows"));
        }
        if site.class() == Class::Retpoline
            && let Some((number, page)) = retpolines::thunk_page_of(self.plan, &spot, options)
            && !self.habits.thunk_page(number, page)
        {
            return Err(cluster.unexplained(at, &[], "all thunks of a page must be in one page"));
        }
        let changed = original.iter().zip(found).filter(|(one, other)| one != other).count();
        self.statistics.count(reason(site.class(), cluster.walked.section.name), changed);
        Ok(length)
    }

    /// Explains an alternative with the sites in it.
    fn alternative(
        &mut self,
        cluster: &Cluster<'_, 'p, 'a, 'm>,
        place: Range<usize>,
        sites: &[Site],
    ) -> Result<(), ModuleError> {
        let at = place.start;
        let Bytes { va, original, found } = cluster.bytes(place, "an alternative must lie within its section")?;
        let group = Group { va, original, found, sites };
        let solution = alternatives::solve(self.plan, self.habits, self.memory, &group);
        let solution = solution.map_err(|rule| cluster.unexplained(at, original, rule))?;
        let changed = original.iter().zip(found).filter(|(one, other)| one != other).count();
        let reason = match solution.inner {
            _ if solution.applied => Reason::Alternative,
            Some(class) => reason(class, cluster.walked.section.name),
            None => Reason::NopMerging,
        };
        self.statistics.count(reason, changed);
        Ok(())
    }
}

/// Sites that touch each other, and all bytes that they may change.
struct Cluster<'c, 'p, 'a, 'm> {
    walked: &'c Walked<'p, 'a, 'm>,
    /// Offset in the section.
    start: usize,
    /// The file's bytes, relocated.
    original: &'c [u8],
    /// What memory holds.
    found: &'c [u8],
    /// By address.
    sites: &'p [Site],
}

/// Some of a cluster's bytes.
struct Bytes<'c> {
    va: u64,
    original: &'c [u8],
    found: &'c [u8],
}

impl<'c> Cluster<'c, '_, '_, '_> {
    /// Offset of a site in the cluster.
    fn offset(&self, site: Site) -> usize {
        let offset = usize::try_from(site.offset().saturating_sub(self.walked.start)).unwrap_or(usize::MAX);
        offset.saturating_sub(self.start)
    }

    fn refused(&self, at: usize, rule: &'static str) -> ModuleError {
        self.walked.refused(self.start + at, rule)
    }

    fn unexplained(&self, at: usize, expected: &[u8], rule: &'static str) -> ModuleError {
        self.walked.unexplained(self.start + at, expected, rule)
    }

    fn bytes(&self, place: Range<usize>, rule: &'static str) -> Result<Bytes<'c>, ModuleError> {
        let va = self.walked.va.wrapping_add((self.start + place.start) as u64);
        let pieces = self.original.get(place.clone()).zip(self.found.get(place.clone()));
        let (original, found) = pieces.ok_or_else(|| self.refused(place.start, rule))?;
        Ok(Bytes { va, original, found })
    }

    /// Checks bytes that are in no site.
    fn unlisted(&self, from: usize, to: usize) -> Result<(), ModuleError> {
        let original = self.original.get(from..to).unwrap_or_default();
        if original == self.found.get(from..to).unwrap_or_default() {
            return Ok(());
        }
        Err(self.unexplained(from, original, "the bytes must be as in the file"))
    }
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
