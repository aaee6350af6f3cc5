//! Section headers: what a section is, and where its bytes are. Trusts nothing; [`Section::check`] says what must hold.

use core::ops::Range;

use super::text::text;
use super::{relocation, symbol};
use crate::bytes::{u32_at, u64_at};

/// An unused header.
pub const SHT_NULL: u32 = 0;
/// Bytes that the program gives a meaning.
pub const SHT_PROGBITS: u32 = 1;
/// A symbol table.
pub const SHT_SYMTAB: u32 = 2;
/// A string table.
pub const SHT_STRTAB: u32 = 3;
/// Relocations with addends.
pub const SHT_RELA: u32 = 4;
/// Memory without bytes in the file.
pub const SHT_NOBITS: u32 = 8;
/// Relocations without addends, which x86-64 does not have.
pub const SHT_REL: u32 = 9;
/// Section indices beyond 16 bits, which are refused.
const SHT_SYMTAB_SHNDX: u32 = 18;
/// Writable.
pub const SHF_WRITE: u64 = 1;
/// Part of memory.
pub const SHF_ALLOC: u64 = 2;
/// Executable.
pub const SHF_EXECINSTR: u64 = 4;
/// The most bytes of a section's name.
pub const MAX_SECTION_NAME: usize = 255;
/// Compressed: Linux would load the compressed bytes, which nothing could explain.
const SHF_COMPRESSED: u64 = 0x800;

/// A section header.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub name: &'a [u8],
    /// Its type (`SHT_*`).
    pub kind: u32,
    /// Its flags (`SHF_*`).
    pub flags: u64,
    /// Where its bytes start in the file.
    pub offset: u64,
    /// How many bytes it has, in the file or, without bytes there, in memory.
    pub size: u64,
    /// Index of a section it belongs to.
    pub link: usize,
    /// Index of the section it is about, in a section of relocations.
    pub info: usize,
    /// What its address must be a multiple of: a power of two, or 0 for any address.
    pub align: u64,
    /// Bytes of each entry of a table.
    pub entry: u64,
}

impl<'a> Section<'a> {
    /// Reads a header of 64 bytes.
    pub(super) fn read(index: usize, header: &[u8], names: &'a [u8]) -> Result<Self, &'static str> {
        let name = text(names, u32_at(header, 0).unwrap_or(u32::MAX), MAX_SECTION_NAME)?;
        Ok(Self { name, ..Self::read_unnamed(index, header)? })
    }

    /// Reads a header without its name.
    pub(super) fn read_unnamed(index: usize, header: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "a section header has 64 bytes";
        let word = |offset| u64_at(header, offset).ok_or(SHORT);
        let half = |offset| u32_at(header, offset).ok_or(SHORT);
        let place = |offset| half(offset).map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        Ok(Self {
            index,
            name: &[],
            kind: half(4)?,
            flags: word(8)?,
            offset: word(24)?,
            size: word(32)?,
            link: place(40)?,
            info: place(44)?,
            align: word(48)?,
            entry: word(56)?,
        })
    }

    /// Where the section's bytes are in the file: `None` when it has none there, or an impossible place.
    pub fn range(&self) -> Option<Range<usize>> {
        if self.kind == SHT_NOBITS || self.kind == SHT_NULL {
            return None;
        }
        let end = self.offset.checked_add(self.size)?;
        Some(usize::try_from(self.offset).ok()?..usize::try_from(end).ok()?)
    }

    /// Whether the section is part of memory.
    pub const fn is_loaded(&self) -> bool {
        self.flags & SHF_ALLOC != 0
    }

    /// What must hold of every section but the first, in a file of `length` bytes with `count` sections.
    pub(super) fn check(&self, length: usize, count: usize) -> Result<(), &'static str> {
        let has_bytes = self.kind != SHT_NOBITS && self.kind != SHT_NULL;
        if has_bytes && self.range().is_none_or(|range| range.end > length) {
            return Err("a section's bytes must lie within the file");
        }
        if self.align > 1 && !self.align.is_power_of_two() {
            return Err("a section's alignment must be a power of two");
        }
        if self.align > 1 << 21 {
            return Err("a section's alignment must be at most 2 MiB");
        }
        if self.flags & SHF_COMPRESSED != 0 {
            return Err("a section must not be compressed");
        }
        let table = |entry: usize| {
            let entry = entry as u64;
            if self.entry != entry || !self.size.is_multiple_of(entry) {
                return Err("a table must have whole entries of its type's size");
            }
            if self.link == 0 || self.link >= count {
                return Err("a table must name the section that it belongs to");
            }
            Ok(())
        };
        match self.kind {
            SHT_SYMTAB if self.size == 0 => Err("a symbol table has a first, empty symbol"),
            SHT_SYMTAB => table(symbol::BYTES),
            SHT_RELA if self.info == 0 || self.info >= count => Err("relocations must name the section they are for"),
            SHT_RELA => table(relocation::BYTES),
            SHT_REL => Err("x86-64 has relocations with addends only"),
            SHT_SYMTAB_SHNDX => Err("section indices of more than 16 bits are not supported"),
            _ => Ok(()),
        }
    }
}
