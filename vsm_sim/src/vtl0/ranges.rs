//! The protections that VTL0 asks for at boot: those of a real kernel, and very many.
//!
//! HEKI sends one range for each run of pages with the same permission (LVBS contract §5.4, §11.1). A real kernel has some
//! dozens of them. [`boot_ranges`] makes as many as one wants, for what must hold of any number: all of RAM, with single
//! pages drawn from a seeded generator.

use super::lists::{DIRECT_MAP, Range};
use super::memory_map::{KERNEL_END, LOW_RAM_END, MemoryMap, SCRATCH_END};
use crate::random::SplitMix;

/// MEM_ATTR_READ | MEM_ATTR_WRITE.
pub const READ_WRITE: u64 = 3;
/// MEM_ATTR_READ.
pub const READ_ONLY: u64 = 1;
/// MEM_ATTR_READ | MEM_ATTR_EXEC.
pub const READ_EXECUTE: u64 = 5;

const PAGE: u64 = 4096;

type Bytes = std::ops::Range<u64>;

/// Where the scattered pages may lie: behind everything VTL0 itself needs writable.
const SCATTER_START: u64 = SCRATCH_END;

/// Ranges that cover all of RAM in ascending order. VTL0's kernel page range is executable, and about `scattered`
/// single read-only pages are spread over the rest, which makes about twice as many ranges.
#[must_use]
pub fn boot_ranges(map: &MemoryMap, scattered: u64, seed: u64) -> Vec<Range> {
    // The hole below 1 MiB is in it, where there is one. The machine's VTL0 keeps code and data on separate pages from the
    // middle on (see `machine::guest`).
    let mut ranges = vec![
        Range::direct(0, CODE_START, READ_WRITE),
        Range::direct(CODE_START, KERNEL_END, READ_EXECUTE),
        Range::direct(KERNEL_END, SCATTER_START, READ_WRITE),
    ];
    let mut random = SplitMix(seed);
    for slot in map.slots() {
        let end = slot.gpa + slot.size;
        let mut at = slot.gpa.max(SCATTER_START);
        if at >= end {
            continue;
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

/// A real kernel, by how HEKI comes to its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// With `nokaslr`: one walk over the direct map; a frame's permission is the OR over all its mappings, so that the
    /// hypercall page is writable and executable.
    NoKaslr,
    /// With KASLR: the walk takes in the vmalloc area and vmemmap, so that frames are named again with the permission they
    /// have there, and the last one counts. The hypercall page ends executable; ioremapped frames are named too.
    Kaslr,
}

/// MEM_ATTR_READ | MEM_ATTR_WRITE | MEM_ATTR_EXEC.
pub const ALL: u64 = 7;
/// How far KASLR has moved the direct map here.
const SHIFT: u64 = 0x1234 << 30;
/// Linux's areas for vmalloc and for its array of `struct page`, without KASLR.
const VMALLOC: u64 = 0xffff_c900_0000_0000;
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
/// The page with the real-mode trampoline's code.
const REAL_MODE: u64 = 0x9_8000;
/// The kernel's read-only data, and pages that it made read-only in other places: the vDSO and the like.
const RODATA: Bytes = KERNEL_END..KERNEL_END + 0x20_0000;
const READ_ONLY_PAGES: [u64; 2] = [0x84_0000, 0x88_0000];
/// A page that is read-only in the vmalloc area alone, as a BPF program's is.
const READ_ONLY_ALIAS: u64 = 0x8c_0000;
/// The first of the pages that vmalloc has handed out one by one.
const VMALLOCED: u64 = 0x90_0000;
const VMALLOCED_PAGES: u64 = 24;
/// Frames with `struct page`s.
const STRUCT_PAGES: Bytes = 0xa0_0000..0xb0_0000;
/// ACPI's tables and registers as ioremap maps them: no RAM.
pub const IOREMAPPED: Bytes = 0xfeb0_0000..0xfeb0_2000;

/// The list of a real kernel whose hypercall page is `hypercall_page`, one of the pages of VTL0's code. It names frames that
/// are no RAM: always [`LEGACY_HOLE`](super::memory_map::LEGACY_HOLE), in a range with RAM around it.
#[must_use]
pub fn kernel_ranges(map: &MemoryMap, kernel: Kernel, hypercall_page: u64) -> Vec<Range> {
    let behind = hypercall_page + PAGE;
    let mut special = vec![
        (REAL_MODE..REAL_MODE + PAGE, READ_EXECUTE),
        (CODE_START..hypercall_page, READ_EXECUTE),
        (hypercall_page..behind, ALL),
        (behind..KERNEL_END, READ_EXECUTE),
        (RODATA, READ_ONLY),
    ];
    special.extend(READ_ONLY_PAGES.map(|page| (page..page + PAGE, READ_ONLY)));
    let base = if kernel == Kernel::Kaslr { DIRECT_MAP + SHIFT } else { DIRECT_MAP };
    let direct =
        |bytes: Bytes, attributes| Range { va: base + bytes.start, pa: bytes.start, epa: bytes.end, attributes };
    // Holes in low memory are in the direct map with the RAM around them; the hole for devices is not.
    let low_end = map.total.min(LOW_RAM_END);
    let mut ranges = Vec::new();
    let mut at = 0;
    for (bytes, attributes) in special {
        ranges.push(direct(at..bytes.start, READ_WRITE));
        at = bytes.end;
        ranges.push(direct(bytes, attributes));
    }
    ranges.push(direct(at..low_end, READ_WRITE));
    ranges.extend(
        map.slots()
            .iter()
            .filter(|slot| slot.gpa >= low_end)
            .map(|slot| direct(slot.gpa..slot.gpa + slot.size, READ_WRITE)),
    );
    ranges.retain(|range| range.pa < range.epa);
    if kernel == Kernel::Kaslr {
        // Each page of vmalloc's with a guard page behind it.
        let pages = (0..VMALLOCED_PAGES).map(|index| (VMALLOCED + 3 * PAGE * index, READ_WRITE));
        let named = [(hypercall_page, READ_EXECUTE), (READ_ONLY_ALIAS, READ_ONLY), (READ_ONLY_PAGES[0], READ_WRITE)];
        let mut va = VMALLOC + SHIFT;
        for (pa, attributes) in named.into_iter().chain(pages) {
            ranges.push(Range { va, pa, epa: pa + PAGE, attributes });
            va += 2 * PAGE;
        }
        ranges.push(Range { va, pa: IOREMAPPED.start, epa: IOREMAPPED.end, attributes: READ_WRITE });
        let va = VMEMMAP + SHIFT;
        ranges.push(Range { va, pa: STRUCT_PAGES.start, epa: STRUCT_PAGES.end, attributes: READ_WRITE });
    }
    ranges
}

/// The attributes that the byte at `pa` has in the end: of the ranges that name it, the last one's.
#[must_use]
pub fn last_attributes(ranges: &[Range], pa: u64) -> Option<u64> {
    ranges.iter().rev().find(|range| (range.pa..range.epa).contains(&pa)).map(|range| range.attributes)
}

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
    use crate::vtl0::memory_map::{LEGACY_HOLE, SCRATCH_START, default_region_size};

    const HYPERCALL_PAGE: u64 = CODE_START + PAGE;

    fn kernel(total: u64, kernel: Kernel) -> (MemoryMap, Vec<Range>) {
        let map = MemoryMap::new(total, None, default_region_size(2)).unwrap().with_legacy_hole();
        (map, kernel_ranges(&map, kernel, HYPERCALL_PAGE))
    }

    fn named(ranges: &[Range], pa: u64) -> Vec<u64> {
        ranges.iter().filter(|range| (range.pa..range.epa).contains(&pa)).map(|range| range.attributes).collect()
    }

    #[test]
    fn a_kernel_without_kaslr_names_everything_once_and_what_is_no_ram_too() {
        let (map, ranges) = kernel(1 << 30, Kernel::NoKaslr);
        // As a real one was seen to send for 1 GiB (LVBS contract §11.1).
        assert_eq!(ranges.len(), 12);
        assert!(ranges.is_sorted_by(|one, next| one.epa == next.pa));
        assert_eq!((ranges[0].pa, ranges[11].epa), (0, 1 << 30));
        let hole = ranges.iter().find(|range| range.pa <= LEGACY_HOLE.start && range.epa >= LEGACY_HOLE.end).unwrap();
        let is_ram = |pa: u64| map.slots().iter().any(|slot| pa >= slot.gpa && pa - slot.gpa < slot.size);
        assert!(is_ram(hole.pa) && is_ram(hole.epa - 1) && !is_ram(LEGACY_HOLE.start));
        let open: Vec<_> = ranges.iter().filter(|range| range.attributes == ALL).map(|range| range.pa).collect();
        assert_eq!(open, [HYPERCALL_PAGE]);
        assert!(ranges.iter().any(|range| range.pa < map.region_start && range.epa >= map.region_end()));
    }

    #[test]
    fn with_kaslr_frames_are_named_again_and_the_last_one_counts() {
        let (map, ranges) = kernel(1 << 30, Kernel::Kaslr);
        assert!((37..=50).contains(&ranges.len()), "{}", ranges.len());
        assert_eq!(named(&ranges, HYPERCALL_PAGE), [ALL, READ_EXECUTE]);
        assert_eq!(last_attributes(&ranges, HYPERCALL_PAGE), Some(READ_EXECUTE));
        assert_eq!(named(&ranges, READ_ONLY_ALIAS), [READ_WRITE, READ_ONLY]);
        assert_eq!(named(&ranges, READ_ONLY_PAGES[0]), [READ_ONLY, READ_WRITE]);
        assert_eq!(named(&ranges, READ_ONLY_PAGES[1]), [READ_ONLY]);
        assert_eq!(named(&ranges, STRUCT_PAGES.start), [READ_WRITE; 2]);
        assert_eq!(named(&ranges, IOREMAPPED.start), [READ_WRITE]);
        assert!(map.slots().iter().all(|slot| slot.gpa + slot.size <= IOREMAPPED.start));
        assert_eq!(last_attributes(&ranges, 1 << 40), None);
        // No frame that VTL0's script needs, its scratch memory among them, is read-only in the end.
        assert!((SCRATCH_START..SCRATCH_END).step_by(4096).all(|pa| last_attributes(&ranges, pa) == Some(READ_WRITE)));
    }

    #[test]
    fn memory_above_4_gib_is_a_range_of_its_own_and_the_hole_for_devices_is_none() {
        let (map, ranges) = kernel(8 << 30, Kernel::NoKaslr);
        assert_eq!(ranges.len(), 13);
        assert_eq!((ranges[12].pa, ranges[12].epa), (1 << 32, map.end_of_ram()));
        assert_eq!(ranges[11].epa, LOW_RAM_END);
    }

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
        // A hole is named like a part of RAM, as the driver does.
        let with_hole = boot_ranges(&map.with_legacy_hole(), 20_000, 1);
        let (first, last) = (with_hole[0], with_hole[with_hole.len() - 1]);
        assert!(first.epa > LEGACY_HOLE.end && (first.pa, last.epa) == (0, map.end_of_ram()));
    }
}
