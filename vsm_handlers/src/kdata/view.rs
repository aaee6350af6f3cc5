//! The kernel data as virtual memory: what VTL0 named by ranges, read by address.
//!
//! Only what is asked for is fetched, and no byte twice; the object as a whole, several megabytes, is never held.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::FetchOnce;
use litebox_platform_lvbs::address::PhysAddr;
use vsm_integrity::ksymtab::VirtualMemory;

use super::objects::Kind;
use crate::objects::{Named, ObjectKind, Objects, virtual_end};

/// The view.
pub(super) struct View<'v, 'p> {
    /// By virtual address, without overlaps.
    ranges: &'v [Named<Kind>],
    memory: &'v mut FetchOnce<'p>,
}

impl<'v, 'p> View<'v, 'p> {
    pub(super) fn new(objects: &'v Objects<Kind>, memory: &'v mut FetchOnce<'p>) -> Self {
        Self { ranges: objects.slice(Kind::KernelData), memory }
    }

    /// The physical address of the byte at `va`, and how many bytes of its range there are from it on.
    fn find(&self, va: u64) -> Option<(PhysAddr, u64)> {
        let after = self.ranges.partition_point(|named| named.range.va() <= va);
        let range = &self.ranges.get(after.checked_sub(1)?)?.range;
        let left = virtual_end(range)?.checked_sub(va).filter(|left| *left != 0)?;
        Some((PhysAddr::new(range.end().checked_sub(left)?).ok()?, left))
    }
}

impl VirtualMemory for View<'_, '_> {
    type Error = VsmError;

    fn available(&self, va: u64) -> u64 {
        self.find(va).map_or(0, |(pa, left)| self.memory.fresh(pa, left))
    }

    fn fetch(&mut self, va: u64, into: &mut [u8]) -> Result<(), VsmError> {
        let (mut va, mut rest) = (va, into);
        while !rest.is_empty() {
            let outside = || Kind::KernelData.refuse(va, "the export tables must be part of the kernel data");
            let (pa, left) = self.find(va).ok_or_else(outside)?;
            let bytes = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (piece, after) = rest.split_at_mut_checked(bytes).ok_or_else(outside)?;
            self.memory.fetch(pa, piece)?;
            rest = after;
            va = va.wrapping_add(bytes as u64);
        }
        Ok(())
    }
}
