//! Where Linux put each section: recomputed from the file and the start of each range, so that VTL0 is never asked.
//!
//! Follows `layout_sections()` of Linux 6.1 to 6.3 (kernel/module/main.c), which cuts one area into kinds at page
//! boundaries, and `__layout_sections()` of 6.4 and later, which has an area for each kind. For sections that need no
//! more than a page of alignment both give the same offsets within a kind. It trusts nothing; a range whose size is not
//! the computed one is refused.

use alloc::vec::Vec;

use super::error::ModuleError;
use super::kind::Kind;
use super::memory::{MAX_RANGE, ModuleMemory, PAGE};
use crate::elf::{Elf, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, Section};
use crate::heap::{self, TryPush};

/// `SHF_RO_AFTER_INIT` of Linux: set by the loader for sections of certain names.
const SHF_RO_AFTER_INIT: u64 = 0x0020_0000;
/// The section of per-CPU variables' initial values, which is not part of the module's memory.
pub(super) const PER_CPU: &[u8] = b".data..percpu";

/// Linux' order in an area. For alignments of more than a page the size of what is before a kind matters.
const ORDER: [Kind; Kind::COUNT] =
    [Kind::Text, Kind::RoData, Kind::RoAfterInit, Kind::Data, Kind::InitText, Kind::InitRoData, Kind::InitData];

/// Where a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an offset, in bytes, from the start of the range of a kind.
    Range(Kind, u32),
    /// In the per-CPU area, at an offset that Linux chooses.
    PerCpu,
    /// Not in memory when the module runs.
    Nowhere,
}

/// Where every section of a module is.
#[derive(Debug)]
pub struct Layout {
    places: Vec<Place>,
    /// The sections of each kind, by their offset.
    members: [Vec<u16>; Kind::COUNT],
    starts: [u64; Kind::COUNT],
    sizes: [u64; Kind::COUNT],
}

impl Layout {
    /// Computes the layout, with the table of static calls among the data that becomes read-only or not.
    ///
    /// # Errors
    /// When Linux would not load the file.
    pub(super) fn compute(elf: &Elf<'_>, memory: &ModuleMemory<'_>, static_calls: bool) -> Result<Self, ModuleError> {
        let places = heap::filled(elf.section_count(), Place::Nowhere)?;
        let mut starts = [0; Kind::COUNT];
        for range in memory.iter() {
            if let Some(start) = starts.get_mut(range.kind.number()) {
                *start = range.va;
            }
        }
        let mut layout = Self { places, members: Default::default(), starts, sizes: [0; Kind::COUNT] };
        for kind in ORDER {
            layout.place_kind(elf, kind, static_calls)?;
        }
        Ok(layout)
    }

    fn place_kind(&mut self, elf: &Elf<'_>, kind: Kind, static_calls: bool) -> Result<(), ModuleError> {
        let mut size: u64 = 0;
        for section in elf.sections() {
            let refused = |rule| ModuleError::section(section.name, 0, rule);
            if is_per_cpu(&section) {
                self.set(section.index, Place::PerCpu);
                continue;
            }
            if kind_of(&section, static_calls) != Some(kind) {
                continue;
            }
            if section.flags & SHF_WRITE != 0 && kind.is_text() {
                return Err(refused("a section must not be both writable and executable"));
            }
            let start = self.align(kind, size, section.align.max(1));
            let end = start.checked_add(section.size).filter(|end| *end <= MAX_RANGE);
            size = end.ok_or(refused("the sections of a kind must not need more than 256 MiB"))?;
            let offset = u32::try_from(start).map_err(|_| refused("the section is too far from its range's start"))?;
            self.set(section.index, Place::Range(kind, offset));
            let index = u16::try_from(section.index).map_err(|_| refused("there are too many sections"))?;
            if let Some(members) = self.members.get_mut(kind.number()) {
                members.try_push(index)?;
            }
        }
        if let Some(slot) = self.sizes.get_mut(kind.number()) {
            *slot = size;
        }
        Ok(())
    }

    fn set(&mut self, index: usize, place: Place) {
        if let Some(slot) = self.places.get_mut(index) {
            *slot = place;
        }
    }

