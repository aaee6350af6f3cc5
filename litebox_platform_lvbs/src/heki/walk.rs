//! Walking a HEKI list: one page at a time, each copied once, every field checked before anyone uses it.
//!
//! What is trusted: nothing in VTL0 memory. A page is fetched once: a chain that comes back to one has a cycle. The walk
//! ends after at most as many pages as the call announced ranges, for a page without ranges is refused. Stack in use does
//! not depend on the length of the list, and heap only on the number of places its pages lie in: 32 bytes for each. The time
//! for a page grows with the logarithm of that number, in whatever order they come.

use zerocopy::{FromZeros, IntoBytes};

use crate::access::{FetchOnce, refuse_vtl1};
use crate::address::{FrameRange, PAGE_SIZE, PHYS_ADDR_BITS, PhysAddr, is_canonical};
use crate::error::{Errno, VsmError};
use crate::frames::MemAttr;
use crate::platform::Platform;
use crate::vsm::{ErrnoMeta, VsmParam};

use super::layout::{HekiPage, HekiRange, RANGES_PER_PAGE};

/// The most ranges a list may have. VTL0 has sent 8,748 (LVBS contract §11.2).
pub const MAX_RANGES: u64 = 1 << 20;

/// The most places, runs of neighbouring pages, in which the pages of a list may lie, and a bound of 2 MiB on the heap that a
/// walk takes. VTL0 fills its first page with 127 ranges and puts one into each other (LVBS contract §11.2): so lists of
/// 65,536 ranges fit wherever their pages lie, longer ones where they have neighbours.
const MAX_PLACES: usize = 1 << 16;

/// A list as a call names it: the physical address of its first page, and how many ranges all pages have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HekiList {
    first: PhysAddr,
    ranges: u64,
}

impl HekiList {
    /// Checks what the call passed, without looking at the list itself.
    ///
    /// # Errors
    /// [`VsmError::InvalidPhysicalAddress`], [`VsmError::NotPageAligned`], [`VsmError::FrameOwned`] when the first page
    /// is VTL1's, [`VsmError::InvalidList`] for a list of no ranges or of more than [`MAX_RANGES`].
    pub fn new(platform: &Platform, first: u64, ranges: u64) -> Result<Self, VsmError> {
        let first = list_page(platform, first)?;
        let invalid = |rule| VsmError::InvalidList { page: first, rule };
        match ranges {
            0 => Err(invalid("the list must have at least one range")),
            1..=MAX_RANGES => Ok(Self { first, ranges }),
            _ => Err(invalid("the list must not have more than 2^20 ranges")),
        }
    }

    /// Where the first page lies.
    #[must_use]
    pub fn first_page(&self) -> PhysAddr {
        self.first
    }

    /// How many ranges the list has.
    #[must_use]
    pub fn range_count(&self) -> u64 {
        self.ranges
    }

    /// Walks the list. Each walk copies every page of it once.
    #[must_use]
    pub fn walk<'a>(&self, platform: &'a Platform) -> Walk<'a> {
        Walk {
            platform,
            page: HekiPage::new_zeroed(),
            at: self.first,
            next: Some(self.first),
            used: 0,
            index: 0,
            remaining: self.ranges,
            fetched: FetchOnce::new(platform),
        }
    }
}

impl VsmParam for HekiList {
    const REGISTERS: usize = 2;
    const KIND: &'static str = "HEKI list (physical address of the first page, number of ranges)";
    const UNIT: &'static str = "the physical address in bytes of a `struct heki_page`, a multiple of 4096, below 2^52, outside \
                                VTL1; then how many ranges all pages of the list have together, 1 to 2^20";
    const BITS: u64 = (1 << PHYS_ADDR_BITS) - 1;
    const ERRORS: &'static [ErrnoMeta] = &[
        ErrnoMeta::new(
            Errno::Efault,
            "an address that is none, a list page or a range that breaks a rule or is not memory",
        ),
        ErrnoMeta::new(Errno::Einval, "a list page that is not page-aligned"),
        ErrnoMeta::new(Errno::Eacces, "a list page in a frame of VTL1"),
        ErrnoMeta::new(Errno::Enomem, "a list in more places than VTL1 has memory to remember"),
    ];

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        match *registers {
            [first, ranges] => Self::new(platform, first, ranges),
            _ => Err(VsmError::InvalidParameter { name: Self::KIND, value: u64::MAX }),
        }
    }
}

/// A list that need not be there: two zeros say that it is not.
impl VsmParam for Option<HekiList> {
    const REGISTERS: usize = 2;
    const KIND: &'static str = "HEKI list, or 0 and 0";
    const UNIT: &'static str = "as a HEKI list; 0 and 0 for none";
    const BITS: u64 = HekiList::BITS;
    const ERRORS: &'static [ErrnoMeta] = &[
        ErrnoMeta::new(Errno::Einval, "a number of ranges without a list"),
        ErrnoMeta::new(Errno::Efault, "as for a HEKI list"),
        ErrnoMeta::new(Errno::Eacces, "as for a HEKI list"),
        ErrnoMeta::new(Errno::Enomem, "as for a HEKI list"),
    ];

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        match *registers {
            [0, 0] => Ok(None),
            [0, ranges] => Err(VsmError::InvalidParameter { name: "number of ranges of no list", value: ranges }),
            _ => HekiList::from_registers(platform, registers).map(Some),
        }
    }
}

