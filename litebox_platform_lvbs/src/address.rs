//! Checked physical addresses, frame numbers and frame ranges.
//!
//! The only way from a VTL0 register or structure to one of these types is a constructor that returns a
//! `Result`; arithmetic on them is checked. What is trusted: nothing but the architectural limits.

use core::fmt;

use thiserror::Error;
pub use vsm_integrity::addresses::is_canonical;

/// Size of a page and of a frame, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bits of a physical address on x86-64 (Intel SDM vol. 3 §4.1.4, MAXPHYADDR is at most 52).
pub const PHYS_ADDR_BITS: u32 = 52;

/// Why a number is not an address, or two are not a range.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// An address has bits set beyond what a physical address can have.
    #[error("{0:#x} is not a physical address")]
    NotPhysical(u64),
    /// An address that must be page-aligned is not.
    #[error("address {0:#x} is not page-aligned")]
    NotPageAligned(u64),
    /// A range breaks the rule named.
    #[error("range {start:#x}..{end:#x}: {rule}")]
    InvalidRange {
        /// First byte.
        start: u64,
        /// First byte after it.
        end: u64,
        /// The rule that was broken.
        rule: &'static str,
    },
}

/// A guest-physical address below 2^52.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// Checks that `raw` fits an x86-64 physical address.
    pub const fn new(raw: u64) -> Result<Self, AddressError> {
        if raw >> PHYS_ADDR_BITS == 0 { Ok(Self(raw)) } else { Err(AddressError::NotPhysical(raw)) }
    }

    /// Checks that `raw` is a physical address and page-aligned.
    pub const fn new_aligned(raw: u64) -> Result<Self, AddressError> {
        match Self::new(raw) {
            Ok(pa) if pa.is_page_aligned() => Ok(pa),
            Ok(_) => Err(AddressError::NotPageAligned(raw)),
            Err(error) => Err(error),
        }
    }

    /// The number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Offset within the page, in bytes.
    #[must_use]
    pub const fn page_offset(self) -> u64 {
        self.0 % PAGE_SIZE
    }

    /// Whether the address is that of a page's first byte.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.page_offset() == 0
    }

    /// The frame the address lies in.
    #[must_use]
    pub const fn gfn(self) -> Gfn {
        Gfn(self.0 >> PAGE_SHIFT)
    }

    /// `self + bytes`, if that is a physical address.
    pub const fn checked_add(self, bytes: u64) -> Result<Self, AddressError> {
        match self.0.checked_add(bytes) {
            Some(sum) => Self::new(sum),
            None => Err(AddressError::NotPhysical(u64::MAX)),
        }
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysAddr({:#x})", self.0)
    }
}

/// A guest frame number: a physical address divided by the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Gfn(u64);

impl Gfn {
    /// Checks that the frame lies below 2^52 bytes.
    pub const fn new(raw: u64) -> Result<Self, AddressError> {
        if raw >> (PHYS_ADDR_BITS - PAGE_SHIFT) == 0 { Ok(Self(raw)) } else { Err(AddressError::NotPhysical(raw)) }
    }

    /// The number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Address of the frame's first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        // Cannot overflow: every constructor keeps the number below 2^40.
        PhysAddr(self.0 << PAGE_SHIFT)
    }
}

/// A non-empty, half-open range of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRange {
    start: u64,
    end: u64,
}

impl FrameRange {
    /// Frames of the bytes `start..end`; both must be page-aligned and `start < end`.
    pub const fn from_bytes(start: u64, end: u64) -> Result<Self, AddressError> {
        // `end` may be 2^52 itself, the first byte after the last frame.
        if start >> PHYS_ADDR_BITS != 0 || (end >> PHYS_ADDR_BITS != 0 && end != 1 << PHYS_ADDR_BITS) {
            return Err(AddressError::InvalidRange { start, end, rule: "must lie below 2^52" });
        }
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(AddressError::NotPageAligned(start));
        }
        if !end.is_multiple_of(PAGE_SIZE) {
            return Err(AddressError::NotPageAligned(end));
        }
        if start >= end {
            return Err(AddressError::InvalidRange { start, end, rule: "must not be empty" });
        }
        Ok(Self { start: start >> PAGE_SHIFT, end: end >> PAGE_SHIFT })
    }

    /// The frames `start..end`, by number; `start < end`, both at most 2^40.
    pub const fn from_gfns(start: u64, end: u64) -> Result<Self, AddressError> {
        const LIMIT: u64 = 1 << (PHYS_ADDR_BITS - PAGE_SHIFT);
        if start >= end || end > LIMIT {
            return Err(AddressError::InvalidRange {
                start,
                end,
                rule: "frame numbers must ascend and lie below 2^40",
            });
        }
        Ok(Self { start, end })
    }

    /// Number of the first frame.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Number of the first frame after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Address of the first byte.
    #[must_use]
    pub const fn first(self) -> PhysAddr {
        // Cannot overflow: every constructor keeps the number below 2^40.
        PhysAddr(self.start << PAGE_SHIFT)
    }

    /// How many frames; at least 1.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.end - self.start
    }

    /// Whether the ranges share a frame.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start << PAGE_SHIFT, self.end << PAGE_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_addresses_end_at_2_to_52() {
        assert!(PhysAddr::new((1 << 52) - 1).is_ok());
        assert_eq!(PhysAddr::new(1 << 52), Err(AddressError::NotPhysical(1 << 52)));
        assert!(PhysAddr::new((1 << 52) - 1).unwrap().checked_add(1).is_err());
        assert!(PhysAddr::new(5).unwrap().checked_add(u64::MAX).is_err());
        assert_eq!(PhysAddr::new_aligned(0x1001), Err(AddressError::NotPageAligned(0x1001)));
    }

    #[test]
    fn frame_numbers_end_at_2_to_40() {
        assert!(Gfn::new((1 << 40) - 1).is_ok());
        assert!(Gfn::new(1 << 40).is_err());
        assert_eq!(Gfn::new(2).unwrap().start(), PhysAddr::new(0x2000).unwrap());
    }

    #[test]
    fn frame_ranges_are_aligned_ascending_and_bounded() {
        let range = FrameRange::from_bytes(0x1000, 0x3000).unwrap();
        assert_eq!((range.start(), range.end(), range.count()), (1, 3, 2));
        assert_eq!(FrameRange::from_bytes(0x1000, 0x1fff), Err(AddressError::NotPageAligned(0x1fff)));
        assert_eq!(FrameRange::from_bytes(0x1008, 0x2000), Err(AddressError::NotPageAligned(0x1008)));
        assert!(FrameRange::from_bytes(0x2000, 0x2000).is_err());
        assert!(FrameRange::from_bytes(0x3000, 0x2000).is_err());
        assert!(FrameRange::from_bytes(0, 1 << 52).is_ok());
        assert!(FrameRange::from_bytes(0, (1 << 52) + 0x1000).is_err());
        assert!(FrameRange::from_bytes(1 << 52, (1 << 52) + 0x1000).is_err());
        assert!(range.overlaps(FrameRange::from_gfns(2, 9).unwrap()));
        assert!(!range.overlaps(FrameRange::from_gfns(3, 9).unwrap()));
        assert!(FrameRange::from_gfns(0, (1 << 40) + 1).is_err());
    }
}
