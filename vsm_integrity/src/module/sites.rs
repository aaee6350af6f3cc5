//! Where the signed file allows code to be rewritten: its lists of sites, in the order of their addresses.
//!
//! A list's entries are relocated fields; what a relocation refers to is the site. Trusts the layout and the symbols. A
//! site takes 8 bytes of heap, all of them in one piece.

use alloc::vec::Vec;

use super::error::ModuleError;
use super::kind::Kind;
use super::layout::Layout;
use super::relocate::{Ordered, RelocationIndex};
use super::symbols::{Symbols, Value};
use crate::elf::{Elf, RelocationType, Section};
use crate::heap;

/// The most sites of a module, each entry of each list counted once: 2.2 MiB of heap.
/// The largest module of Linux 6.12, amdgpu, has 145,861.
pub const MAX_SITES: usize = 1 << 18;

/// What may be done at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A call through `pv_ops` (`.parainstructions`).
    Paravirt,
    /// A branch through a retpoline (`.retpoline_sites`).
    Retpoline,
    /// A return (`.return_sites`).
    Return,
    /// A call whose depth may be counted (`.call_sites`).
    Call,
    /// An alternative (`.altinstructions`).
    Alternative,
    /// An ENDBR that may go (`.ibt_endbr_seal`).
    Seal,
    /// A LOCK prefix (`.smp_locks`).
    Lock,
    /// A call of `__fentry__` (`__mcount_loc`).
    Ftrace,
    /// A jump label (`__jump_table`).
    JumpLabel,
    /// The space before a function whose calls may be counted; the targets of `.call_sites`. Its number says whether a call
    /// that counts surely stands there, and how long the space is.
    Pad,
}

impl Class {
    const ALL: [Self; 10] = [
        Self::Paravirt,
        Self::Retpoline,
        Self::Return,
        Self::Call,
        Self::Alternative,
        Self::Seal,
        Self::Lock,
        Self::Ftrace,
        Self::JumpLabel,
        Self::Pad,
    ];
}

/// A list of sites in the file.
struct List {
    name: &'static [u8],
    class: Class,
    /// Bytes of an entry; 0 where it depends on the kernel.
    stride: usize,
    /// Whether the field that refers to the site is an address of 64 bits and not a distance of 32.
    absolute: bool,
}

const LISTS: [List; 9] = [
    List { name: b".parainstructions", class: Class::Paravirt, stride: 16, absolute: true },
    List { name: b".retpoline_sites", class: Class::Retpoline, stride: 4, absolute: false },
    List { name: b".return_sites", class: Class::Return, stride: 4, absolute: false },
    List { name: b".call_sites", class: Class::Call, stride: 4, absolute: false },
    List { name: b".altinstructions", class: Class::Alternative, stride: 0, absolute: false },
    List { name: b".ibt_endbr_seal", class: Class::Seal, stride: 4, absolute: false },
    List { name: b".smp_locks", class: Class::Lock, stride: 4, absolute: false },
    List { name: b"__mcount_loc", class: Class::Ftrace, stride: 8, absolute: true },
    List { name: b"__jump_table", class: Class::JumpLabel, stride: 16, absolute: false },
];

const OFFSET_BITS: u32 = 28;
const CLASS_BITS: u32 = 4;
const INDEX_BITS: u32 = 28;

/// A site: where, what, and which entry of its list. Ordered by place, then by class, then by entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site(u64);

impl Site {
    /// A site at `offset` of the range of text that is needed for initialisation only, or of the other.
    pub fn new(init: bool, offset: u32, class: Class, index: usize) -> Option<Self> {
        if offset >> OFFSET_BITS != 0 || index >> INDEX_BITS != 0 {
            return None;
        }
        let place = u64::from(init) << OFFSET_BITS | u64::from(offset);
        Some(Self((place << CLASS_BITS | class as u64) << INDEX_BITS | u64::try_from(index).ok()?))
    }

    /// The first possible site at that place.
    pub fn at(kind: Kind, offset: u32) -> Self {
        Self::new(kind.is_init(), offset, Class::Paravirt, 0).unwrap_or(Self(u64::MAX))
    }

