//! A strict reader of relocatable ELF64 objects for x86-64, such as Linux modules are.
//!
//! It trusts nothing: every offset, size, link and name is checked before it is used, and nothing is copied. What the
//! tables say is read from the file's bytes each time it is asked for, so those must not change meanwhile.
//!
//! Sections may share bytes of the file, as Linux lets them: each is looked at as what its own header says, and nothing
//! here follows from where in the file a section lies. Layout facts are from the ELF specification (System V ABI, gABI
//! chapters 4 and 5; AMD64 supplement §4.4).

mod relocation;
mod section;
mod symbol;
mod text;

pub use relocation::{Relocation, RelocationType, Relocations};
pub use section::{
    MAX_SECTION_NAME, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, SHT_NULL, SHT_PROGBITS, SHT_REL, SHT_RELA,
    SHT_STRTAB, SHT_SYMTAB, Section,
};
pub use symbol::{Binding, FIRST_RESERVED, Place, Symbol};

use crate::bytes::{array_at, u32_at, u64_at};
use crate::error::ParseError;
use text::text;

/// Bytes of the file header.
const HEADER: usize = 64;
/// Bytes of a section header.
const SECTION_HEADER: usize = 64;
/// The most bytes of a symbol's name (Linux `KSYM_NAME_LEN` is 512 with its NUL).
pub const MAX_SYMBOL_NAME: usize = 511;
/// The most bytes of a file: what can be validated, so that offsets fit in 32 bits.
pub const MAX_FILE: usize = 1 << 30;

/// A relocatable object whose headers have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'a> {
    file: &'a [u8],
    /// The section headers, a whole number of them.
    headers: &'a [u8],
    names: &'a [u8],
    symbols: &'a [u8],
    symbol_names: &'a [u8],
    symbol_table: usize,
}

impl<'a> Elf<'a> {
    /// Checks the file header and every section header.
    ///
    /// # Errors
    /// Which byte of the file breaks which rule.
    pub fn parse(file: &'a [u8]) -> Result<Self, ParseError> {
        let (headers, names_index) = check_header(file)?;
        let mut elf = Self { file, headers, names: &[], symbols: &[], symbol_names: &[], symbol_table: 0 };
        elf.names = elf.string_table(names_index, 62)?;
        for index in 0..elf.section_count() {
            elf.check_section(index)?;
        }
        if elf.symbol_table == 0 {
            return Err(ParseError::new(0, "a module has a symbol table"));
        }
        Ok(elf)
    }

    /// How many sections, the empty first one included.
    pub const fn section_count(&self) -> usize {
        self.headers.len() / SECTION_HEADER
    }

