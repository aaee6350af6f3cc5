//! The objects a LoadKData list is about: which ranges make up which, and their bytes.
//!
//! A list names up to seven objects, each by any number of ranges, in any order. Ranges are sorted by object and
//! virtual address; an object is contiguous in virtual memory, only the kernel data may have gaps (LVBS contract §5.1).
//! Nothing that VTL0 says is trusted: what an object may have of ranges and bytes is bounded here.

use alloc::vec::Vec;

use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::Owner;
use litebox_platform_lvbs::heki::{CheckedRange, HekiList};
use litebox_platform_lvbs::sort::heap_sort;
use litebox_platform_lvbs::vtl0::FetchOnce;
use litebox_platform_lvbs::{Platform, VsmError};

/// The most ranges of a LoadKData list. A kernel's rodata of 64 MiB, scattered page by page, would have as many.
const MAX_RANGES: u64 = 1 << 14;

/// What a range is part of (Linux `enum heki_kdata_type`, LVBS contract §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    SystemCertificates,
    RevocationCertificates,
    BlockedHashes,
    KernelInfo,
    KernelData,
    PatchInfo,
    KexecTrampoline,
}

impl Kind {
    /// All kinds; a range's attribute is an index into this.
    const ALL: [Self; 7] = [
        Self::SystemCertificates,
        Self::RevocationCertificates,
        Self::BlockedHashes,
        Self::KernelInfo,
        Self::KernelData,
        Self::PatchInfo,
        Self::KexecTrampoline,
    ];

    fn from_raw(raw: u64) -> Result<Self, VsmError> {
        let kind = usize::try_from(raw).ok().and_then(|index| Self::ALL.get(index)).copied();
        kind.ok_or(VsmError::InvalidParameter { name: "kind of kernel data", value: raw })
    }

    fn name(self) -> &'static str {
        match self {
            Self::SystemCertificates => "system certificates",
            Self::RevocationCertificates => "revocation certificates",
            Self::BlockedHashes => "blocked hashes",
            Self::KernelInfo => "kernel information",
            Self::KernelData => "kernel data",
            Self::PatchInfo => "patch information",
            Self::KexecTrampoline => "kexec trampoline",
        }
    }

    /// The most bytes an object may have: well above what any kernel has, and little enough for VTL1's heap where the
    /// object is copied as a whole.
    fn max_bytes(self) -> u64 {
        match self {
            Self::SystemCertificates | Self::RevocationCertificates => 256 << 10,
            // 400 records have some 52 KiB.
            Self::BlockedHashes => 64 << 10,
            Self::KernelInfo => PAGE_SIZE,
            // Never copied as a whole.
            Self::KernelData => MAX_RANGES * PAGE_SIZE,
            // Some 43,000 sites; a distribution's kernel has 6,000.
            Self::PatchInfo => 1 << 20,
            Self::KexecTrampoline => 16 * PAGE_SIZE,
        }
    }

    /// Whether there may be gaps between the object's ranges.
    fn may_have_gaps(self) -> bool {
        matches!(self, Self::KernelData | Self::KexecTrampoline)
    }

    /// The error for a broken `rule` at offset or address `at`.
    pub(super) fn refuse(self, at: u64, rule: &'static str) -> VsmError {
        VsmError::InvalidKernelData { kind: self.name(), at, rule }
    }
}

/// All ranges of a list, sorted by kind and virtual address.
pub(super) struct Objects {
    ranges: Vec<(Kind, CheckedRange)>,
}

impl Objects {
    /// Walks the list and checks its ranges. The pages of the list count as fetched in `memory`.
    pub(super) fn collect(platform: &Platform, list: HekiList, memory: &mut FetchOnce<'_>) -> Result<Self, VsmError> {
        if list.range_count() > MAX_RANGES {
            let rule = "a list of kernel data must not have more than 16384 ranges";
            return Err(VsmError::InvalidList { page: list.first_page(), rule });
        }
        let mut ranges: Vec<(Kind, CheckedRange)> = Vec::new();
        let mut walk = list.walk(platform);
        let mut page = None;
        while let Some(range) = walk.next() {
            let range = range?;
            if page != Some(walk.page()) {
                memory.note(walk.page(), PAGE_SIZE)?;
                page = Some(walk.page());
            }
            let kind = Kind::from_raw(range.attributes())?;
            refuse_vtl1(platform, &range)?;
            ranges.try_reserve(1).map_err(|_| VsmError::OutOfMemory("the ranges of kernel data"))?;
            ranges.push((kind, range));
        }
        heap_sort(&mut ranges, |(kind, range), (other, after)| (*kind, range.va()) < (*other, after.va()));
        let objects = Self { ranges };
        Kind::ALL.into_iter().try_for_each(|kind| objects.check(kind))?;
        Ok(objects)
    }

