//! The module's memory as VTL0 hands it over: at most one range of each kind, whole pages.
//!
//! Trusts that the bytes are those that VTL0 has at these addresses and that it can no longer change them. Everything
//! else (bounds, order, overlaps) is checked here.

use super::error::ModuleError;
use super::kind::Kind;
use crate::addresses::is_in_kernel_half;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// The most bytes of a range: what can be validated, so that offsets fit in 28 bits.
pub const MAX_RANGE: u64 = 1 << 28;

/// A part of a module's memory.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Address of its first byte in VTL0.
    pub va: u64,
    /// How many bytes; whole pages.
    pub size: u64,
    /// Its bytes; of a kind that is not explained there may be none.
    pub bytes: &'a [u8],
}

/// The ranges of a module, by kind.
#[derive(Clone, Copy, Debug)]
pub struct ModuleMemory<'a> {
    ranges: [Option<Range<'a>>; Kind::COUNT],
}

impl<'a> ModuleMemory<'a> {
    /// Takes the ranges, in any order.
    ///
    /// # Errors
    /// [`ModuleError::Memory`] for a range that is not made of whole pages, too long, not in the upper half of the
    /// address space, of a kind that was there before, without the bytes it must have, or over another one.
    pub fn new(ranges: &[Range<'a>]) -> Result<Self, ModuleError> {
        let mut memory = Self { ranges: [None; Kind::COUNT] };
        for (index, range) in ranges.iter().enumerate() {
            let refused = |rule| Err(ModuleError::Memory { va: range.va, kind: range.kind, rule });
            if !range.va.is_multiple_of(PAGE) || !range.size.is_multiple_of(PAGE) || range.size == 0 {
                return refused("a range must be made of whole pages");
            }
            if range.size > MAX_RANGE {
                return refused("a range must not be longer than 256 MiB");
            }
            // The end must not wrap either.
            if !is_in_kernel_half(range.va) || range.va.checked_add(range.size).is_none() {
                return refused("a range must lie in the kernel's half of the address space");
            }
            if range.kind.is_explained() && range.bytes.len() as u64 != range.size {
                return refused("a range of this kind must come with all of its bytes");
            }
            let before = ranges.get(..index).unwrap_or_default();
            if before.iter().any(|other| range.va < other.va + other.size && other.va < range.va + range.size) {
                return refused("ranges must not overlap");
            }
            match memory.ranges.get_mut(range.kind.number()) {
                Some(slot @ None) => *slot = Some(*range),
                _ => return refused("there must be one range of a kind"),
            }
        }
        Ok(memory)
    }

    /// The range of that kind.
    pub fn range(&self, kind: Kind) -> Option<&Range<'a>> {
        self.ranges.get(kind.number()).and_then(Option::as_ref)
    }

    /// The bytes of that kind; none when there is no such range.
    pub fn bytes(&self, kind: Kind) -> &'a [u8] {
        self.range(kind).map_or(&[], |range| range.bytes)
    }

    /// Bytes of that kind from `offset` on.
    pub fn slice(&self, kind: Kind, offset: usize, length: usize) -> Option<&'a [u8]> {
        self.bytes(kind).get(offset..offset.checked_add(length)?)
    }

    /// Whether the address belongs to the module.
    pub fn contains(&self, va: u64) -> bool {
        self.ranges.iter().flatten().any(|range| va >= range.va && va - range.va < range.size)
    }

    /// All ranges, by kind.
    pub fn iter(&self) -> impl Iterator<Item = &Range<'a>> {
        self.ranges.iter().flatten()
    }
}
