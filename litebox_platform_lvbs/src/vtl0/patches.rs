//! Where VTL0's text may be patched: the jump labels of its kernel, as LoadKData found them, and the jump labels and static
//! calls of a module, as its signed file has them.
//!
//! Sites are kept by physical address, as VTL0 names them. No two of them share a byte, so that a patch of one never changes
//! another. What a site may become is decided by the handler of PatchText.

use alloc::vec::Vec;
use core::cmp::Ordering;

use vsm_integrity::heap::with_room;
use vsm_integrity::module::Shape;

use crate::address::{PAGE_SIZE, PhysAddr};
use crate::error::VsmError;

/// The most bytes of a site: those of a conditional jump.
pub const MAX_SITE: usize = 6;
/// The most sites of a module; the largest known modules have some 1,500.
pub const MAX_MODULE_SITES: usize = 1 << 16;

/// What a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteKind {
    /// A jump that may become a NOP of the same size, and back.
    JumpLabel,
    /// A branch that may go elsewhere, or nowhere.
    StaticCall {
        /// What it was compiled to.
        shape: Shape,
        /// VTL0's virtual address of its first byte.
        va: u64,
    },
}

/// A site, 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchData {
    start: PhysAddr,
    /// The page with the bytes that do not fit the first one; 0 where there are none.
    next_page: u64,
    kind: SiteKind,
    code: [u8; MAX_SITE],
    len: u8,
}

const _: () = assert!(size_of::<PatchData>() == 40);

impl PatchData {
    /// A jump label at `start` whose jump is `jump`; where the page ends it goes on at `next_page`.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] when the jump has not 2 or 5 bytes, or when `next_page` is not there exactly when
    /// it is needed; [`VsmError::NotPageAligned`].
    pub fn new(start: PhysAddr, next_page: Option<PhysAddr>, jump: &[u8]) -> Result<Self, VsmError> {
        if !matches!(jump.len(), 2 | 5) {
            return Err(VsmError::InvalidParameter { name: "patch site", value: start.as_u64() });
        }
        Self::site(start, next_page, SiteKind::JumpLabel, jump)
    }

    /// A static call at `start`, which VTL0 has at `va`, compiled to `code`.
    ///
    /// # Errors
    /// As [`Self::new`], for code of another size than its shape's.
    pub fn static_call(
        start: PhysAddr,
        next_page: Option<PhysAddr>,
        shape: Shape,
        va: u64,
        code: &[u8],
    ) -> Result<Self, VsmError> {
        if code.len() != shape.size() {
            return Err(VsmError::InvalidParameter { name: "patch site", value: start.as_u64() });
        }
        Self::site(start, next_page, SiteKind::StaticCall { shape, va }, code)
    }

    fn site(start: PhysAddr, next_page: Option<PhysAddr>, kind: SiteKind, bytes: &[u8]) -> Result<Self, VsmError> {
        let invalid = VsmError::InvalidParameter { name: "patch site", value: start.as_u64() };
        let mut code = [0; MAX_SITE];
        let len = u8::try_from(bytes.len()).map_err(|_| invalid)?;
        code.get_mut(..bytes.len()).filter(|place| !place.is_empty()).ok_or(invalid)?.copy_from_slice(bytes);
        if let Some(next) = next_page.filter(|next| !next.is_page_aligned()) {
            return Err(VsmError::NotPageAligned(next.as_u64()));
        }
        let straddles = start.page_offset() + u64::from(len) > PAGE_SIZE;
        if straddles != next_page.is_some() || next_page.is_some_and(|next| next.gfn() == start.gfn()) {
            return Err(invalid);
        }
        let next_page = next_page.map_or(0, PhysAddr::as_u64);
        if straddles && next_page == 0 {
            return Err(invalid);
        }
        Ok(Self { start, next_page, kind, code, len })
    }

    /// The first byte's address.
    #[must_use]
    pub fn start(&self) -> PhysAddr {
        self.start
    }

    /// Where the bytes that do not fit the first page go on.
    #[must_use]
    pub fn next_page(&self) -> Option<PhysAddr> {
        PhysAddr::new(self.next_page).ok().filter(|page| page.as_u64() != 0)
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> SiteKind {
        self.kind
    }

    /// The instruction that was compiled: for a jump label its jump.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.code.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The same, and zeros behind it.
    #[must_use]
    pub fn padded_code(&self) -> [u8; MAX_SITE] {
        self.code
    }

    /// The site's bytes as physical spans: on the first page, and on the second if there is one. Half-open.
    fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        let start = self.start.as_u64();
        let on_first = u64::from(self.len).min(PAGE_SIZE - self.start.page_offset());
        let rest = u64::from(self.len) - on_first;
        let second = self.next_page().map(|next| (next.as_u64(), next.as_u64() + rest));
        core::iter::once((start, start + on_first)).chain(second)
    }
}