    /// Checks what the ranges of one object are together.
    fn check(&self, kind: Kind) -> Result<(), VsmError> {
        let mut bytes = 0u64;
        let mut previous_end = None;
        for range in self.ranges(kind) {
            let end = virtual_end(range).ok_or_else(|| kind.refuse(range.va(), "addresses must not wrap around"))?;
            match previous_end {
                Some(previous) if range.va() < previous => {
                    return Err(kind.refuse(range.va(), "ranges must not overlap in virtual memory"));
                }
                Some(previous) if range.va() != previous && !kind.may_have_gaps() => {
                    return Err(kind.refuse(range.va(), "ranges must be contiguous in virtual memory"));
                }
                _ => previous_end = Some(end),
            }
            bytes = bytes.saturating_add(range.byte_count());
            if bytes > kind.max_bytes() {
                return Err(kind.refuse(range.va(), "there are more bytes than VTL1 takes"));
            }
        }
        Ok(())
    }

    /// The ranges of one object, by virtual address.
    pub(super) fn ranges(&self, kind: Kind) -> impl Iterator<Item = &CheckedRange> {
        self.slice(kind).iter().map(|(_, range)| range)
    }

    /// The same, to search in.
    pub(super) fn slice(&self, kind: Kind) -> &[(Kind, CheckedRange)] {
        let start = self.ranges.partition_point(|(other, _)| *other < kind);
        let rest = self.ranges.get(start..).unwrap_or_default();
        rest.get(..rest.partition_point(|(other, _)| *other == kind)).unwrap_or_default()
    }

    /// The bytes of one object; none if the list does not name it.
    pub(super) fn copy(&self, kind: Kind, memory: &mut FetchOnce<'_>) -> Result<Vec<u8>, VsmError> {
        // Checked above to be few.
        let total: u64 = self.ranges(kind).map(CheckedRange::byte_count).sum();
        let total = usize::try_from(total).map_err(|_| VsmError::OutOfMemory(kind.name()))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(total).map_err(|_| VsmError::OutOfMemory(kind.name()))?;
        bytes.resize(total, 0);
        let mut rest = bytes.as_mut_slice();
        for range in self.ranges(kind) {
            let size = usize::try_from(range.byte_count()).map_err(|_| VsmError::OutOfMemory(kind.name()))?;
            let Some((piece, after)) = rest.split_at_mut_checked(size) else { break };
            memory.fetch(PhysAddr::new(range.start())?, piece)?;
            rest = after;
        }
        Ok(bytes)
    }
}

/// The virtual address after a range's last byte, if all of the range lies in one canonical half and has such an address.
pub(super) fn virtual_end(range: &CheckedRange) -> Option<u64> {
    let end = range.va().checked_add(range.byte_count())?;
    // The range's start is canonical; with all bits from 47 on the same, so is the rest of it.
    ((end - 1) >> 47 == range.va() >> 47).then_some(end)
}

/// Refuses a range with a byte in VTL1's frames.
fn refuse_vtl1(platform: &Platform, range: &CheckedRange) -> Result<(), VsmError> {
    let vtl1 = platform.config().vtl1_region;
    let (first, last) = (PhysAddr::new(range.start())?, PhysAddr::new(range.end() - 1)?);
    let frames = FrameRange::from_gfns(first.gfn().as_u64(), last.gfn().as_u64() + 1)?;
    if frames.overlaps(vtl1) {
        return Err(VsmError::FrameOwned(first, Owner::Vtl1));
    }
    Ok(())
}
