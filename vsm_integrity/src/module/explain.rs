//! The verdict: every byte of code and read-only data explained, or the first one that is not.
//!
//! Writable data is not looked at, for VTL0 may change it at any time. Data that becomes read-only after initialisation
//! (`RO_AFTER_INIT`) is not looked at either: the module's own code writes to it before, and the table of jump labels in
//! it is sorted and marked by the kernel; what VTL1 needs of that table it takes from the file.

use alloc::vec::Vec;

use super::error::ModuleError;
use super::habits::{Choice, Habits};
use super::kind::Kind;
use super::layout::Place;
use super::memory::{ModuleMemory, PAGE};
use super::plan::Plan;
use super::rewrites::retpolines;
use super::sites::Class;
use super::sorted::Table;
use super::statistics::Statistics;
use super::walk::{Walk, Walked};
use crate::elf::RelocationType;

/// What is known of a module whose memory has been explained.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What explained it.
    pub statistics: Statistics,
    /// How this kernel rewrites code, for the next module.
    pub habits: Habits,
    /// Offset and size of the module's per-CPU variables, if code or read-only data refers to them.
    pub per_cpu: Option<(u64, u64)>,
    /// Addresses of the pages of thunks that the module's branches go to; 0 for one that none goes to.
    ///
    /// The module can run only when each is executable, and that is safe only when VTL1 has frozen it and compared it
    /// with [`Plan::write_thunk_page`].
    pub thunk_pages: Vec<u64>,
}

impl Plan<'_> {
    /// Explains all of a module's memory.
    ///
    /// `habits` are what is known of this kernel from modules that were accepted before, or [`Habits::default`].
    ///
    /// # Errors
    /// [`ModuleError::Unexplained`] with the first byte that has no explanation; other errors when the file is damaged.
    pub fn explain(&self, memory: &ModuleMemory<'_>, habits: &Habits) -> Result<Explained, ModuleError> {
        let mut habits = habits.clone().for_next_module();
        let mut statistics = Statistics::default();
        for kind in Self::explained() {
            let mut walk = Walk { plan: self, memory, habits: &mut habits, statistics: &mut statistics };
            walk.range(kind)?;
        }
        let per_cpu = habits.per_cpu.map(|base| (base, self.per_cpu.0));
        let thunk_pages = core::mem::take(&mut habits.thunk_pages);
        Ok(Explained { statistics, habits, per_cpu, thunk_pages })
    }

    /// Explains a part of a range once more, with what is around it as far as needed: all sites that overlap it, and
    /// whole tables that are sorted.
    ///
    /// Bytes that this refuses, with the default habits, [`Self::explain`] refuses too. What this accepts may still
    /// contradict other sites.
    ///
    /// # Errors
    /// As for [`Self::explain`].
    pub fn check(
        &self,
        memory: &ModuleMemory<'_>,
        habits: &mut Habits,
        kind: Kind,
        bytes: core::ops::Range<usize>,
    ) -> Result<(), ModuleError> {
        let mut statistics = Statistics::default();
        Walk { plan: self, memory, habits, statistics: &mut statistics }.part(kind, bytes)
    }

    /// Writes what the page of thunks of that number must hold: a jump for each branch, and INT3 everywhere else.
    ///
    /// # Errors
    /// When a page has another size.
    pub fn write_thunk_page(&self, number: usize, page: &mut [u8]) -> Result<(), ModuleError> {
        if page.len() as u64 != PAGE {
            return Err(ModuleError::section(b".retpoline_sites", 0, "a page of thunks must have 4096 bytes"));
        }
        page.fill(0xcc);
        for site in self.sites.iter().filter(|site| site.class() == Class::Retpoline && site.index() != 0) {
            if site.index() / 4096 == number
                && let Some(register) = self.thunk_register(*site)
            {
                retpolines::write_thunk(page, site.index() % 4096, register);
            }
        }
        Ok(())
    }
}