/// All patch sites of VTL0's kernel, or of a module, by physical address.
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
    pub fn new(sites: Vec<PatchData>) -> Result<Self, VsmError> {
        let mut sites = trimmed(sites);
        sites.sort_unstable_by_key(|site| site.start);
        let second_pages = sites.iter().filter(|site| site.next_page().is_some()).count();
        let mut spans = with_room(sites.len().saturating_add(second_pages))?;
        spans.extend(sites.iter().flat_map(PatchData::spans));
        spans.sort_unstable();
        for pair in spans.windows(2) {
            if let &[(_, end), (start, last)] = pair
                && start < end
            {
                return Err(VsmError::InvalidRange { start, end: last, rule: "patch sites must not overlap" });
            }
        }
        let torn_site = |site: &PatchData| site.next_page().filter(|_| site.start.page_offset() == PAGE_SIZE - 1);
        let mut torn = with_room(sites.iter().filter_map(torn_site).count())?;
        torn.extend(sites.iter().filter_map(|site| Some((torn_site(site)?, site.start))));
        torn.sort_unstable();
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
        self.near_by(pa, &mut PhysAddr::cmp)
    }

    fn near_by(&self, pa: PhysAddr, compare: &mut Compare<'_>) -> Option<(&PatchData, usize)> {
        if let Some(site) = self.at_by(pa, compare) {
            return Some((site, 0));
        }
        let first = if pa.is_page_aligned() {
            let at = self.torn.binary_search_by(|(page, _)| compare(page, &pa)).ok()?;
            self.torn.get(at)?.1
        } else {
            PhysAddr::new(pa.as_u64() - 1).ok()?
        };
        self.at_by(first, compare).map(|site| (site, 1))
    }

    /// The site whose first byte lies at `start`.
    #[must_use]
    pub fn at(&self, start: PhysAddr) -> Option<&PatchData> {
        self.at_by(start, &mut PhysAddr::cmp)
    }

    fn at_by(&self, start: PhysAddr, compare: &mut Compare<'_>) -> Option<&PatchData> {
        let at = self.sites.binary_search_by(|site| compare(&site.start, &start)).ok()?;
        self.sites.get(at)
    }

    /// All sites, by address.
    pub fn iter(&self) -> impl Iterator<Item = &PatchData> {
        self.sites.iter()
    }
}

/// How a look-up compares addresses.
type Compare<'a> = dyn FnMut(&PhysAddr, &PhysAddr) -> Ordering + 'a;

/// The same sites in a buffer of their own size, if there is memory for that: they are kept for long.
fn trimmed(sites: Vec<PatchData>) -> Vec<PatchData> {
    if sites.capacity() == sites.len() {
        return sites;
    }
    let Ok(mut exact) = with_room(sites.len()) else { return sites };
    exact.extend_from_slice(&sites);
    exact
}

#[cfg(test)]
mod tests {
    extern crate std;

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
        assert_eq!(map.at(pa(0x3000)).unwrap().code(), LONG);
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
            let fine = fine && !(left.next_page == right.next_page && left.next_page != 0);
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
            (0x1000, None, &[0xeb]),
            (0x1000, None, &[0; 6]),
        ] {
            assert!(PatchData::new(pa(start), next.map(pa), jump).is_err(), "{start:#x} {next:?} {jump:?}");
        }
        assert!(PatchData::new(pa(0x1ffb), None, &LONG).is_ok());
        // The page at 0 has no address that could be told from none.
        assert!(PatchData::new(pa(0x1ffc), Some(pa(0)), &LONG).is_err());
        let six = [0x0f, 0x84, 0, 0, 0, 0];
        let call = |start, next, code| PatchData::static_call(pa(start), next, Shape::Conditional(0x84), 0, code);
        assert!(call(0x1ffa, None, &six).is_ok() && call(0x1ffb, Some(pa(0x5000)), &six).is_ok());
        assert!(call(0x1ffb, None, &six).is_err() && call(0x1000, None, &six[..5]).is_err());
        assert!(PatchData::new(pa(0x1fff), Some(pa(0x3000)), &LONG).is_ok());
    }

    #[test]
    fn a_look_up_takes_logarithmic_time() {
        let mut most = Vec::new();
        for count in [100_u64, 10_000, 1_000_000] {
            // Two in a page, and each second page's last byte is the first of one that goes on elsewhere.
            let base = 1 << 32;
            let site = |index: u64| match index % 4 {
                3 => site((index / 4) * 0x2000 + 0x1fff, base + (index / 4) * 0x1000, &LONG),
                part => site((index / 4) * 0x2000 + part * 0x800, 0, &LONG),
            };
            let map = PatchDataMap::new((0..count).map(site).collect()).unwrap();
            assert_eq!(map.len() as u64, count);
            let mut highest = 0;
            for index in (0..count).step_by(usize::try_from(count / 100).unwrap()).chain([count - 1]) {
                let at = site(index);
                let second =
                    at.next_page().filter(|_| index % 4 == 3).map_or(at.start().as_u64() + 1, PhysAddr::as_u64);
                for (address, expected) in [(at.start().as_u64(), Some(0)), (second, Some(1)), (second + 1, None)] {
                    let mut comparisons = 0;
                    let found = map.near_by(pa(address), &mut |one, other| {
                        comparisons += 1;
                        one.cmp(other)
                    });
                    assert_eq!(found.map(|(_, byte)| byte), expected, "{address:#x} of {count}");
                    highest = highest.max(comparisons);
                }
            }
            // Up to three searches, each of as many comparisons as the number of sites has bits, and one more.
            let bits = count.ilog2() + 1;
            assert!((bits..=3 * (bits + 1)).contains(&highest), "{highest} comparisons for {count} sites");
            most.push(highest);
        }
        std::println!("comparisons at 10^2, 10^4 and 10^6 sites: {most:?}");
        // A hundred times the sites are some 7 comparisons more for each search.
        assert!(most.array_windows().all(|[few, many]| *many <= *few + 3 * 8), "{most:?}");
    }
}
