//! A part of a module's memory.

use alloc::vec::Vec;

use crate::address::{FrameRange, PAGE_SIZE};
use crate::owner::ModuleMemoryKind;

/// A part of a module's memory: contiguous in VTL0's virtual memory, anywhere in physical memory.
#[derive(Debug)]
pub struct MemoryContainer {
    /// What it is for.
    pub kind: ModuleMemoryKind,
    /// VTL0's virtual address of its first byte.
    pub va: u64,
    /// Its frames, in the order of virtual addresses.
    pub frames: Vec<FrameRange>,
}

impl MemoryContainer {
    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frames.iter().fold(0_u64, |sum, frames| sum.saturating_add(frames.count())).saturating_mul(PAGE_SIZE)
    }

    /// The physical address of the byte at virtual address `va`, if it is one of this part.
    #[must_use]
    pub fn physical(&self, va: u64) -> Option<u64> {
        let mut offset = va.checked_sub(self.va)?;
        for frames in &self.frames {
            let bytes = frames.count().saturating_mul(PAGE_SIZE);
            if offset < bytes {
                return frames.start().checked_mul(PAGE_SIZE)?.checked_add(offset);
            }
            offset -= bytes;
        }
        None
    }
}
