//! Where VTL0's kernel may have its text patched: the sites of its jump labels, as LoadKData found them.
//!
//! A site is a jump that may become a NOP of the same size and back. Sites are kept by physical address, for that is
//! how VTL0 names them when it asks. No two of them share a byte, so that a patch of one is never half of another.

use alloc::vec::Vec;

use crate::address::{PAGE_SIZE, PhysAddr};
use crate::error::VsmError;
use crate::sort::heap_sort;

/// A site, 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchData {
    start: PhysAddr,
    /// Where the bytes that do not fit the first page go on.
    next_page: Option<PhysAddr>,
    jump: [u8; 5],
    len: u8,
}

impl PatchData {
    /// A site at `start` whose jump is `jump`; where the page ends it goes on at `next_page`.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] when the jump has not 1 to 5 bytes, or when `next_page` is not there exactly when
    /// it is needed; [`VsmError::NotPageAligned`].
    pub fn new(start: PhysAddr, next_page: Option<PhysAddr>, jump: &[u8]) -> Result<Self, VsmError> {
        let invalid = VsmError::InvalidParameter { name: "patch site", value: start.as_u64() };
        let mut bytes = [0; 5];
        let len = u8::try_from(jump.len()).map_err(|_| invalid)?;
        bytes.get_mut(..jump.len()).filter(|place| !place.is_empty()).ok_or(invalid)?.copy_from_slice(jump);
        if let Some(next) = next_page.filter(|next| !next.is_page_aligned()) {
            return Err(VsmError::NotPageAligned(next.as_u64()));
        }
        let straddles = start.page_offset() + u64::from(len) > PAGE_SIZE;
        if straddles != next_page.is_some() || next_page.is_some_and(|next| next.gfn() == start.gfn()) {
            return Err(invalid);
        }
        Ok(Self { start, next_page, jump: bytes, len })
    }

    /// The first byte's address.
    #[must_use]
    pub fn start(&self) -> PhysAddr {
        self.start
    }

    /// Where the bytes that do not fit the first page go on.
    #[must_use]
    pub fn next_page(&self) -> Option<PhysAddr> {
        self.next_page
    }

    /// The jump, 1 to 5 bytes.
    #[must_use]
    pub fn jump(&self) -> &[u8] {
        self.jump.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The site's bytes as physical spans: on the first page, and on the second if there is one. Half-open.
    fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        let start = self.start.as_u64();
        let on_first = u64::from(self.len).min(PAGE_SIZE - self.start.page_offset());
        let rest = u64::from(self.len) - on_first;
        let second = self.next_page.map(|next| (next.as_u64(), next.as_u64() + rest));
        core::iter::once((start, start + on_first)).chain(second)
    }
}

/// All patch sites of VTL0's kernel, by physical address.
#[derive(Debug, Default)]
pub struct PatchDataMap {
    sites: Vec<PatchData>,
    /// The sites that have one byte on their first page: the second page, and the first byte; by that page.
    torn: Vec<(PhysAddr, PhysAddr)>,
}

impl PatchDataMap {
    /// A map of `sites`, in any order.
    ///
    /// # Errors
    /// [`VsmError::InvalidRange`] when two sites share a byte, [`VsmError::OutOfMemory`].
    pub fn new(mut sites: Vec<PatchData>) -> Result<Self, VsmError> {
        heap_sort(&mut sites, |one, other| one.start < other.start);
        let mut spans = Vec::new();
        let second_pages = sites.iter().filter(|site| site.next_page.is_some()).count();
        spans
            .try_reserve_exact(sites.len().saturating_add(second_pages))
            .map_err(|_| VsmError::OutOfMemory("the patch sites"))?;
        spans.extend(sites.iter().flat_map(PatchData::spans));
        heap_sort(&mut spans, |one, other| one < other);
        for pair in spans.windows(2) {
            if let &[(_, end), (start, last)] = pair
                && start < end
            {
                return Err(VsmError::InvalidRange { start, end: last, rule: "patch sites must not overlap" });
            }
        }
        let torn_site = |site: &PatchData| site.next_page.filter(|_| site.start.page_offset() == PAGE_SIZE - 1);
        let mut torn = Vec::new();
        torn.try_reserve_exact(sites.iter().filter_map(torn_site).count())
            .map_err(|_| VsmError::OutOfMemory("the patch sites"))?;
        torn.extend(sites.iter().filter_map(|site| Some((torn_site(site)?, site.start))));
        heap_sort(&mut torn, |one, other| one < other);
        Ok(Self { sites, torn })
    }

    /// How many sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Forgets the sites that `keep` is false for. Allocates nothing.
    pub fn retain(&mut self, keep: impl FnMut(&PatchData) -> bool) {
        self.sites.retain(keep);
        let sites = &self.sites;
        self.torn.retain(|(_, start)| sites.binary_search_by_key(start, |site| site.start).is_ok());
    }

    /// The site that has its first or its second byte at `pa`, and which of the two, counted from 0.
    #[must_use]
    pub fn near(&self, pa: PhysAddr) -> Option<(&PatchData, usize)> {
        if let Some(site) = self.at(pa) {
            return Some((site, 0));
        }
        let first = if pa.is_page_aligned() {
            let at = self.torn.binary_search_by_key(&pa, |(page, _)| *page).ok()?;
            self.torn.get(at)?.1
        } else {
            PhysAddr::new(pa.as_u64() - 1).ok()?
        };
        self.at(first).map(|site| (site, 1))
    }

