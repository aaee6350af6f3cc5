//! Virtual trust levels and the byte by which a hypercall names one (TLFS "Virtual Trust Level", `HV_INPUT_VTL`).

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A virtual trust level. Hyper-V implements two; a higher one is more privileged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Vtl {
    /// Where Linux runs.
    Vtl0 = 0,
    /// Where the secure kernel runs.
    Vtl1 = 1,
}

impl Vtl {
    /// How many there are (TLFS `HV_NUM_VTLS`).
    pub const COUNT: usize = 2;
    /// Both, lowest first.
    pub const ALL: [Self; Self::COUNT] = [Self::Vtl0, Self::Vtl1];

    /// The level with this number, if it is implemented.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Vtl0),
            1 => Some(Self::Vtl1),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The number, for indexing arrays of [`Vtl::COUNT`] entries.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Vtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VTL{}", self.number())
    }
}

/// The VTL a hypercall acts on: bits 3:0 the target, bit 4 says that the target is given at all, bits 7:5 zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct InputVtl(pub u8);

impl InputVtl {
    /// The caller's own VTL.
    pub const CURRENT: Self = Self(0);
    /// VTL0, named from VTL1.
    pub const VTL0: Self = Self::target(Vtl::Vtl0);
    const USE_TARGET: u8 = 1 << 4;

    /// Names `vtl` explicitly.
    #[must_use]
    pub const fn target(vtl: Vtl) -> Self {
        Self(Self::USE_TARGET | vtl as u8)
    }

    /// The VTL meant when `caller` passes this byte; `None` when reserved bits are set or the VTL doesn't exist.
    ///
    /// The target bits are ignored unless bit 4 says to use them: the LVBS secure kernel in C passes 1, others 0,
    /// and both mean the caller's own VTL.
    #[must_use]
    pub const fn resolve(self, caller: Vtl) -> Option<Vtl> {
        if self.0 & 0xe0 != 0 {
            None
        } else if self.0 & Self::USE_TARGET == 0 {
            Some(caller)
        } else {
            Vtl::from_number(self.0 & 0xf)
        }
    }
}

impl fmt::Debug for InputVtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputVtl({:#04x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_counts_only_when_bit_4_is_set() {
        assert_eq!(InputVtl::VTL0.0, 0x10);
        assert_eq!(InputVtl(0x00).resolve(Vtl::Vtl1), Some(Vtl::Vtl1));
        assert_eq!(InputVtl(0x01).resolve(Vtl::Vtl0), Some(Vtl::Vtl0));
        assert_eq!(InputVtl(0x10).resolve(Vtl::Vtl1), Some(Vtl::Vtl0));
        assert_eq!(InputVtl(0x11).resolve(Vtl::Vtl0), Some(Vtl::Vtl1));
        assert_eq!(InputVtl(0x12).resolve(Vtl::Vtl1), None);
        assert_eq!(InputVtl(0x20).resolve(Vtl::Vtl1), None);
    }
}