    /// The section of that index.
    pub fn section(&self, index: usize) -> Option<Section<'a>> {
        let at = index.checked_mul(SECTION_HEADER)?;
        let header = self.headers.get(at..at.checked_add(SECTION_HEADER)?)?;
        Section::read(index, header, self.names).ok()
    }

    /// All sections but the empty first one.
    pub fn sections(&self) -> impl Iterator<Item = Section<'a>> + use<'a> {
        let elf = *self;
        (1..elf.section_count()).filter_map(move |index| elf.section(index))
    }

    /// The first section of that name, as Linux' `find_sec` would find it if it is part of memory.
    pub fn find(&self, name: &[u8]) -> Option<Section<'a>> {
        self.sections().find(|section| section.name == name)
    }

    /// A section's bytes in the file; none for one that has no bytes there.
    pub fn bytes(&self, section: &Section<'_>) -> &'a [u8] {
        section.range().and_then(|range| self.file.get(range)).unwrap_or_default()
    }

    /// How many symbols, the empty first one included.
    pub const fn symbol_count(&self) -> usize {
        self.symbols.len() / symbol::BYTES
    }

    /// Index of the section that is the symbol table.
    pub const fn symbol_table(&self) -> usize {
        self.symbol_table
    }

    /// The symbol of that index.
    ///
    /// # Errors
    /// When there is none, or it is of a kind that a module can't have.
    pub fn symbol(&self, index: usize) -> Result<Symbol, &'static str> {
        let at = index.checked_mul(symbol::BYTES).ok_or(symbol::NONE)?;
        Symbol::read(array_at(self.symbols, at).ok_or(symbol::NONE)?, self.section_count())
    }

    /// A symbol's name; empty for a symbol without one.
    ///
    /// # Errors
    /// When the name is not within the string table or too long.
    pub fn symbol_name(&self, symbol: &Symbol) -> Result<&'a [u8], &'static str> {
        text(self.symbol_names, symbol.name, MAX_SYMBOL_NAME)
    }

    /// The name of each symbol and the section that it is defined in, if any, with no more said of it.
    pub fn symbol_names(&self) -> impl Iterator<Item = (&'a [u8], Option<usize>)> {
        let names = self.symbol_names;
        let count = self.section_count();
        self.symbols.as_chunks().0.iter().map(move |bytes: &[u8; symbol::BYTES]| {
            let [a, b, c, d, _, _, low, high, ..] = *bytes;
            let name = text(names, u32::from_le_bytes([a, b, c, d]), MAX_SYMBOL_NAME).unwrap_or_default();
            let section = usize::from(u16::from_le_bytes([low, high]));
            (name, (1..count).contains(&section).then_some(section))
        })
    }

    /// The relocations in a section of that type.
    pub fn relocations(&self, section: &Section<'_>) -> Relocations<'a> {
        Relocations::new(self.bytes(section))
    }

    /// The string table of that index, which a field at `field` of the file names.
    fn string_table(&self, index: usize, field: usize) -> Result<&'a [u8], ParseError> {
        let refused = |rule| ParseError::new(field, rule);
        let at = index.checked_mul(SECTION_HEADER).ok_or(refused("a section index is too great"))?;
        let header = self.headers.get(at..).and_then(|rest| rest.get(..SECTION_HEADER));
        let header = header.ok_or(refused("a string table must exist"))?;
        // Its own name can't be looked up yet, and does not matter.
        let section = Section::read_unnamed(index, header).map_err(refused)?;
        if section.kind != SHT_STRTAB {
            return Err(refused("a string table must be of that type"));
        }
        let bytes = section.range().and_then(|range| self.file.get(range));
        let bytes = bytes.ok_or(refused("a string table must lie within the file"))?;
        match bytes.last() {
            Some(0) => Ok(bytes),
            _ => Err(refused("a string table must end with a NUL")),
        }
    }

    fn check_section(&mut self, index: usize) -> Result<(), ParseError> {
        let at = index * SECTION_HEADER;
        // Errors name the header's place in the table; where that lies, the file header says.
        let offset = u64_at(self.file, 40).and_then(|start| usize::try_from(start).ok()).unwrap_or_default() + at;
        let refused = |rule| ParseError::new(offset, rule);
        let header = self.headers.get(at..at + SECTION_HEADER).ok_or(refused("a section header is missing"))?;
        let section = Section::read(index, header, self.names).map_err(refused)?;
        if index == 0 {
            let empty = section.kind == SHT_NULL && section.size == 0 && section.link == 0;
            return if empty { Ok(()) } else { Err(refused("the first section must be empty")) };
        }
        section.check(self.file.len(), self.section_count()).map_err(refused)?;
        match section.kind {
            SHT_SYMTAB if self.symbol_table != 0 => Err(refused("a module has one symbol table")),
            SHT_SYMTAB => {
                self.symbol_table = index;
                self.symbols = self.bytes(&section);
                self.symbol_names = self.string_table(section.link, offset + 40)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Checks the file header; returns the section headers and the index of the table of their names.
fn check_header(file: &[u8]) -> Result<(&[u8], usize), ParseError> {
    const SHORT: &str = "the file is shorter than an ELF header";
    let u16_at = |offset| array_at(file, offset).map(u16::from_le_bytes).ok_or(ParseError::new(offset, SHORT));
    let refused = |offset, rule| Err(ParseError::new(offset, rule));
    if file.len() < HEADER {
        return refused(file.len(), SHORT);
    }
    if file.len() > MAX_FILE {
        return refused(MAX_FILE, "the file is too long");
    }
    // Magic number, 64-bit class, little-endian data, version 1; any ABI.
    if file.get(..7) != Some(b"\x7fELF\x02\x01\x01") {
        return refused(0, "a module is a little-endian ELF64 file");
    }
    if u16_at(16)? != 1 {
        return refused(16, "a module is relocatable (ET_REL)");
    }
    if u16_at(18)? != 62 {
        return refused(18, "a module is for x86-64");
    }
    if u32_at(file, 20) != Some(1) {
        return refused(20, "the ELF version must be 1");
    }
    if usize::from(u16_at(52)?) != HEADER {
        return refused(52, "the ELF header must have 64 bytes");
    }
    if usize::from(u16_at(58)?) != SECTION_HEADER {
        return refused(58, "a section header must have 64 bytes");
    }
    let count = u16_at(60)?;
    if count == 0 || count >= FIRST_RESERVED {
        return refused(60, "the number of sections must be 1 to 65279");
    }
    let start = u64_at(file, 40).and_then(|offset| usize::try_from(offset).ok());
    let end = start.and_then(|start| start.checked_add(usize::from(count) * SECTION_HEADER));
    let headers = start.zip(end).and_then(|(start, end)| file.get(start..end));
    let headers = headers.ok_or(ParseError::new(40, "the section headers must lie within the file"))?;
    let names = u16_at(62)?;
    if names == 0 || names >= count {
        return refused(62, "the table of section names must exist");
    }
    Ok((headers, usize::from(names)))
}