/// Checks the address of a list page.
fn list_page(platform: &Platform, raw: u64) -> Result<PhysAddr, VsmError> {
    let page = PhysAddr::new_aligned(raw)?;
    refuse_vtl1(platform, page, PAGE_SIZE)?;
    Ok(page)
}

/// A range that has been copied out of VTL0 and checked: canonical, within 2^52, ascending, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedRange {
    range: HekiRange,
}

impl CheckedRange {
    /// Checks a range that has been copied into VTL1.
    ///
    /// # Errors
    /// [`VsmError::InvalidVirtualAddress`], [`VsmError::InvalidRange`].
    pub fn new(range: HekiRange) -> Result<Self, VsmError> {
        let invalid = |rule| VsmError::InvalidRange { start: range.pa, end: range.epa, rule };
        if !is_canonical(range.va) {
            return Err(VsmError::InvalidVirtualAddress(range.va));
        }
        if range.pa >> PHYS_ADDR_BITS != 0 || range.epa >> PHYS_ADDR_BITS != 0 {
            return Err(invalid("must lie below 2^52"));
        }
        if range.pa >= range.epa {
            return Err(invalid("must end after it starts"));
        }
        Ok(Self { range })
    }

    /// VTL0's virtual address of the first byte; see [`HekiRange::va`] for what it is good for.
    #[must_use]
    pub fn va(&self) -> u64 {
        self.range.va
    }

    /// Physical address of the first byte.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.range.pa
    }

    /// Physical address of the first byte after the range.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.range.epa
    }

    /// Size in bytes; at least 1.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.range.epa - self.range.pa
    }

    /// The attribute word; its meaning is the call's.
    #[must_use]
    pub fn attributes(&self) -> u64 {
        self.range.attributes
    }

    /// The attribute word as memory attributes.
    ///
    /// # Errors
    /// [`VsmError::InvalidAttributes`].
    pub fn memory_attributes(&self) -> Result<MemAttr, VsmError> {
        MemAttr::from_raw(self.range.attributes)
    }

    /// The frames, for a call that wants whole pages.
    ///
    /// # Errors
    /// [`VsmError::NotPageAligned`] when any of the three addresses is not page-aligned.
    pub fn frames(&self) -> Result<FrameRange, VsmError> {
        if !self.range.va.is_multiple_of(PAGE_SIZE) {
            return Err(VsmError::NotPageAligned(self.range.va));
        }
        Ok(FrameRange::from_bytes(self.range.pa, self.range.epa)?)
    }
}

/// The ranges of a list, in its order. After an error it yields nothing more.
pub struct Walk<'a> {
    platform: &'a Platform,
    page: HekiPage,
    /// Where `page` was copied from.
    at: PhysAddr,
    next: Option<PhysAddr>,
    /// Ranges in `page`, and how many of them have been yielded.
    used: usize,
    index: usize,
    /// Ranges of the list that have not been yielded.
    remaining: u64,
    /// The pages so far, so that none is fetched twice.
    fetched: FetchOnce<'a>,
}

impl Walk<'_> {
    /// Where the page lies that the last range came from.
    #[must_use]
    pub fn page(&self) -> PhysAddr {
        self.at
    }

    fn invalid(&self, rule: &'static str) -> VsmError {
        VsmError::InvalidList { page: self.at, rule }
    }

    /// Copies the next page and checks everything but its ranges.
    fn load(&mut self) -> Result<(), VsmError> {
        self.at =
            self.next.take().ok_or_else(|| self.invalid("the chain ends before the announced number of ranges"))?;
        match self.fetched.fetch(self.at, self.page.as_mut_bytes()) {
            // Nothing but pages of the list has been fetched through this.
            Err(VsmError::InvalidRange { .. }) => return Err(self.invalid("the chain of pages has a cycle")),
            fetched => fetched?,
        }
        if self.fetched.places() > MAX_PLACES {
            return Err(self.invalid("the pages must not lie in more than 2^16 places"));
        }
        let used = self.page.nranges;
        if used == 0 {
            return Err(self.invalid("a page must have at least one range"));
        }
        self.used = usize::try_from(used)
            .ok()
            .filter(|used| *used <= RANGES_PER_PAGE)
            .ok_or_else(|| self.invalid("a page has room for 127 ranges"))?;
        self.index = 0;
        if used > self.remaining {
            return Err(self.invalid("the pages have more ranges than announced"));
        }
        let last = used == self.remaining;
        match (self.page.next_pa, last) {
            (0, _) => Ok(()),
            (_, true) => Err(self.invalid("the chain goes on after the announced number of ranges")),
            (raw, false) => {
                self.next = Some(list_page(self.platform, raw)?);
                Ok(())
            }
        }
    }

    fn advance(&mut self) -> Result<Option<CheckedRange>, VsmError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        if self.index >= self.used {
            self.load()?;
        }
        let range = self.page.ranges.get(self.index).copied();
        let range = range.ok_or_else(|| self.invalid("a page has room for 127 ranges"))?;
        self.index += 1;
        self.remaining -= 1;
        CheckedRange::new(range).map(Some)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<CheckedRange, VsmError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            self.remaining = 0;
        }
        item
    }
}