    fn field(self, shift: u32, bits: u32) -> u32 {
        // Lossless: no field has more than 32 bits.
        u32::try_from(self.0 >> shift & ((1 << bits) - 1)).unwrap_or_default()
    }

    /// Which range.
    pub fn kind(self) -> Kind {
        if self.field(OFFSET_BITS + CLASS_BITS + INDEX_BITS, 1) == 0 { Kind::Text } else { Kind::InitText }
    }

    /// Offset in the range.
    pub fn offset(self) -> u32 {
        self.field(CLASS_BITS + INDEX_BITS, OFFSET_BITS)
    }

    /// What may be done there.
    pub fn class(self) -> Class {
        let class = usize::try_from(self.field(INDEX_BITS, CLASS_BITS)).ok();
        class.and_then(|class| Class::ALL.get(class).copied()).unwrap_or(Class::Pad)
    }

    /// Which entry of the class' list.
    pub fn index(self) -> usize {
        usize::try_from(self.field(0, INDEX_BITS)).unwrap_or_default()
    }

    /// Whether the place is the same.
    pub fn same_place(self, other: Self) -> bool {
        self.0 >> (CLASS_BITS + INDEX_BITS) == other.0 >> (CLASS_BITS + INDEX_BITS)
    }

    /// The same site with another number in place of its entry.
    #[must_use]
    pub fn with_index(self, index: usize) -> Option<Self> {
        Self::new(self.kind().is_init(), self.offset(), self.class(), index)
    }
}

/// What is needed to read a list.
#[derive(Clone, Copy)]
pub struct Source<'p, 'a> {
    /// The file.
    pub elf: &'p Elf<'a>,
    /// Where its sections are.
    pub layout: &'p Layout,
    /// What its symbols stand for.
    pub symbols: &'p Symbols,
    /// Its relocations.
    pub relocations: &'p RelocationIndex,
}

/// Reads the relocated fields of a section, upwards.
pub struct Fields<'p, 'a> {
    source: Source<'p, 'a>,
    section: Section<'a>,
    relocations: Ordered<'p>,
    at: usize,
}

impl<'p, 'a> Fields<'p, 'a> {
    /// The fields of `section`.
    pub fn new(source: Source<'p, 'a>, section: Section<'a>) -> Self {
        let relocations = source.relocations.of_section(source.elf, section.index);
        Self { source, section, relocations, at: 0 }
    }

    /// What the field at `offset` refers to, if anything: the symbol's value with the addend, for an address of 64 bits
    /// or a distance of 32.
    ///
    /// # Errors
    /// When the relocation is of another type, or its symbol has no value.
    pub fn target(&mut self, offset: usize, absolute: bool) -> Result<Option<u64>, ModuleError> {
        let refused = |rule| ModuleError::section(self.section.name, offset, rule);
        while let Some(relocation) = self.relocations.get(self.at) {
            match relocation.offset.cmp(&(offset as u64)) {
                core::cmp::Ordering::Less => self.at += 1,
                core::cmp::Ordering::Greater => return Ok(None),
                core::cmp::Ordering::Equal => {
                    self.at += 1;
                    let wanted = if absolute { RelocationType::Absolute64 } else { RelocationType::Relative32 };
                    match relocation.known_type() {
                        Some(RelocationType::None) => continue,
                        Some(kind) if kind == wanted => {}
                        _ => return Err(refused("a table's field has a relocation of another type")),
                    }
                    let source = &self.source;
                    let value = source.symbols.value(source.elf, source.layout, relocation.symbol);
                    return match value.map_err(refused)? {
                        Value::Number(value) => Ok(Some(value.wrapping_add(relocation.addend))),
                        Value::PerCpu(_) => Err(refused("a table must not refer to per-CPU variables")),
                    };
                }
            }
        }
        Ok(None)
    }
}

/// The lists of a file whose entries are needed once more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables {
    /// Index of `.altinstructions` and bytes of each entry.
    pub alternatives: (usize, usize),
    /// Index of `.parainstructions`.
    pub paravirt: usize,
}

