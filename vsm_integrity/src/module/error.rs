//! Why a module is refused: which part of it, where, what was found and what was expected, and the rule.
//!
//! The texts in it come from a signed file or are of this crate; they are cut to a fixed length, so that an error needs
//! no heap.

use core::fmt;

use thiserror::Error;

use super::kind::Kind;
use crate::error::ParseError;
use crate::heap;

/// A few bytes, or the first of many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortBytes<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> ShortBytes<N> {
    /// The first of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut few = Self { bytes: [0; N], length: 0 };
        for (into, byte) in few.bytes.iter_mut().zip(bytes) {
            *into = *byte;
            few.length = few.length.saturating_add(1);
        }
        few
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The start of a name.
pub type Name = ShortBytes<40>;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().escape_ascii().fmt(f)
    }
}

impl<const N: usize> fmt::Debug for ShortBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

/// Bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(ShortBytes<16>);

impl Hex {
    /// The first 16 of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        Self(ShortBytes::new(bytes))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_slice().is_empty() {
            return f.write_str("-");
        }
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes in memory that nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{section}+{offset:#x} ({va:#x}): {rule}: found {found}, expected {expected}")]
pub struct Refusal {
    /// The section they are in, or the kind of range when they are in no section.
    pub section: Name,
    /// Offset of the first one in the section, or in the range.
    pub offset: u64,
    /// Its address.
    pub va: u64,
    /// What is there.
    pub found: Hex,
    /// What could be there.
    pub expected: Hex,
    /// The rule that was broken.
    pub rule: &'static str,
}

/// Why a module is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ModuleError {
    /// The file is no object that Linux would load.
    #[error("the file: {0}")]
    File(#[from] ParseError),
    /// A section breaks a rule.
    #[error("section {section}, byte {offset:#x}: {rule}")]
    Section {
        /// Which.
        section: Name,
        /// Where in it.
        offset: u64,
        /// The rule.
        rule: &'static str,
    },
    /// A symbol can't be given a value.
    #[error("symbol {symbol}: {rule}")]
    Symbol {
        /// Which.
        symbol: Name,
        /// The rule.
        rule: &'static str,
    },
    /// The ranges break a rule.
    #[error("{} at {va:#x}: {rule}", kind.name())]
    Memory {
        /// Where.
        va: u64,
        /// What for.
        kind: Kind,
        /// The rule.
        rule: &'static str,
    },
    /// Memory holds what the file does not explain.
    #[error(transparent)]
    Unexplained(#[from] Refusal),
    /// The heap is too small.
    #[error("there is no memory left to validate the module")]
    OutOfMemory,
}

impl From<heap::OutOfMemory> for ModuleError {
    fn from(_: heap::OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl ModuleError {
    /// A broken rule of a section.
    pub(crate) fn section(section: &[u8], offset: usize, rule: &'static str) -> Self {
        Self::Section { section: Name::new(section), offset: offset as u64, rule }
    }
}
