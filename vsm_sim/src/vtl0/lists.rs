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

/// Writes `ranges` as a chain of list pages.
pub fn write_list(memory: &dyn GuestMemory, scratch: &mut Scratch, ranges: &[Range]) -> Result<List> {
    let pages = ranges.len().div_ceil(RANGES_PER_PAGE).max(1) as u64;
    let first = scratch.pages(pages)?;
    let mut at = first;
    for (index, chunk) in ranges.chunks(RANGES_PER_PAGE).enumerate() {
        let next = if (index as u64) + 1 < pages { at + PAGE } else { 0 };
        let mut page = [0u8; 4096];
        put(&mut page, 0, if next == 0 { 0 } else { DIRECT_MAP + next });
        put(&mut page, 8, next);
        put(&mut page, 16, chunk.len() as u64);
        for (slot, range) in chunk.iter().enumerate() {
            let offset = RANGES_OFFSET + slot * 32;
            put(&mut page, offset, range.va);
            put(&mut page, offset + 8, range.pa);
            put(&mut page, offset + 16, range.epa);
            put(&mut page, offset + 24, range.attributes);
        }
        bytes::write(memory, at, &page)?;
        at += PAGE;
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
