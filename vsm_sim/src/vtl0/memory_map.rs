//! Where RAM is, and where VTL0 puts what.
//!
//! The map is that of a Hyper-V generation 2 guest: RAM from 0 up to a hole for devices below 4 GiB, the rest above.
//! VTL0 reserves VTL1's region from the top of low memory, as `memblock` does (LVBS contract §2.1).

use std::ops::Range;

use anyhow::{Result, ensure};

/// A run of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamSlot {
    /// First byte.
    pub gpa: u64,
    /// Size in bytes.
    pub size: u64,
}

/// First byte of the device hole below 4 GiB.
pub const LOW_RAM_END: u64 = 0xF800_0000;
/// Video memory and ROMs of a PC, which a machine may have where other RAM would be.
pub const LEGACY_HOLE: Range<u64> = 0xa_0000..0x10_0000;
const HIGH_RAM_START: u64 = 1 << 32;
const PAGE: u64 = 4096;
/// The region is 2 MiB aligned (contract §2.1).
const REGION_ALIGN: u64 = 2 << 20;

/// VTL0's own page tables, descriptor tables, stacks and code, in the machine: from here on, 4 MiB.
pub const KERNEL_START: u64 = 0x10_0000;
/// First byte behind them.
pub const KERNEL_END: u64 = 0x50_0000;
/// VTL0's scratch memory for lists and buffers starts here.
pub const SCRATCH_START: u64 = 0x100_0000;
/// First byte behind the scratch memory: 24 MiB hold the largest list used, 2^16 pages of it would not fit.
pub const SCRATCH_END: u64 = 0x280_0000;

/// The guest's physical memory and VTL1's place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    /// Bytes of RAM in total.
    pub total: u64,
    /// First byte of VTL1's region.
    pub region_start: u64,
    /// Its size in bytes.
    pub region_size: u64,
    /// Whether the PC's hole for video memory and ROMs lies in low memory.
    has_legacy_hole: bool,
}

/// The size VTL0 reserves for VTL1 unless told otherwise: 16 MiB and 4 MiB a possible processor.
#[must_use]
pub const fn default_region_size(possible_cpus: u32) -> u64 {
    (16 << 20) + (4 << 20) * possible_cpus as u64
}

impl MemoryMap {
    /// `total` bytes of RAM with a region as VTL0 would choose it, or where the caller wants it.
    pub fn new(total: u64, region_start: Option<u64>, region_size: u64) -> Result<Self> {
        ensure!(total.is_multiple_of(PAGE), "the memory size {total:#x} is not a whole number of pages");
        ensure!(region_size.is_multiple_of(PAGE), "the region size {region_size:#x} is not a whole number of pages");
        let low_end = total.min(LOW_RAM_END);
        let start = match region_start {
            Some(start) => start,
            None => low_end.saturating_sub(region_size) / REGION_ALIGN * REGION_ALIGN,
        };
        ensure!(start.is_multiple_of(REGION_ALIGN), "the region's start {start:#x} is not 2 MiB aligned");
        let map = Self { total, region_start: start, region_size, has_legacy_hole: false };
        let end = start.checked_add(region_size);
        let inside =
            map.slots().iter().any(|slot| start >= slot.gpa && end.is_some_and(|end| end <= slot.gpa + slot.size));
        ensure!(inside, "the region {start:#x} + {region_size:#x} does not lie in RAM");
        ensure!(start >= SCRATCH_END, "the region at {start:#x} lies on VTL0's own memory, below {SCRATCH_END:#x}");
        Ok(map)
    }

    /// `total` bytes of RAM in which VTL1's region is not known beforehand.
    #[must_use]
    pub const fn without_region(total: u64) -> Self {
        Self { total, region_start: 0, region_size: 0, has_legacy_hole: false }
    }

    /// The same map without the RAM of [`LEGACY_HOLE`], whose bytes are then fewer than `total` by that much.
    #[must_use]
    pub fn with_legacy_hole(self) -> Self {
        Self { has_legacy_hole: true, ..self }
    }

    /// The runs of RAM, ascending.
    #[must_use]
    pub fn slots(&self) -> Vec<RamSlot> {
        let low_end = self.total.min(LOW_RAM_END);
        let mut slots = if self.has_legacy_hole {
            let Range { start, end } = LEGACY_HOLE;
            vec![RamSlot { gpa: 0, size: start }, RamSlot { gpa: end, size: low_end - end }]
        } else {
            vec![RamSlot { gpa: 0, size: low_end }]
        };
        if self.total > LOW_RAM_END {
            slots.push(RamSlot { gpa: HIGH_RAM_START, size: self.total - LOW_RAM_END });
        }
        slots
    }

    /// First byte behind RAM; VTL0's `max_pfn << 12`.
    #[must_use]
    pub fn end_of_ram(&self) -> u64 {
        self.slots().last().map_or(0, |slot| slot.gpa + slot.size)
    }

    /// First byte behind VTL1's region.
    #[must_use]
    pub fn region_end(&self) -> u64 {
        self.region_start + self.region_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_has_a_hole_below_4_gib() {
        let map = MemoryMap::new(8 << 30, None, default_region_size(2)).unwrap();
        assert_eq!(map.slots().iter().map(|slot| slot.size).sum::<u64>(), 8 << 30);
        assert_eq!(map.region_end(), LOW_RAM_END);
        assert_eq!(map.end_of_ram(), (8 << 30) + (4 << 30) - LOW_RAM_END);
    }

    #[test]
    fn a_pc_has_no_ram_where_its_video_memory_is() {
        let map = MemoryMap::new(1 << 30, None, default_region_size(2)).unwrap().with_legacy_hole();
        let slots = [RamSlot { gpa: 0, size: 0xa_0000 }, RamSlot { gpa: 0x10_0000, size: (1 << 30) - 0x10_0000 }];
        assert_eq!(map.slots(), slots);
        assert_eq!(map.end_of_ram(), 1 << 30);
    }

    #[test]
    fn a_region_outside_of_ram_is_refused() {
        for start in [LOW_RAM_END - (16 << 20), 1 << 40, 0, 0x800_1000] {
            assert!(MemoryMap::new(4 << 30, Some(start), 24 << 20).is_err(), "{start:#x}");
        }
    }
}
