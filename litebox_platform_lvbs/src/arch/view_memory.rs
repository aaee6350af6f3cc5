//! Where VTL0's frozen memory appears in VTL1's address space: read-only mappings, one above the other.
//!
//! Views live within one call, and the frame registry's lock allows one such call at a time. So addresses are handed out
//! from the bottom up, and all are free again when the last view has gone. Other processors reuse them: each processor
//! flushes its translations of them before it uses a mapping, and after.

use alloc::boxed::Box;

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::structures::paging::PageTableFlags as Flags;

use super::heap::try_box;
use super::layout::{FROZEN_VIEWS, FROZEN_VIEWS_SIZE, virt_to_phys};
use super::paging::{self, Pte};
use super::vtl0_memory;
use crate::address::{Gfn, PAGE_SIZE};
use crate::error::VsmError;
use crate::hardware::{AlignedPage, MappedView, ViewPiece};
use crate::sync::Mutex;

/// What one last-level table maps, in bytes (Intel SDM vol. 3 §4.5).
const TABLE_REACH: u64 = 512 * PAGE_SIZE;
const _: () = assert!(FROZEN_VIEWS.is_multiple_of(TABLE_REACH) && FROZEN_VIEWS_SIZE.is_multiple_of(TABLE_REACH));
/// How many pages are flushed one by one; more are flushed by a flush of everything.
const MOST_SINGLE_FLUSHES: u64 = 64;
/// Size of a page, in bytes.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);

/// Not global, so that a write to CR3 flushes it.
const ENTRY: Flags = Flags::PRESENT.union(Flags::NO_EXECUTE).union(Flags::ACCESSED);

/// Bytes of addresses in use, from the bottom, and how many views there are.
static USED: Mutex<(u64, u64)> = Mutex::new((0, 0));

const NO_ADDRESSES: VsmError = VsmError::OutOfMemory("addresses for VTL0's frozen memory");

/// A mapping.
struct Mapping {
    /// Its first address.
    start: u64,
    /// End of the pages that are mapped.
    mapped: u64,
    /// Address of the last-level table that the last page is in; 0 before the first page.
    table: u64,
}

/// Maps `pieces`, one after another.
///
/// # Errors
/// As [`crate::hardware::Hardware::map_view`] says.
pub fn map(pieces: &[ViewPiece<'_>]) -> Result<Box<dyn MappedView>, VsmError> {
    for frames in pieces.iter().filter_map(ViewPiece::frames) {
        for gfn in [frames.start(), frames.end() - 1] {
            vtl0_memory::check_frame(Gfn::new(gfn)?.start()).map_err(|fault| VsmError::Vtl0MemoryFault(fault.0))?;
        }
    }
    let pages = pieces.iter().fold(0_u64, |sum, piece| sum.saturating_add(piece.pages()));
    let bytes = pages.checked_mul(PAGE_SIZE).filter(|bytes| *bytes <= FROZEN_VIEWS_SIZE).ok_or(NO_ADDRESSES)?;
    // Dropped on an error, it unmaps what has been mapped by then.
    let mut mapping = try_box(Mapping::claim(bytes)?)?;
    for piece in pieces {
        match piece {
            ViewPiece::Frozen(frames) => {
                for gfn in frames.start()..frames.end() {
                    mapping.push(gfn * PAGE_SIZE)?;
                }
            }
            ViewPiece::Copied(page) => {
                let page: *const AlignedPage = *page;
                mapping.push(virt_to_phys(page as u64).ok_or(NO_ADDRESSES)?)?;
            }
        }
    }
    flush(mapping.start, mapping.mapped);
    Ok(mapping)
}

impl Mapping {
    /// Takes the next `bytes` of the addresses.
    fn claim(bytes: u64) -> Result<Self, VsmError> {
        let mut used = USED.lock();
        let (bottom, views) = *used;
        let end = bottom.checked_add(bytes).filter(|end| *end <= FROZEN_VIEWS_SIZE).ok_or(NO_ADDRESSES)?;
        *used = (end, views + 1);
        let start = FROZEN_VIEWS + bottom;
        Ok(Self { start, mapped: start, table: 0 })
    }

    /// Maps the frame at `pa` behind what is mapped.
    fn push(&mut self, pa: u64) -> Result<(), VsmError> {
        let va = self.mapped;
        if self.table == 0 || va.is_multiple_of(TABLE_REACH) {
            self.table = paging::table_of(va)? as u64;
        }
        let index = usize::try_from(va % TABLE_REACH / PAGE_SIZE).map_err(|_| NO_ADDRESSES)?;
        // SAFETY: `table` is the last-level table for the 2 MiB around `va`, which lies within the addresses that this
        // mapping has claimed; no other code writes those entries, and no reference into the page exists yet.
        unsafe { (self.table as *mut Pte).add(index).write_volatile(pa | ENTRY.bits()) };
        self.mapped = va + PAGE_SIZE;
        Ok(())
    }
}

/// Flushes this processor's translations of the pages `start..end`.
fn flush(start: u64, end: u64) {
    if (end - start) / PAGE_SIZE > MOST_SINGLE_FLUSHES {
        tlb::flush_all();
    } else {
        for va in (start..end).step_by(PAGE) {
            tlb::flush(VirtAddr::new_truncate(va));
        }
    }
}

impl MappedView for Mapping {
    fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.mapped - self.start).unwrap_or_default();
        // SAFETY: the pages are mapped as long as `self` lives, and readable: each is VTL1's own, or a frame whose
        // permissions the hypervisor has changed, which it does for memory only. They do not change: VTL0 cannot write them while
        // the registry's transaction is open, which the view's owner borrows, and VTL1 has no writable mapping of them
        // but that of its own copies, which the view's owner borrows as well.
        unsafe { core::slice::from_raw_parts(self.start as *const u8, len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        for va in (self.start..self.mapped).step_by(PAGE) {
            paging::unmap_page(va);
        }
        flush(self.start, self.mapped);
        let mut used = USED.lock();
        let (top, views) = *used;
        *used = (if views <= 1 { 0 } else { top }, views.saturating_sub(1));
    }
}
