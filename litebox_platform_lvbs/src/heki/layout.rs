//! The bytes of what the HEKI driver sends (Linux `include/linux/heki.h`): lists of ranges, and a patch.
//!
//! These types accept any bytes; [`super::HekiList`] checks those of a list, PatchText those of a patch.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ranges that fit into a list page.
pub const RANGES_PER_PAGE: usize = 127;

/// A range of VTL0 memory, 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HekiRange {
    /// VTL0's virtual address of the first byte. For a range merged from scattered pages, of its first page only.
    pub va: u64,
    /// Physical address of the first byte.
    pub pa: u64,
    /// Physical address of the first byte after the range.
    pub epa: u64,
    /// What the range is; the meaning depends on the call.
    pub attributes: u64,
}

/// A page of a list, 4096 bytes, page-aligned in VTL0.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HekiPage {
    /// VTL0's virtual address of the next page; of no use to VTL1.
    pub next: u64,
    /// Physical address of the next page, 0 in the last one.
    pub next_pa: u64,
    /// How many of [`Self::ranges`] are used.
    pub nranges: u64,
    /// The ranges.
    pub ranges: [HekiRange; RANGES_PER_PAGE],
    /// Unused.
    pub pad: u64,
}

/// The most bytes of a patch.
pub const MAX_PATCH_CODE: usize = 5;

/// `struct heki_patch` as VTL0 passes it (LVBS contract §5.9).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct HekiPatch {
    /// Physical address of the first byte to write; that of the page where the bytes go on, or 0.
    pub pa: [u64; 2],
    /// How many bytes.
    pub size: u8,
    /// The bytes.
    pub code: [u8; MAX_PATCH_CODE],
    /// Not used.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<HekiRange>() == 32);
const _: () = assert!(offset_of!(HekiRange, pa) == 8 && offset_of!(HekiRange, epa) == 16);
const _: () = assert!(offset_of!(HekiRange, attributes) == 24);
const _: () = assert!(size_of::<HekiPage>() == 4096);
const _: () = assert!(offset_of!(HekiPage, next_pa) == 8 && offset_of!(HekiPage, nranges) == 16);
const _: () = assert!(offset_of!(HekiPage, ranges) == 24 && offset_of!(HekiPage, pad) == 4088);
const _: () = assert!(size_of::<HekiPatch>() == 24);
const _: () = assert!(offset_of!(HekiPatch, size) == 16 && offset_of!(HekiPatch, code) == 17);
