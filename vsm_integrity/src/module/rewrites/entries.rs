//! An entry of `.altinstructions`, and all entries about one place.

use super::forms::Spot;
use crate::elf::RelocationType;
use crate::module::plan::Plan;
use crate::module::sites::Site;

/// Bytes that are worked on, with room to spare.
pub type Buffer = [u8; 256];

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

impl Plan<'_> {
    /// The entry of `.altinstructions` of that number.
    pub(crate) fn alternative(&self, index: usize) -> Option<Entry> {
        let (table, stride) = self.tables.alternatives;
        let section = self.elf.section(table)?;
        let at = index.checked_mul(stride)?;
        let bytes = self.elf.bytes(&section).get(at..at.checked_add(stride)?)?;
        let relocations = self.relocations.of_section(&self.elf, table);
        let field = at.checked_add(4)? as u64;
        let relocation = relocations.get(relocations.before(field)).filter(|relocation| relocation.offset == field);
        let replacement = match relocation {
            Some(relocation) if relocation.known_type() == Some(RelocationType::Relative32) => {
                let value = self.symbols.value(&self.elf, &self.layout, relocation.symbol).ok()?;
                value.number(None)?.wrapping_add(relocation.addend)
            }
            _ => return None,
        };
        Entry::decode(bytes, replacement)
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
    pub fn spot(&self, site: Site, offset: usize) -> Spot<'_> {
        Spot {
            site,
            va: self.va.wrapping_add(offset as u64),
            original: self.original.get(offset..).unwrap_or_default(),
            found: self.found.get(offset..).unwrap_or_default(),
        }
    }
}
