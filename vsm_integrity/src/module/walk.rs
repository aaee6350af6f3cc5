//! The walk through a section: between relocations and sites the file's bytes, at them what Linux writes there.
//!
//! Nothing is copied but the bytes of a place where code was rewritten, so that the heap does not matter and the time is
//! that of a comparison. Trusts that memory does not change.

use super::error::{Hex, ModuleError, Name, Refusal};
use super::habits::Habits;
use super::kind::Kind;
use super::layout::Place;
use super::memory::ModuleMemory;
use super::plan::Plan;
use super::relocate::{self, Ordered, Written};
use super::sites::Site;
use super::statistics::{Reason, Statistics};
use super::symbols::Value;
use crate::elf::{Relocation, RelocationType, Section};

/// A walk through a module's memory.
pub(super) struct Walk<'p, 'a, 'm> {
    pub plan: &'p Plan<'a>,
    pub memory: &'p ModuleMemory<'m>,
    pub habits: &'p mut Habits,
    pub statistics: &'p mut Statistics,
}

/// A section that is walked through.
#[derive(Clone, Copy)]
pub(super) struct Walked<'p, 'a, 'm> {
    pub section: Section<'a>,
    /// Its bytes in the file.
    pub file: &'a [u8],
    /// Its bytes in memory, as many.
    pub memory: &'m [u8],
    pub relocations: Ordered<'p>,
    pub kind: Kind,
    /// Its offset in the range.
    pub start: u32,
    pub va: u64,
}

impl Walked<'_, '_, '_> {
    /// An error about the bytes at `at`.
    pub fn unexplained(&self, at: usize, expected: &[u8], rule: &'static str) -> ModuleError {
        let found = self.memory.get(at..).unwrap_or_default();
        let found = found.get(..expected.len().max(1)).unwrap_or(found);
        ModuleError::Unexplained(Refusal {
            section: Name::new(self.section.name),
            offset: at as u64,
            va: self.va.wrapping_add(at as u64),
            found: Hex::new(found),
            expected: Hex::new(expected),
            rule,
        })
    }

    /// An error about the file at `at`.
    pub fn refused(&self, at: usize, rule: &'static str) -> ModuleError {
        ModuleError::section(self.section.name, at, rule)
    }
}

/// Where a walk is.
#[derive(Clone, Copy)]
pub(super) struct Position {
    /// Offset in the section.
    pub at: usize,
    /// Next relocation.
    pub relocation: usize,
    /// Next site.
    pub site: usize,
}

