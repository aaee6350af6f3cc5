//! Flushes of address translations on other processors (TLFS HvCallFlushVirtualAddressSpaceEx and ListEx, `HV_VP_SET`).
//!
//! A flush drops the translations of the VTL that asks for it, on all processors named, before the
//! hypercall returns. A set of processors is *sparse*: a bank of 64 processors is passed only if one of them is in the set.

use core::mem::size_of;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::PAGE_SIZE;

/// Processors of a bank.
const BANK: u32 = 64;
/// Banks of a set.
const BANKS: usize = 64;

bitflags! {
    /// The scope of a flush (TLFS `HV_FLUSH_FLAGS`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FlushFlags: u64 {
        /// Every processor; the set is ignored.
        const ALL_PROCESSORS = 1;
        /// Every address space; CR3 is ignored.
        const ALL_VIRTUAL_ADDRESS_SPACES = 1 << 1;
        /// Translations that are not global, and no others.
        const NON_GLOBAL_MAPPINGS_ONLY = 1 << 2;
    }
}

/// Header of both hypercalls' input. The banks follow, as the variable header; then, of the list, [`GvaRange`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlushHeader {
    /// CR3 of the address space.
    pub address_space: u64,
    /// [`FlushFlags`] bits.
    pub flags: u64,
    /// [`FlushHeader::SPARSE`] or [`FlushHeader::ALL`].
    pub format: u64,
    /// Bit n: the bank of the processors 64·n to 64·n + 63 is passed.
    pub valid_banks: u64,
}

impl FlushHeader {
    /// [`Self::format`]: the banks follow.
    pub const SPARSE: u64 = 0;
    /// [`Self::format`]: all processors, without banks.
    pub const ALL: u64 = 1;
}

/// Pages that follow each other in virtual memory: bits 63:12 of the first page's address, and how many more there are in
/// bits 11:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct GvaRange(pub u64);

impl GvaRange {
    /// Pages that one range can name.
    pub const MAX_PAGES: u64 = 4096;

    /// `pages` pages from the one at `va` on; `None` if they are none or too many, or if `va` is not page-aligned.
    #[must_use]
    pub const fn new(va: u64, pages: u64) -> Option<Self> {
        if !va.is_multiple_of(PAGE_SIZE) || pages == 0 || pages > Self::MAX_PAGES {
            return None;
        }
        Some(Self(va | (pages - 1)))
    }
}

/// A set of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpSet([u64; BANKS]);

impl VpSet {
    /// The empty set.
    pub const EMPTY: Self = Self([0; BANKS]);
    /// Indices are below this: 64 banks have no more.
    pub const MAX_VPS: u32 = 4096;

    /// The set of `vps`; `None` if an index is too large for it.
    pub fn of(vps: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut set = Self::EMPTY;
        for vp in vps {
            let bank = usize::try_from(vp / BANK).ok()?;
            *set.0.get_mut(bank)? |= 1 << (vp % BANK);
        }
        Some(set)
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Self::EMPTY.0
    }

    /// Whether `vp` is in it.
    #[must_use]
    pub fn contains(&self, vp: u32) -> bool {
        usize::try_from(vp / BANK)
            .ok()
            .and_then(|bank| self.0.get(bank))
            .is_some_and(|bank| bank & 1 << (vp % BANK) != 0)
    }

    /// The banks that have a processor, as a mask.
    #[must_use]
    pub fn valid_banks(&self) -> u64 {
        (0..).zip(self.0).filter(|(_, bank)| *bank != 0).fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// The banks of [`Self::valid_banks`], ascending.
    pub fn banks(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied().filter(|bank| *bank != 0)
    }
}

const _: () = assert!(size_of::<FlushHeader>() == 32);
const _: () = assert!(VpSet::MAX_VPS as usize == BANKS * BANK as usize);
const _: () = assert!(VpSet::MAX_VPS as u64 >= crate::loader::MAX_POSSIBLE_CPUS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_passes_the_banks_that_are_not_empty() {
        let set = VpSet::of([0, 63, 130, 4095]).unwrap();
        assert_eq!(set.valid_banks(), 1 | 1 << 2 | 1 << 63);
        assert_eq!(set.banks().collect::<Vec<_>>(), [1 | 1 << 63, 1 << 2, 1 << 63]);
        for vp in 0..5000 {
            assert_eq!(set.contains(vp), [0, 63, 130, 4095].contains(&vp), "VP {vp}");
        }
        assert!(VpSet::of([]).unwrap().is_empty() && !set.is_empty());
        assert_eq!(VpSet::of([4096]), None);
    }

    #[test]
    fn a_range_counts_the_pages_after_the_first() {
        assert_eq!(GvaRange::new(0xffff_8000_0000_1000, 1), Some(GvaRange(0xffff_8000_0000_1000)));
        assert_eq!(GvaRange::new(0x1000, 4096), Some(GvaRange(0x1fff)));
        for (va, pages) in [(0x1000, 0), (0x1000, 4097), (0x1008, 1)] {
            assert_eq!(GvaRange::new(va, pages), None);
        }
    }
}