    /// The site whose first byte lies at `start`.
    #[must_use]
    pub fn at(&self, start: PhysAddr) -> Option<&PatchData> {
        let at = self.sites.binary_search_by_key(&start, |site| site.start).ok()?;
        self.sites.get(at)
    }

    /// All sites, by address.
    pub fn iter(&self) -> impl Iterator<Item = &PatchData> {
        self.sites.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: [u8; 5] = [0xe9, 1, 2, 3, 4];

    fn pa(raw: u64) -> PhysAddr {
        PhysAddr::new(raw).unwrap()
    }

    fn site(start: u64, next: u64, jump: &[u8]) -> PatchData {
        PatchData::new(pa(start), (next != 0).then(|| pa(next)), jump).unwrap()
    }

    #[test]
    fn a_site_is_found_by_its_first_and_second_byte_wherever_they_lie() {
        let sites = [(0x1000, None), (0x1010, None), (0x1fff, Some(0x9000)), (0x2ffe, Some(0x5000)), (0x2fff, None)];
        let sites = sites.into_iter().map(|(start, next): (u64, Option<u64>)| {
            let jump = if start == 0x2fff { &[0xeb][..] } else { &LONG[..] };
            (start, next, jump)
        });
        let sites = sites.filter(|(start, ..)| *start != 0x2fff);
        let list = sites.map(|(start, next, jump)| PatchData::new(pa(start), next.map(pa), jump).unwrap()).collect();
        let mut map = PatchDataMap::new(list).unwrap();
        let found = |map: &PatchDataMap, at| map.near(pa(at)).map(|(site, byte)| (site.start().as_u64(), byte));
        for (at, expected) in [
            (0x1000, Some((0x1000, 0))),
            (0x1001, Some((0x1000, 1))),
            (0x1002, None),
            (0xfff, None),
            (0x1011, Some((0x1010, 1))),
            (0x1fff, Some((0x1fff, 0))),
            (0x2000, None),
            (0x9000, Some((0x1fff, 1))),
            (0x9001, None),
            (0x2fff, Some((0x2ffe, 1))),
            (0x5000, None),
        ] {
            assert_eq!(found(&map, at), expected, "{at:#x}");
        }
        map.retain(|site| site.start() != pa(0x1fff));
        assert_eq!((found(&map, 0x9000), found(&map, 0x1fff)), (None, None));
        assert_eq!(found(&map, 0x2fff), Some((0x2ffe, 1)));
    }

    #[test]
    fn sites_are_found_by_their_first_byte_only() {
        let map = PatchDataMap::new(vec![site(0x3000, 0, &LONG), site(0x1ffe, 0x9000, &LONG), site(0x3005, 0, &LONG)]);
        let map = map.unwrap();
        assert_eq!(map.iter().map(|site| site.start().as_u64()).collect::<Vec<_>>(), [0x1ffe, 0x3000, 0x3005]);
        assert_eq!(map.at(pa(0x1ffe)).unwrap().next_page(), Some(pa(0x9000)));
        assert_eq!(map.at(pa(0x3000)).unwrap().jump(), LONG);
        for wrong in [0x1fff, 0x2000, 0x3001, 0x9000, 0] {
            assert!(map.at(pa(wrong)).is_none(), "{wrong:#x}");
        }
    }

    #[test]
    fn sites_that_share_a_byte_are_refused() {
        let short = [0xeb, 0];
        for (left, right, fine) in [
            (site(0x3000, 0, &LONG), site(0x3000, 0, &LONG), false),
            (site(0x3000, 0, &LONG), site(0x3004, 0, &short), false),
            (site(0x3000, 0, &LONG), site(0x3005, 0, &short), true),
            (site(0x3000, 0, &short), site(0x3001, 0, &LONG), false),
            // The part on the second page counts too, wherever that page lies.
            (site(0x3ffe, 0x1000, &LONG), site(0x1002, 0, &short), false),
            (site(0x3ffe, 0x1000, &LONG), site(0x1003, 0, &short), true),
            (site(0x3ffe, 0x5000, &LONG), site(0x5000, 0, &short), false),
            (site(0x3ffe, 0x5000, &LONG), site(0x4000, 0, &short), true),
            (site(0x3ffe, 0x5000, &LONG), site(0x2ffe, 0x5000, &LONG), true),
        ] {
            // Two sites that go on in the same page overlap there as well.
            let fine = fine && !(left.next_page == right.next_page && left.next_page.is_some());
            for sites in [vec![left, right], vec![right, left], vec![left, right, site(0x8000, 0, &short)]] {
                assert_eq!(PatchDataMap::new(sites).is_ok(), fine, "{left:?} and {right:?}");
            }
        }
    }

    #[test]
    fn a_second_page_is_there_exactly_when_it_is_needed() {
        for (start, next, jump) in [
            (0x1ffe, None, &LONG[..]),
            (0x1ffb, Some(0x3000), &LONG),
            (0x1ffe, Some(0x1000), &LONG),
            (0x1ffe, Some(0x3001), &LONG),
            (0x1000, None, &[]),
            (0x1000, None, &[0; 6]),
        ] {
            assert!(PatchData::new(pa(start), next.map(pa), jump).is_err(), "{start:#x} {next:?} {jump:?}");
        }
        assert!(PatchData::new(pa(0x1ffb), None, &LONG).is_ok());
        assert!(PatchData::new(pa(0x1fff), Some(pa(0x3000)), &LONG).is_ok());
    }
}
