//! Symbols: where one is defined and how strongly it is bound. Trusts nothing; what a module can't have is refused.

use crate::bytes::{array_at, u32_at, u64_at};

/// First reserved section index (`SHN_LORESERVE`): a file has fewer sections, or uses an extension that is refused.
pub const FIRST_RESERVED: u16 = 0xff00;
/// Bytes of a symbol.
pub(super) const BYTES: usize = 24;
/// Why a symbol can't be read.
pub(super) const NONE: &str = "a symbol must exist";
/// `SHN_ABS`: the value is no address.
const ABSOLUTE: u16 = 0xfff1;
/// `SHN_COMMON`: to be allocated by a linker.
const COMMON: u16 = 0xfff2;
/// `SHN_XINDEX`: the index is elsewhere.
const EXTENDED: u16 = 0xffff;
/// `STT_FUNC`: the symbol is a function.
const FUNCTION: u8 = 2;

/// How strongly a symbol is bound (`STB_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Seen in its own file only.
    Local,
    /// Seen everywhere.
    Global,
    /// May stay undefined, and is 0 then.
    Weak,
}

/// Where a symbol is defined (`st_shndx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Elsewhere.
    Undefined,
    /// Nowhere: its value is a number.
    Absolute,
    /// In the section of that index, which exists.
    Section(usize),
}

/// A symbol.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Offset of the name in the table of names.
    pub name: u32,
    /// How strongly it is bound.
    pub binding: Binding,
    /// Whether it is a function.
    pub is_function: bool,
    /// Where it is defined.
    pub place: Place,
    /// Its offset in the section, or its number.
    pub value: u64,
}

impl Symbol {
    /// Decodes a symbol of a file that has `sections` sections.
    pub(super) fn read(bytes: [u8; BYTES], sections: usize) -> Result<Self, &'static str> {
        let [info] = array_at(&bytes, 4).ok_or(NONE)?;
        let section = array_at(&bytes, 6).map(u16::from_le_bytes).ok_or(NONE)?;
        let place = match section {
            0 => Place::Undefined,
            ABSOLUTE => Place::Absolute,
            COMMON => return Err("a module must not have common symbols"),
            EXTENDED => return Err("section indices of more than 16 bits are not supported"),
            reserved if reserved >= FIRST_RESERVED => return Err("a symbol is of a reserved kind"),
            index if usize::from(index) < sections => Place::Section(usize::from(index)),
            _ => return Err("a symbol's section must exist"),
        };
        let binding = match info >> 4 {
            0 => Binding::Local,
            1 => Binding::Global,
            2 => Binding::Weak,
            _ => return Err("a symbol must be local, global or weak"),
        };
        let is_function = info & 0xf == FUNCTION;
        let (name, value) = (u32_at(&bytes, 0).ok_or(NONE)?, u64_at(&bytes, 8).ok_or(NONE)?);
        Ok(Self { name, binding, is_function, place, value })
    }
}