/// Collects all sites, by address, and finds the lists.
///
/// # Errors
/// When a list is damaged or refers to what is no code of the module.
pub fn collect(source: Source<'_, '_>) -> Result<(Vec<Site>, Tables), ModuleError> {
    let mut tables = Tables::default();
    let mut found: [Option<(Section<'_>, usize)>; LISTS.len()] = [None; LISTS.len()];
    let mut count = 0usize;
    for section in source.elf.sections().filter(Section::is_loaded) {
        let Some(number) = LISTS.iter().position(|list| list.name == section.name) else { continue };
        let (Some(list), Some(slot)) = (LISTS.get(number), found.get_mut(number)) else { continue };
        let refused = |rule| ModuleError::section(section.name, 0, rule);
        if slot.is_some() {
            return Err(refused("there must be one list of that name"));
        }
        let size = source.elf.bytes(&section).len();
        if size as u64 != section.size {
            return Err(refused("a list must have bytes in the file"));
        }
        let stride = if list.stride == 0 { alternative_bytes(source, section)? } else { list.stride };
        if !size.is_multiple_of(stride) {
            return Err(refused("a list must have whole entries"));
        }
        match list.class {
            Class::Alternative => tables.alternatives = (section.index, stride),
            Class::Paravirt => tables.paravirt = section.index,
            _ => {}
        }
        *slot = Some((section, stride));
        count = count.saturating_add(size / stride);
    }
    if count > MAX_SITES {
        return Err(ModuleError::section(b"", 0, "a module must not have more than 262144 sites"));
    }
    // Some more, so that there is room for the spaces before functions without another allocation of that size.
    let mut sites = heap::with_room(count + count / 16)?;
    for (list, slot) in LISTS.iter().zip(&found) {
        if let Some((section, stride)) = slot {
            read_list(source, list, *section, *stride, &mut sites)?;
        }
    }
    sites.sort_unstable_by(Site::cmp);
    Ok((sites, tables))
}

/// Appends a list's sites, for which there is room.
fn read_list(
    source: Source<'_, '_>,
    list: &List,
    section: Section<'_>,
    stride: usize,
    sites: &mut Vec<Site>,
) -> Result<(), ModuleError> {
    let mut fields = Fields::new(source, section);
    let bytes = source.elf.bytes(&section).len();
    for (index, offset) in (0..bytes).step_by(stride).enumerate() {
        let refused = |rule| ModuleError::section(section.name, offset, rule);
        let Some(target) = fields.target(offset, list.absolute)? else {
            // Linux passes over empty entries of this list.
            if list.class == Class::Lock {
                continue;
            }
            return Err(refused("an entry must refer to code"));
        };
        let place = source.layout.find(target).filter(|(kind, _)| kind.is_text());
        let (kind, offset) = place.ok_or(refused("an entry must refer to code of the module"))?;
        let site = Site::new(kind.is_init(), offset, list.class, index);
        sites.push(site.ok_or(refused("an entry is too far away"))?);
    }
    Ok(())
}

/// Bytes of an entry of `.altinstructions`: 12, and from Linux 6.3 on, which has flags, 14. The relocations of the
/// entries' first two fields show it.
fn alternative_bytes(source: Source<'_, '_>, section: Section<'_>) -> Result<usize, ModuleError> {
    let size = source.elf.bytes(&section).len();
    let relocations = source.relocations.of_section(source.elf, section.index);
    let second = relocations.get(2).and_then(|relocation| usize::try_from(relocation.offset).ok());
    match second {
        Some(stride @ (12 | 14)) => Ok(stride),
        None if size == 12 || size == 14 => Ok(size),
        None if size == 0 => Ok(12),
        _ => Err(ModuleError::section(section.name, 0, "entries must have 12 or 14 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_what_it_was_made_of() {
        let site = Site::new(true, 0x0fff_ffff, Class::JumpLabel, 0x0abc_def0).unwrap();
        assert_eq!((site.kind(), site.offset()), (Kind::InitText, 0x0fff_ffff));
        assert_eq!((site.class(), site.index()), (Class::JumpLabel, 0x0abc_def0));
        assert_eq!(Site::new(false, 1 << 28, Class::Lock, 0), None);
        assert_eq!(Site::new(false, 0, Class::Lock, 1 << 28), None);
        assert!(Site::at(Kind::Text, 5) < Site::new(false, 5, Class::Lock, 0).unwrap());
    }
}