impl<'p, 'a, 'm> Walk<'p, 'a, 'm> {
    /// The section of that index; `None` for one that has no bytes in the file, or none that are explained.
    pub fn open(&self, index: usize) -> Option<Walked<'p, 'a, 'm>> {
        let section = self.plan.elf.section(index)?;
        let Place::Range(kind, start) = self.plan.layout.place(index) else { return None };
        let file = self.plan.elf.bytes(&section);
        let memory = self.memory.slice(kind, usize::try_from(start).ok()?, file.len())?;
        let relocations = self.plan.relocations.of_section(&self.plan.elf, index);
        Some(Walked { section, file, memory, relocations, kind, start, va: self.plan.layout.address(index)? })
    }

    /// Explains the bytes `from..to` of a section.
    pub fn section(&mut self, walked: &Walked<'p, 'a, 'm>, from: usize, to: usize) -> Result<(), ModuleError> {
        let first = walked.start.saturating_add(u32::try_from(from).unwrap_or(u32::MAX));
        let sites = &self.plan.sites;
        let site = if walked.kind.is_text() {
            sites.partition_point(|site| *site < Site::at(walked.kind, first))
        } else {
            sites.len()
        };
        let relocation = walked.relocations.before(from as u64);
        let mut position = Position { at: from, relocation, site };
        while position.at < to {
            let site_at = self.site_offset(walked, position.site).unwrap_or(usize::MAX);
            let end = site_at.min(to);
            self.unrewritten(walked, &mut position, end)?;
            if position.at > site_at {
                return Err(walked.refused(site_at, "a relocation must not cross the start of a site"));
            }
            if position.at < to && position.at == site_at {
                self.cluster(walked, &mut position)?;
            }
        }
        // What Linux would write beyond the section's end.
        let beyond = to >= walked.file.len() && Self::next_relocation(walked, &mut position)?.is_some();
        if beyond { Err(walked.refused(to, "a relocation must lie within its section")) } else { Ok(()) }
    }

    /// Explains bytes up to `end` in which there are no sites. A relocation may go beyond.
    fn unrewritten(
        &mut self,
        walked: &Walked<'_, '_, '_>,
        position: &mut Position,
        end: usize,
    ) -> Result<(), ModuleError> {
        let (mut at, mut next) = (position.at, position.relocation);
        let mut relocated = 0;
        let from = at;
        while let Some(relocation) = walked.relocations.get(next) {
            if relocation.offset >= end as u64 {
                break;
            }
            next += 1;
            if let Some(end) = self.usual_end(walked, &relocation, at) {
                relocated += 4;
                at = end;
                continue;
            }
            if relocation.is_none() {
                continue;
            }
            let (kind, range) = Plan::checked(&relocation, walked.file).map_err(|rule| walked.refused(at, rule))?;
            if range.start < at {
                return Err(walked.refused(range.start, "relocations must not overlap"));
            }
            Self::verbatim(walked, at, range.start)?;
            let written = self.value_at(walked, &relocation, kind, range.start)?;
            let expected = written.as_slice();
            if !walked.memory.get(range.clone()).is_some_and(|found| same(found, expected)) {
                return Err(walked.unexplained(range.start, expected, "the bytes must be what the relocation writes"));
            }
            relocated += expected.len();
            at = range.end;
        }
        if at < end {
            Self::verbatim(walked, at, end)?;
            at = end;
        }
        self.statistics.count(Reason::Relocation, relocated);
        self.statistics.count(Reason::Verbatim, at - from - relocated);
        (position.at, position.relocation) = (at, next);
        Ok(())
    }

    /// The fast path for most relocations: four bytes of a symbol whose value is known, and nothing changed since `at`.
    /// Returns where they end; `None`: use the slow path.
    #[inline]
    fn usual_end(&self, walked: &Walked<'_, '_, '_>, relocation: &Relocation, at: usize) -> Option<usize> {
        let start = usize::try_from(relocation.offset).ok()?;
        let end = start.checked_add(4)?;
        let (file, memory) = (walked.file.get(at..end)?, walked.memory.get(at..end)?);
        let (file, zero) = file.split_last_chunk::<4>()?;
        let (memory, found) = memory.split_last_chunk::<4>()?;
        let sum = self.plan.symbols.ready(relocation.symbol)?.wrapping_add(relocation.addend);
        let written = match relocation.known_type()? {
            RelocationType::Relative32 => sum.wrapping_sub(walked.va.wrapping_add(relocation.offset)),
            RelocationType::Signed32 => sum,
            _ => return None,
        };
        let written = i32::try_from(written.cast_signed()).ok()?;
        let usual = i32::from_le_bytes(*found) == written && *zero == [0; 4] && same(file, memory);
        usual.then_some(end)
    }

    /// Offset in the section of a site, if it is in it.
    pub fn site_offset(&self, walked: &Walked<'_, '_, '_>, site: usize) -> Option<usize> {
        let site = self.plan.sites.get(site).filter(|site| site.kind() == walked.kind)?;
        let offset = usize::try_from(site.offset().checked_sub(walked.start)?).ok()?;
        (offset < walked.file.len()).then_some(offset)
    }

    /// The next relocation that writes something, its type and its offset.
    pub fn next_relocation(
        walked: &Walked<'_, '_, '_>,
        position: &mut Position,
    ) -> Result<Option<(Relocation, RelocationType, usize)>, ModuleError> {
        while let Some(relocation) = walked.relocations.get(position.relocation) {
            if relocation.is_none() {
                position.relocation += 1;
                continue;
            }
            let checked = Plan::checked(&relocation, walked.file);
            let (kind, range) = checked.map_err(|rule| walked.refused(position.at, rule))?;
            if range.start < position.at {
                return Err(walked.refused(range.start, "relocations must not overlap"));
            }
            return Ok(Some((relocation, kind, range.start)));
        }
        Ok(None)
    }

    /// Compares bytes with the file's.
    #[inline]
    fn verbatim(walked: &Walked<'_, '_, '_>, from: usize, to: usize) -> Result<(), ModuleError> {
        let (file, memory) = (walked.file.get(from..to), walked.memory.get(from..to));
        match (file, memory) {
            (Some(file), Some(memory)) if same(file, memory) => Ok(()),
            (Some(file), Some(memory)) => {
                let at = file.iter().zip(memory).position(|(one, other)| one != other).unwrap_or_default();
                let expected = file.get(at..file.len().min(at + 16)).unwrap_or_default();
                Err(walked.unexplained(from + at, expected, "the bytes must be as in the file"))
            }
            _ => Err(walked.refused(from, "the section must be in memory")),
        }
    }

    /// What a relocation wrote; concludes from the first one where the per-CPU variables are.
    pub fn value_at(
        &mut self,
        walked: &Walked<'_, '_, '_>,
        relocation: &Relocation,
        kind: RelocationType,
        at: usize,
    ) -> Result<Written, ModuleError> {
        let value = self.plan.value(relocation).map_err(|rule| walked.refused(at, rule))?;
        let value = match value {
            Value::Number(value) => value,
            Value::PerCpu(offset) => self.per_cpu(walked, relocation, kind, (at, offset))?.wrapping_add(offset),
        };
        let written = relocate::compute(kind, value, relocation.addend, walked.va.wrapping_add(at as u64));
        written.map_err(|rule| walked.refused(at, rule))
    }

    /// Where the per-CPU variables are, given a relocation that refers to the one at `offset`.
    #[cold]
    fn per_cpu(
        &mut self,
        walked: &Walked<'_, '_, '_>,
        relocation: &Relocation,
        kind: RelocationType,
        (at, offset): (usize, u64),
    ) -> Result<u64, ModuleError> {
        if let Some(base) = self.habits.per_cpu {
            return Ok(base);
        }
        let found = walked.memory.get(at..at + kind.width()).unwrap_or_default();
        let place = walked.va.wrapping_add(at as u64);
        let offset = offset.wrapping_add(relocation.addend);
        let base = relocate::per_cpu_base(kind, found, offset, place, self.plan.per_cpu);
        let rule = "the module's per-CPU variables must have a place";
        let base = base.ok_or_else(|| walked.unexplained(at, &[], rule))?;
        self.habits.per_cpu = Some(base);
        Ok(base)
    }

    /// Explains bytes of a range that are in no section: as Linux leaves them.
    pub fn padding(&mut self, kind: Kind, from: usize, to: usize) -> Result<(), ModuleError> {
        let length = to.saturating_sub(from);
        let Some(bytes) = self.memory.slice(kind, from, length) else {
            return Err(ModuleError::Memory { va: self.plan.layout.start(kind), kind, rule: "the range is too short" });
        };
        // Memory for modules is cleared first (`move_module`, kernel/module/main.c).
        if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
            return Err(ModuleError::Unexplained(Refusal {
                section: Name::new(kind.name().as_bytes()),
                offset: (from + at) as u64,
                va: self.plan.layout.start(kind).wrapping_add((from + at) as u64),
                found: Hex::new(bytes.get(at..).unwrap_or_default()),
                expected: Hex::new(&[0]),
                rule: "bytes outside of sections must be zero",
            }));
        }
        self.statistics.count(Reason::Padding, length);
        Ok(())
    }
}

/// Whether bytes are the same. Most runs between relocations are shorter than a call of `memcmp` is worth, and their
/// lengths can't be predicted: the first and the last bytes are compared as words, which may overlap.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        0..4 => one.iter().zip(other).all(|(one, other)| one == other),
        4..8 => ends::<4>(one) == ends(other),
        8..=16 => ends::<8>(one) == ends(other),
        17..=32 => ends::<16>(one) == ends(other),
        _ => one == other,
    }
}

/// The first and the last bytes.
#[inline]
fn ends<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    bytes.first_chunk().zip(bytes.last_chunk())
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn every_byte_counts() {
        for length in 0..80 {
            let one: Vec<u8> = (0..length).collect();
            assert!(same(&one, &one.clone()));
            assert!(!same(&one, &[&one[..], &[0]].concat()));
            for at in 0..usize::from(length) {
                let mut other = one.clone();
                other[at] ^= 1;
                assert!(!same(&one, &other), "{at} of {length}");
            }
        }
    }
}
