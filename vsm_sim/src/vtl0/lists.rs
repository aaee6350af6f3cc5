//! What VTL0's HEKI driver hands over: lists of ranges, CPU masks (LVBS contract §4, §5.1).

use anyhow::{Result, ensure};

use super::bytes;
use super::memory_map::{SCRATCH_END, SCRATCH_START};
use crate::hv::GuestMemory;

const PAGE: u64 = 4096;
const RANGES_PER_PAGE: usize = 127;
const RANGES_OFFSET: usize = 24;
/// Linux's direct map of physical memory without KASLR (Documentation/arch/x86/x86_64/mm.rst).
pub const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;

/// One range of a list, as VTL0 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// VTL0's virtual address.
    pub va: u64,
    /// First physical byte.
    pub pa: u64,
    /// First physical byte behind it.
    pub epa: u64,
    /// Permission, or kind, depending on the call.
    pub attributes: u64,
}

impl Range {
    /// A range in Linux's direct map.
    #[must_use]
    pub const fn direct(pa: u64, epa: u64, attributes: u64) -> Self {
        Self { va: DIRECT_MAP + pa, pa, epa, attributes }
    }
}

/// A list in VTL0's memory: the two parameters of the calls that take one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Physical address of the first page.
    pub pa: u64,
    /// Ranges in the whole chain.
    pub nranges: u64,
}

/// Pages of VTL0's scratch memory, handed out one after the other.
#[derive(Debug)]
pub struct Scratch {
    next: u64,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { next: SCRATCH_START }
    }
}

impl Scratch {
    /// `count` fresh pages.
    pub fn pages(&mut self, count: u64) -> Result<u64> {
        let at = self.next;
        ensure!(at + count * PAGE <= SCRATCH_END, "VTL0's scratch memory is used up");
        self.next += count * PAGE;
        Ok(at)
    }

    /// Gives all pages back.
    pub fn reset(&mut self) {
        self.next = SCRATCH_START;
    }
}

/// How many ranges the pages of a list hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// As many as Linux's `heki_add_range` puts there, which looks for room in the first page of the chain only: behind the
    /// first 127 ranges each page holds one (LVBS contract §11.2).
    Driver,
    /// As many as have room.
    Full,
}

/// The pages of a list of `ranges`, which will lie one behind the other from `first` on.
#[must_use]
pub fn list_pages(first: u64, ranges: &[Range], filling: Filling) -> Vec<[u8; 4096]> {
    let (start, rest) = ranges.split_at(ranges.len().min(RANGES_PER_PAGE));
    let each = if filling == Filling::Driver { 1 } else { RANGES_PER_PAGE };
    let count = 1 + rest.len().div_ceil(each);
    let page = |(at, chunk): (u64, &[Range])| {
        let next = if at == first + (count as u64 - 1) * PAGE { 0 } else { at + PAGE };
        let mut page = [0; 4096];
        put(&mut page, 0, if next == 0 { 0 } else { DIRECT_MAP + next });
        put(&mut page, 8, next);
        put(&mut page, 16, chunk.len() as u64);
        for (offset, range) in (RANGES_OFFSET..).step_by(32).zip(chunk) {
            put(&mut page, offset, range.va);
            put(&mut page, offset + 8, range.pa);
            put(&mut page, offset + 16, range.epa);
            put(&mut page, offset + 24, range.attributes);
        }
        page
    };
    let chunks = std::iter::once(start).chain(rest.chunks(each));
    (first..).step_by(4096).zip(chunks).map(page).collect()
}

/// Writes `ranges` as the driver's chain of list pages.
pub fn write_list(memory: &dyn GuestMemory, scratch: &mut Scratch, ranges: &[Range]) -> Result<List> {
    write_list_filled(memory, scratch, ranges, Filling::Driver)
}

/// Writes `ranges` as a chain of list pages.
pub fn write_list_filled(
    memory: &dyn GuestMemory,
    scratch: &mut Scratch,
    ranges: &[Range],
    filling: Filling,
) -> Result<List> {
    // Where they lie is known only when it is known how many there are.
    let count = list_pages(0, ranges, filling).len() as u64;
    let first = scratch.pages(count)?;
    for (at, page) in (first..).step_by(4096).zip(list_pages(first, ranges, filling)) {
        bytes::write(memory, at, &page)?;
    }
    Ok(List { pa: first, nranges: ranges.len() as u64 })
}

/// Writes a `struct cpumask` page with the bits of `cpus`; its frame number.
pub fn write_cpu_mask(memory: &dyn GuestMemory, scratch: &mut Scratch, cpus: impl Iterator<Item = u32>) -> Result<u64> {
    let at = scratch.pages(1)?;
    let mut page = [0u8; 4096];
    for cpu in cpus {
        let byte = page.get_mut(cpu as usize / 8).ok_or_else(|| anyhow::anyhow!("CPU {cpu} does not fit the mask"))?;
        *byte |= 1 << (cpu % 8);
    }
    bytes::write(memory, at, &page)?;
    Ok(at / PAGE)
}

fn put(page: &mut [u8; 4096], at: usize, value: u64) {
    page[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(page: &[u8; 4096], at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_driver_puts_127_ranges_into_the_first_page_and_one_into_each_other() {
        let ranges: Vec<Range> =
            (0..8748).map(|index| Range::direct(index * 0x2000, index * 0x2000 + 0x1000, 3)).collect();
        let pages = list_pages(0x10_0000, &ranges, Filling::Driver);
        // As a real kernel was seen to send them.
        assert_eq!(pages.len(), 8622);
        assert!(pages.iter().map(|page| word(page, 16)).eq(std::iter::once(127).chain(std::iter::repeat_n(1, 8621))));
        let mut at = 0x10_0000;
        let mut read = Vec::new();
        for page in &pages {
            let slots = (24..).step_by(32).take(usize::try_from(word(page, 16)).unwrap());
            read.extend(slots.map(|slot| word(page, slot + 8)));
            at += PAGE;
            let is_last = read.len() == ranges.len();
            assert_eq!(word(page, 8), if is_last { 0 } else { at });
        }
        assert_eq!(read, ranges.iter().map(|range| range.pa).collect::<Vec<_>>());
        for (count, driver, full) in [(1, 1, 1), (127, 1, 1), (128, 2, 2), (200, 74, 2), (8748, 8622, 69)] {
            let lengths =
                [Filling::Driver, Filling::Full].map(|filling| list_pages(0, &ranges[..count], filling).len());
            assert_eq!(lengths, [driver, full], "{count} ranges");
        }
    }
}
