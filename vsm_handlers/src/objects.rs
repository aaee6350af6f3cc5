//! The objects that a HEKI list is about: which ranges make up which, and their bytes.
//!
//! A list names a few objects, each by any number of ranges, in any order. Ranges are sorted by object and virtual address,
//! or stay in the list's order; an object is contiguous in virtual memory unless its kind may have gaps (LVBS contract §5.1).
//! Nothing that VTL0 says is trusted: what an object may have of ranges and bytes is bounded here.

use alloc::vec::Vec;

use litebox_platform_lvbs::access::{FetchOnce, refuse_vtl1};
use litebox_platform_lvbs::address::{PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::heki::{CheckedRange, HekiList};
use litebox_platform_lvbs::{Platform, VsmError};
use vsm_integrity::heap::TryPush;

/// What a range is part of; its attribute word is an index into [`ObjectKind::ALL`].
pub(crate) trait ObjectKind: Copy + Ord + 'static {
    /// What messages call the attribute.
    const WHAT: &'static str;
    /// The most ranges of a list, and the rule as a message states it.
    const MAX_RANGES: (u64, &'static str);
    /// All kinds.
    const ALL: &'static [Self];

    /// What messages call the object.
    fn name(self) -> &'static str;

    /// The most bytes the object may have.
    fn max_bytes(self) -> u64;

    /// Whether there may be gaps between the object's ranges.
    fn may_have_gaps(self) -> bool {
        false
    }

    /// Whether the object is a set of pages, of which virtual addresses say nothing: the driver merges ranges of such a list
    /// by physical addresses alone (LVBS contract §5.1).
    fn is_page_set(self) -> bool {
        false
    }

    /// Whether the object is made of pieces that VTL0 has allocated one by one, in the list's order: as the driver merges
    /// ranges, a range may hold the end of one piece and the beginning of the next, and its virtual address is the former's.
    fn is_pieces(self) -> bool {
        false
    }

    /// The kind with the number `raw`.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`].
    fn from_raw(raw: u64) -> Result<Self, VsmError> {
        let kind = usize::try_from(raw).ok().and_then(|index| Self::ALL.get(index)).copied();
        kind.ok_or(VsmError::InvalidParameter { name: Self::WHAT, value: raw })
    }

    /// The error for a broken `rule` at offset or address `at`.
    fn refuse(self, at: u64, rule: &'static str) -> VsmError {
        VsmError::InvalidObject { object: self.name(), at, rule }
    }
}

/// A range, what it is part of, and its number in the list.
#[derive(Clone, Copy)]
pub(crate) struct Named<K> {
    kind: K,
    number: u32,
    pub(crate) range: CheckedRange,
}

/// All ranges of a list, sorted by kind, and then by virtual address or by number.
pub(crate) struct Objects<K> {
    ranges: Vec<Named<K>>,
}

impl<K: ObjectKind> Objects<K> {
    /// Walks the list and checks its ranges. The pages of the list count as fetched in `memory`.
    pub(crate) fn collect(platform: &Platform, list: HekiList, memory: &mut FetchOnce<'_>) -> Result<Self, VsmError> {
        let (most, rule) = K::MAX_RANGES;
        if list.range_count() > most {
            return Err(VsmError::InvalidList { page: list.first_page(), rule });
        }
        let mut ranges: Vec<Named<K>> = Vec::new();
        let mut walk = list.walk(platform);
        let mut page = None;
        while let Some(range) = walk.next() {
            let range = range?;
            if page != Some(walk.page()) {
                memory.note(walk.page(), PAGE_SIZE)?;
                page = Some(walk.page());
            }
            let kind = K::from_raw(range.attributes())?;
            refuse_vtl1(platform, PhysAddr::new(range.start())?, range.byte_count())?;
            // A list has far fewer.
            let number = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
            // As they come: what the call has announced may not be there.
            ranges.try_push(Named { kind, number, range })?;
        }
        ranges.sort_unstable_by_key(|named| {
            (named.kind, if named.kind.is_pieces() { named.number.into() } else { named.range.va() })
        });
        let objects = Self { ranges };
        K::ALL.iter().try_for_each(|kind| objects.check(*kind))?;
        Ok(objects)
    }

    /// Checks what the ranges of one object are together.
    fn check(&self, kind: K) -> Result<(), VsmError> {
        let mut bytes = 0u64;
        let mut previous_end = None;
        for range in self.ranges(kind) {
            bytes = bytes.saturating_add(range.byte_count());
            if bytes > kind.max_bytes() {
                return Err(kind.refuse(range.va(), "there are more bytes than VTL1 takes"));
            }
            if kind.is_page_set() || kind.is_pieces() {
                continue;
            }
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
        }
        Ok(())
    }

    /// The ranges of one object, by virtual address.
    pub(crate) fn ranges(&self, kind: K) -> impl Iterator<Item = &CheckedRange> {
        self.slice(kind).iter().map(|named| &named.range)
    }

    /// The same, to search in.
    pub(crate) fn slice(&self, kind: K) -> &[Named<K>] {
        let start = self.ranges.partition_point(|named| named.kind < kind);
        let rest = self.ranges.get(start..).unwrap_or_default();
        rest.get(..rest.partition_point(|named| named.kind == kind)).unwrap_or_default()
    }

    /// Where in the bytes of one object, as [`Self::copy`] gives them, a range or a page begins, but for the first: how many
    /// bytes are before it. Ascending.
    pub(crate) fn starts(&self, kind: K) -> Result<Vec<usize>, VsmError> {
        let out = || VsmError::OutOfMemory(kind.name());
        let mut starts = Vec::new();
        let mut bytes = 0_u64;
        for range in self.ranges(kind) {
            let to_page = PAGE_SIZE - range.start() % PAGE_SIZE;
            let pages = core::iter::successors(Some(to_page), |page| page.checked_add(PAGE_SIZE));
            let pages = pages.take_while(|page| *page < range.byte_count());
            for start in core::iter::once(0).chain(pages).filter_map(|offset| bytes.checked_add(offset)) {
                starts.try_reserve(1).map_err(|_| out())?;
                starts.push(usize::try_from(start).map_err(|_| out())?);
            }
            bytes = bytes.saturating_add(range.byte_count());
        }
        Ok(starts)
    }

    /// The bytes of one object; none if the list does not name it.
    pub(crate) fn copy(&self, kind: K, memory: &mut FetchOnce<'_>) -> Result<Vec<u8>, VsmError> {
        self.copy_first(kind, usize::MAX, memory)
    }

    /// How many bytes an object has.
    pub(crate) fn byte_count(&self, kind: K) -> u64 {
        // Checked above to be few.
        self.ranges(kind).map(CheckedRange::byte_count).sum()
    }

    /// The first bytes of one object, `most` of them. What is beyond is not fetched.
    pub(crate) fn copy_first(&self, kind: K, most: usize, memory: &mut FetchOnce<'_>) -> Result<Vec<u8>, VsmError> {
        let total = usize::try_from(self.byte_count(kind)).map_err(|_| VsmError::OutOfMemory(kind.name()))?.min(most);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(total).map_err(|_| VsmError::OutOfMemory(kind.name()))?;
        bytes.resize(total, 0);
        let mut rest = bytes.as_mut_slice();
        for range in self.ranges(kind) {
            let size = usize::try_from(range.byte_count()).map_err(|_| VsmError::OutOfMemory(kind.name()))?;
            let Some((piece, after)) = rest.split_at_mut_checked(size.min(rest.len())) else { break };
            memory.fetch(PhysAddr::new(range.start())?, piece)?;
            rest = after;
        }
        Ok(bytes)
    }
}

/// The virtual address after a range's last byte, if all of the range lies in one canonical half and has such an address.
pub(crate) fn virtual_end(range: &CheckedRange) -> Option<u64> {
    let end = range.va().checked_add(range.byte_count())?;
    // The range's start is canonical; with all bits from 47 on the same, so is the rest of it.
    ((end - 1) >> 47 == range.va() >> 47).then_some(end)
}
