//! Relocations: where one is, of which symbol, and how wide (AMD64 ABI supplement §4.4). Trusts nothing.

/// Bytes of a relocation.
pub(super) const BYTES: usize = 24;

/// A relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset of the bytes within the section.
    pub offset: u64,
    /// Index of the symbol.
    pub symbol: usize,
    /// Its type's number (`R_X86_64_*`).
    pub kind: u32,
    /// What is added to the symbol's value; wraps.
    pub addend: u64,
}

/// The types that Linux' module loader knows (`arch/x86/kernel/module.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocationType {
    /// Nothing is written.
    None,
    /// The value, 64 bits.
    Absolute64,
    /// The value as an unsigned number of 32 bits.
    Unsigned32,
    /// The value as a signed number of 32 bits.
    Signed32,
    /// The distance from the place, signed, 32 bits.
    Relative32,
    /// The distance from the place, 64 bits.
    Relative64,
}

impl RelocationType {
    /// How many bytes are written.
    pub const fn width(self) -> usize {
        match self {
            Self::None => 0,
            Self::Unsigned32 | Self::Signed32 | Self::Relative32 => 4,
            Self::Absolute64 | Self::Relative64 => 8,
        }
    }
}

impl Relocation {
    /// Whether it is of the type that writes nothing.
    pub const fn is_none(&self) -> bool {
        matches!(self.known_type(), Some(RelocationType::None))
    }

    /// Its type; `None` for one that Linux' module loader refuses.
    pub const fn known_type(&self) -> Option<RelocationType> {
        Some(match self.kind {
            0 => RelocationType::None,
            1 => RelocationType::Absolute64,
            // Both forms of a branch to a symbol: modules have no linkage table.
            2 | 4 => RelocationType::Relative32,
            10 => RelocationType::Unsigned32,
            11 => RelocationType::Signed32,
            24 => RelocationType::Relative64,
            _ => return None,
        })
    }
}

/// The relocations of a section, by index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relocations<'a> {
    entries: &'a [[u8; BYTES]],
}

impl<'a> Relocations<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { entries: bytes.as_chunks().0 }
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The relocation of that index.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Relocation> {
        let entry = self.entries.get(index)?;
        let [o0, o1, o2, o3, o4, o5, o6, o7, k0, k1, k2, k3, s0, s1, s2, s3, addend @ ..] = *entry;
        Some(Relocation {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            symbol: usize::try_from(u32::from_le_bytes([s0, s1, s2, s3])).ok()?,
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            addend: u64::from_le_bytes(addend),
        })
    }

    /// All of them, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = Relocation> + use<'a> {
        let all = *self;
        (0..all.len()).filter_map(move |index| all.get(index))
    }
}