    /// `size`, rounded up so that a section may start there.
    fn align(&self, kind: Kind, size: u64, align: u64) -> u64 {
        // Linux rounds the offset in the area. Up to 6.3 several kinds share one, so that what is before the kind counts;
        // that is seen by how the ranges touch.
        let before = if align > PAGE { self.before(kind) } else { 0 };
        (before + size).next_multiple_of(align) - before
    }

    /// Bytes of the area that lie before the kind, when it shares one.
    fn before(&self, kind: Kind) -> u64 {
        let kinds: &[Kind] = if kind.is_init() {
            &[Kind::InitText, Kind::InitRoData, Kind::InitData]
        } else {
            &[Kind::Text, Kind::RoData, Kind::RoAfterInit, Kind::Data]
        };
        let (mut total, mut end) = (0, None);
        for other in kinds {
            let start = self.start(*other);
            if *other == kind {
                return if end.is_none_or(|end| end == start) { total } else { 0 };
            }
            let pages = self.size(*other).next_multiple_of(PAGE);
            if pages == 0 {
                continue;
            }
            if end.is_some_and(|end| end != start) {
                return 0;
            }
            total += pages;
            end = start.checked_add(pages);
        }
        0
    }

    /// Where a section is.
    pub fn place(&self, section: usize) -> Place {
        self.places.get(section).copied().unwrap_or(Place::Nowhere)
    }

    /// Address of a section that is in memory, its per-CPU data excepted.
    pub fn address(&self, section: usize) -> Option<u64> {
        match self.place(section) {
            Place::Range(kind, offset) => self.start(kind).checked_add(u64::from(offset)),
            Place::PerCpu | Place::Nowhere => None,
        }
    }

    /// Address of the first byte of a kind; 0 when there is no such range.
    pub fn start(&self, kind: Kind) -> u64 {
        self.starts.get(kind.number()).copied().unwrap_or_default()
    }

    /// Bytes of a kind from its start to the end of its last section.
    pub fn size(&self, kind: Kind) -> u64 {
        self.sizes.get(kind.number()).copied().unwrap_or_default()
    }

    /// The sections of a kind, in the order of their offsets.
    pub fn members(&self, kind: Kind) -> impl Iterator<Item = usize> + '_ {
        self.members.get(kind.number()).into_iter().flatten().map(|index| usize::from(*index))
    }

    /// The section that has the byte at `offset` of a kind, or the last one before it.
    pub fn section_at(&self, kind: Kind, offset: u32) -> Option<usize> {
        let members = self.members.get(kind.number())?;
        let after = members.partition_point(|index| match self.place(usize::from(*index)) {
            Place::Range(_, start) => start <= offset,
            Place::PerCpu | Place::Nowhere => true,
        });
        members.get(after.checked_sub(1)?).map(|index| usize::from(*index))
    }

    /// The kind of range that has the address, and the offset in it.
    pub fn find(&self, va: u64) -> Option<(Kind, u32)> {
        Kind::ALL.into_iter().find_map(|kind| {
            let offset = va.checked_sub(self.start(kind))?;
            if self.start(kind) == 0 || offset >= self.size(kind) {
                return None;
            }
            Some((kind, u32::try_from(offset).ok()?))
        })
    }
}

/// Whether the section is the one of per-CPU variables.
fn is_per_cpu(section: &Section<'_>) -> bool {
    section.is_loaded() && section.name == PER_CPU
}

/// What the section is for; `None` when it is not in memory.
fn kind_of(section: &Section<'_>, static_calls: bool) -> Option<Kind> {
    // Linux reads these two from its own copy of the file (`rewrite_section_headers`, `setup_load_info`).
    if section.flags & SHF_ALLOC == 0 || section.name == b".modinfo" || section.name == b"__versions" {
        return None;
    }
    let ro_after_init = section.flags & SHF_RO_AFTER_INIT != 0
        || section.name == b".data..ro_after_init"
        || section.name == b"__jump_table"
        || (static_calls && section.name == b".static_call_sites");
    let init = section.name.starts_with(b".init");
    Some(if section.flags & SHF_EXECINSTR != 0 {
        if init { Kind::InitText } else { Kind::Text }
    } else if section.flags & SHF_WRITE == 0 {
        if init { Kind::InitRoData } else { Kind::RoData }
    } else if init {
        Kind::InitData
    } else if ro_after_init {
        Kind::RoAfterInit
    } else {
        Kind::Data
    })
}
