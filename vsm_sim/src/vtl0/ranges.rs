//! The protections a real machine's VTL0 asks for at boot.
//!
//! HEKI walks the direct map and sends one range for each run of pages with the same permission (LVBS contract §5.4):
//! all of RAM, VTL1's own region included. Most of it is one long run; the many ranges come from places where
//! permissions alternate: kernel text and read-only data, modules' memory, BPF and trampolines, pages whose direct-map
//! alias was made read-only. How many there are is a parameter; where they lie is drawn from a seeded generator.

use super::lists::Range;
use super::memory_map::{KERNEL_END, KERNEL_START, MemoryMap, SCRATCH_END, SCRATCH_START};
use crate::random::SplitMix;

/// MEM_ATTR_READ | MEM_ATTR_WRITE.
pub const READ_WRITE: u64 = 3;
/// MEM_ATTR_READ.
pub const READ_ONLY: u64 = 1;
/// MEM_ATTR_READ | MEM_ATTR_EXEC.
pub const READ_EXECUTE: u64 = 5;

const PAGE: u64 = 4096;
/// Where the scattered pages may lie: behind everything VTL0 itself needs writable.
const SCATTER_START: u64 = SCRATCH_END;

/// Ranges that cover all of RAM in ascending order. VTL0's kernel page range is executable, and about `scattered`
/// single read-only pages are spread over the rest, which makes about twice as many ranges.
#[must_use]
pub fn boot_ranges(map: &MemoryMap, scattered: u64, seed: u64) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut random = SplitMix(seed);
    for slot in map.slots() {
        let end = slot.gpa + slot.size;
        let mut at = slot.gpa;
        if at == 0 {
            ranges.push(Range::direct(0, KERNEL_START, READ_WRITE));
            // The machine's VTL0 keeps code and data on separate pages from the middle on (see `machine::guest`).
            ranges.push(Range::direct(KERNEL_START, CODE_START, READ_WRITE));
            ranges.push(Range::direct(CODE_START, KERNEL_END, READ_EXECUTE));
            ranges.push(Range::direct(KERNEL_END, SCRATCH_START, READ_WRITE));
            ranges.push(Range::direct(SCRATCH_START, SCATTER_START, READ_WRITE));
            at = SCATTER_START;
        }
        let here = scattered * slot.size / map.total;
        let step = ((end - at) / PAGE / here.max(1)).max(3);
        while here > 0 && end - at > (step + 2) * PAGE {
            // One read-only page somewhere in each step, never the first, so that it splits the run.
            let before = 1 + random.next() % (step - 2);
            ranges.push(Range::direct(at, at + before * PAGE, READ_WRITE));
            at += before * PAGE;
            ranges.push(Range::direct(at, at + PAGE, READ_ONLY));
            at += PAGE;
            ranges.push(Range::direct(at, at + (step - before - 1) * PAGE, READ_WRITE));
            at += (step - before - 1) * PAGE;
        }
        if at < end {
            ranges.push(Range::direct(at, end, READ_WRITE));
        }
    }
    merge(&ranges)
}

/// First byte of VTL0's code; its data lies before it.
pub const CODE_START: u64 = 0x20_0000;

/// What the producer does: neighbours with the same attributes become one range.
fn merge(ranges: &[Range]) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.epa == range.pa && last.attributes == range.attributes => last.epa = range.epa,
            _ => merged.push(*range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vtl0::memory_map::default_region_size;

    #[test]
    fn ranges_cover_ram_once_and_include_the_region() {
        let map = MemoryMap::new(8 << 30, None, default_region_size(2)).unwrap();
        let ranges = boot_ranges(&map, 20_000, 1);
        assert!(ranges.len() > 39_000, "{}", ranges.len());
        let mut at = 0;
        for range in &ranges {
            assert!(range.pa < range.epa);
            assert!(
                range.pa == at || map.slots().iter().any(|slot| slot.gpa == range.pa),
                "a gap before {:#x}",
                range.pa
            );
            at = range.epa;
        }
        let pages: u64 = ranges.iter().map(|range| (range.epa - range.pa) / PAGE).sum();
        assert_eq!(pages, map.total / PAGE);
        assert!(ranges.iter().any(|range| range.pa < map.region_end() && range.epa > map.region_start));
    }
}
