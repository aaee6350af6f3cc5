//! Where VTL0 keeps what it sends, and which frames it names at random, in the machines that are put under stress.
//!
//! All processors write everywhere: the places only make it likely that something meaningful comes about.

use std::ops::Range;

use super::input::Input;
use crate::vtl0::memory_map::{KERNEL_END, KERNEL_START, LEGACY_HOLE, MemoryMap, SCRATCH_START};

/// Frames of each processor for lists and buffers.
pub const BUFFER_FRAMES: u64 = 0x30;
/// Frames that a module is placed in.
pub const MODULE_FRAMES: u64 = 0x20;
/// Places for modules.
pub const MODULE_PLACES: u64 = 4;
/// Frames that a kexec image is put together in.
pub const KEXEC_FRAMES: u64 = 0x20;
/// Places for that.
pub const KEXEC_PLACES: u64 = 2;
/// Frames that a kexec image runs in.
pub const IMAGE_FRAMES: u64 = 0x20;
/// The most processors there are buffers for.
pub const MAX_VPS: u32 = 16;

/// The places, as frame numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First frame behind RAM.
    pub ram_end: u64,
    /// VTL1's frames.
    pub vtl1: Range<u64>,
    /// Frames below its end that are no RAM.
    pub hole: Range<u64>,
    /// What VTL0 cannot do without: its code and tables, on a machine that executes them.
    pub own: Range<u64>,
    /// The frames that random ranges start in.
    pub playground: Range<u64>,
    /// The buffers of all processors.
    pub all_buffers: Range<u64>,
    /// Those of one processor start here.
    pub buffers: u64,
    /// The first place for a module.
    pub modules: u64,
    /// The first place for a kexec image.
    pub kexec: u64,
    /// Where such an image runs; behind it the one for a crash.
    pub image: u64,
    /// A frame of one processor's own with harmless code, for it to store into and to jump to.
    pub target: u64,
}

impl Layout {
    /// The machine of the fuzz targets: 4 MiB, of which any frame may be named.
    pub const FUZZ: Self = Self {
        ram_end: 0x400,
        vtl1: 0x200..0x240,
        hole: 0x1d0..0x1d8,
        own: 0..0,
        playground: 0..0x420,
        all_buffers: 0x10..0x40,
        buffers: 0x10,
        modules: 0x100,
        kexec: 0x180,
        image: 0x300,
        target: 0x1ff,
    };

    /// The hosted machine under stress, for its first processor.
    #[must_use]
    pub fn hosted() -> Self {
        Self { hole: 0x488..0x490, ..Self::from(0x10, 0x440, 0x400..0x480, 0x4a0, 0x500, 0..0) }
    }

    /// A real machine with this memory, for its first processor: VTL0's own code and tables are left alone.
    #[must_use]
    pub fn machine(map: &MemoryMap) -> Self {
        let first = SCRATCH_START >> 12;
        let (vtl1, own) = (map.region_start >> 12..map.region_end() >> 12, KERNEL_START >> 12..KERNEL_END >> 12);
        Self::from(first, first + 0x400, vtl1, first + 0x500, map.end_of_ram() >> 12, own)
    }

    fn from(first: u64, playground_end: u64, vtl1: Range<u64>, image: u64, ram_end: u64, own: Range<u64>) -> Self {
        let modules = first + BUFFER_FRAMES * u64::from(MAX_VPS);
        let kexec = modules + MODULE_FRAMES * MODULE_PLACES;
        Self {
            ram_end,
            vtl1,
            hole: LEGACY_HOLE.start >> 12..LEGACY_HOLE.end >> 12,
            own,
            playground: first..playground_end,
            all_buffers: first..modules,
            buffers: first,
            modules,
            kexec,
            image,
            target: kexec + KEXEC_FRAMES * KEXEC_PLACES,
        }
    }

    /// The same for processor `vp` of those that share the machine.
    #[must_use]
    pub fn for_vp(&self, vp: u32) -> Self {
        let vp = u64::from(vp % MAX_VPS);
        Self { buffers: self.buffers + BUFFER_FRAMES * vp, target: self.target + vp, ..self.clone() }
    }

    /// Whether VTL0 would take its own ground away if these bytes were no longer its.
    #[must_use]
    pub fn needs(&self, start: u64, bytes: u64) -> bool {
        start < self.own.end << 12 && start.saturating_add(bytes) > self.own.start << 12
    }

    /// A frame out of two bytes of the input.
    pub fn frame(&self, input: &mut Input<'_>) -> u64 {
        self.playground.start + input.short() % (self.playground.end - self.playground.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_apart() {
        for layout in [Layout::hosted(), Layout::machine(&MemoryMap::new(128 << 20, None, 80 << 20).unwrap())] {
            let (first, last) = (layout.for_vp(0), layout.for_vp(MAX_VPS - 1));
            assert!(first.buffers + BUFFER_FRAMES == layout.for_vp(1).buffers && last.buffers < first.modules);
            assert_eq!(layout.all_buffers.end, last.buffers + BUFFER_FRAMES);
            assert!(first.modules + MODULE_FRAMES * MODULE_PLACES <= first.kexec);
            assert!(first.kexec + KEXEC_FRAMES * KEXEC_PLACES <= first.target);
            let images = first.image..first.image + 2 * IMAGE_FRAMES;
            assert!(images.start > last.target + 0x20 && images.end <= layout.ram_end);
            assert!(images.end <= layout.vtl1.start || layout.vtl1.end <= images.start);
            assert!(layout.own.end <= first.buffers && !layout.needs(first.buffers << 12, u64::MAX));
            assert!(layout.own.is_empty() || layout.needs(0, (layout.own.start << 12) + 1));
            assert!(last.target < layout.vtl1.start && layout.vtl1.end <= layout.ram_end);
        }
    }
}