impl<'p, 'a, 'm> Walk<'p, 'a, 'm> {
    fn range(&mut self, kind: Kind) -> Result<(), ModuleError> {
        let plan = self.plan;
        let mut end = 0;
        for index in plan.layout.members(kind) {
            let start = self.offset(index);
            self.padding(kind, end, start)?;
            end = start;
            if let Some(walked) = self.open(index) {
                self.whole(&walked)?;
                end += walked.file.len();
            }
        }
        let size = self.memory.range(kind).map_or(0, |range| range.size);
        self.padding(kind, end, usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// Offset of a section in its range.
    fn offset(&self, index: usize) -> usize {
        match self.plan.layout.place(index) {
            Place::Range(_, start) => usize::try_from(start).unwrap_or(usize::MAX),
            Place::PerCpu | Place::Nowhere => usize::MAX,
        }
    }

    /// Explains all of a section.
    fn whole(&mut self, walked: &Walked<'p, 'a, 'm>) -> Result<(), ModuleError> {
        match (walked.kind.is_text(), walked.section.name) {
            (false, b".orc_unwind") if self.plan.elf.find(b".orc_unwind_ip").is_some() => Ok(()),
            (false, b".altinstructions") => self.alternatives(walked),
            (false, name) if let Some(table) = Table::with_name(name) => self.sorted(table, walked.section.index),
            _ => self.section(walked, 0, walked.file.len()),
        }
    }

    /// Explains a part of a range.
    fn part(&mut self, kind: Kind, bytes: core::ops::Range<usize>) -> Result<(), ModuleError> {
        let plan = self.plan;
        let mut at = bytes.start;
        while at < bytes.end {
            let offset = u32::try_from(at).unwrap_or(u32::MAX);
            let index = plan.layout.section_at(kind, offset);
            let Some((index, walked)) = index.and_then(|index| Some((index, self.open(index)?))) else {
                // Before the first section, or in one without bytes in the file.
                let next = plan.layout.members(kind).map(|index| self.offset(index)).find(|start| *start > at);
                let end = next.unwrap_or(bytes.end).min(bytes.end);
                self.padding(kind, at, end)?;
                at = end;
                continue;
            };
            let start = self.offset(index);
            let end = start + walked.file.len();
            if at >= end {
                let next = plan.layout.members(kind).map(|index| self.offset(index)).find(|start| *start > at);
                let end = next.unwrap_or(bytes.end).min(bytes.end);
                self.padding(kind, at, end)?;
                at = end;
                continue;
            }
            let to = end.min(bytes.end);
            match walked.section.name {
                b".orc_unwind" if !kind.is_text() => {
                    if let Some(table) = plan.elf.find(b".orc_unwind_ip") {
                        self.sorted(Table::Unwind, table.index)?;
                    }
                }
                b".altinstructions" if !kind.is_text() => self.alternatives(&walked)?,
                name if !kind.is_text() && Table::with_name(name).is_some() => self.whole(&walked)?,
                _ => self.around(&walked, at - start, to - start)?,
            }
            at = to;
        }
        Ok(())
    }

    /// Explains bytes of a section from a place before them on where no site or relocation is under way.
    fn around(&mut self, walked: &Walked<'p, 'a, 'm>, from: usize, to: usize) -> Result<(), ModuleError> {
        let mut start = from.saturating_sub(8);
        if walked.kind.is_text() {
            start = self.before_sites(walked, from)?;
        }
        // A relocation that is under way where it starts would be seen as one that overlaps.
        let first = walked.relocations.before(start as u64);
        if let Some(before) = first.checked_sub(1).and_then(|before| walked.relocations.get(before)) {
            let place = usize::try_from(before.offset).unwrap_or(usize::MAX);
            let width = before.known_type().map_or(0, RelocationType::width);
            if place.saturating_add(width) > start {
                start = place;
            }
        }
        self.section(walked, start, to)
    }

    /// A place at or before `from` that no site crosses.
    fn before_sites(&self, walked: &Walked<'p, 'a, 'm>, from: usize) -> Result<usize, ModuleError> {
        /// More than a site and what it overlaps can have.
        const FAR: usize = 1024;
        let sites = &self.plan.sites;
        let offset = |site: usize| {
            let site = sites.get(site)?;
            (site.kind() == walked.kind).then(|| usize::try_from(site.offset().checked_sub(walked.start)?).ok())?
        };
        let base = u32::try_from(from.saturating_sub(FAR)).unwrap_or(u32::MAX).saturating_add(walked.start);
        let mut site = sites.partition_point(|site| *site < super::sites::Site::at(walked.kind, base));
        let mut end = 0;
        // From the first site on, clusters follow each other; the last one that starts before counts.
        let mut cluster = None;
        while let Some(at) = offset(site).filter(|at| *at <= from) {
            if at >= end {
                cluster = Some(at);
            }
            let Some(found) = sites.get(site) else { break };
            let code = walked.file.get(at..).unwrap_or_default();
            end = end.max(at + super::rewrites::length(self.plan, *found, code)?);
            site += 1;
        }
        let start = match cluster {
            Some(cluster) if end > from => cluster,
            _ => end.max(from.saturating_sub(8)),
        };
        Ok(start)
    }

    /// `.altinstructions`: as in the file, but from Linux 6.10 on all entries about a place get the longest one's length
    /// (`apply_alternatives`).
    fn alternatives(&mut self, walked: &Walked<'p, 'a, 'm>) -> Result<(), ModuleError> {
        /// Lengths stay.
        const KEPT: u8 = 1;
        /// Lengths are evened out.
        const EVENED: u8 = 2;
        let (table, stride) = self.plan.tables.alternatives;
        if table != walked.section.index || stride == 0 {
            return self.section(walked, 0, walked.file.len());
        }
        let count = walked.file.len() / stride;
        let length_of = |index: usize| walked.file.get(index * stride + stride - 2).copied().unwrap_or_default();
        let mut fields = self.plan.fields(walked.section);
        // Entries about one place are next to each other: the place, the first, the longest.
        let (mut group, mut first, mut longest): (Option<u64>, usize, u8) = (None, 0, 0);
        let mut first_unchecked = 0;
        for index in 0..=count {
            let place = if index < count { fields.target(index * stride, false)? } else { None };
            if index < count && place == group && index != first {
                longest = longest.max(length_of(index));
                continue;
            }
            for entry in first_unchecked..index {
                let at = entry * stride + stride - 2;
                self.section(walked, entry * stride, at)?;
                let (kept, found) = (length_of(entry), walked.memory.get(at).copied());
                let mut options = 0;
                for (option, length) in [(KEPT, kept), (EVENED, longest)] {
                    if found == Some(length) {
                        options |= option;
                    }
                }
                if !self.habits.narrow(Choice::AlternativeLength, options) {
                    return Err(walked.unexplained(at, &[kept], "an alternative's length must be as in the file"));
                }
                self.section(walked, at + 1, at + 2)?;
                self.statistics.count(super::statistics::Reason::Verbatim, 1);
            }
            first_unchecked = index;
            (group, first) = (place, index);
            longest = if index < count { length_of(index) } else { 0 };
        }
        Ok(())
    }
}
