//! The log ring's place in VTL1's address space.
//!
//! The one piece of VTL0's memory that stays mapped: VTL1 writes its log there and never reads it. The addresses are
//! used for one mapping in the image's life, so that no processor can have a stale translation of another frame.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::structures::paging::PageTableFlags as Flags;

use super::exceptions::copy_fallible;
use super::layout::{LOG_RING, LOG_RING_SIZE};
use super::paging::{self, Pte};
use super::vtl0_memory;
use crate::address::{FrameRange, Gfn, PAGE_SIZE};
use crate::error::VsmError;
use crate::logging::RingMemory;

/// Size of a page, in bytes.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);
/// What one last-level table maps, in bytes (Intel SDM vol. 3 §4.5).
const TABLE_REACH: u64 = 512 * PAGE_SIZE;
/// Last-level tables of the largest ring.
const TABLES: usize = (LOG_RING_SIZE / TABLE_REACH) as usize;
const _: () = assert!(LOG_RING.is_multiple_of(TABLE_REACH) && LOG_RING_SIZE.is_multiple_of(TABLE_REACH));

const ENTRY: Flags =
    Flags::PRESENT.union(Flags::WRITABLE).union(Flags::NO_EXECUTE).union(Flags::ACCESSED).union(Flags::DIRTY);

/// Whether the addresses have been used.
static USED: AtomicBool = AtomicBool::new(false);
/// Bytes mapped.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// The mapping. Has no fields, so that a box of it takes no memory that could be missing.
struct Mapping(());

/// Maps VTL0's `frames` at [`LOG_RING`].
///
/// # Errors
/// [`VsmError::OutOfMemory`] for page tables, for more than [`LOG_RING_SIZE`] bytes, and when the addresses have been
/// used; [`VsmError::FrameOwned`] and [`VsmError::Vtl0MemoryFault`] for frames that cannot be VTL0's.
pub fn map(frames: FrameRange) -> Result<Box<dyn RingMemory>, VsmError> {
    const NO_ADDRESSES: VsmError = VsmError::OutOfMemory("the log ring's addresses");
    for gfn in [frames.start(), frames.end() - 1] {
        vtl0_memory::check_frame(Gfn::new(gfn)?.start()).map_err(|fault| VsmError::Vtl0MemoryFault(fault.0))?;
    }
    let pages = usize::try_from(frames.count()).map_err(|_| NO_ADDRESSES)?;
    let size = pages.checked_mul(PAGE).filter(|size| *size as u64 <= LOG_RING_SIZE).ok_or(NO_ADDRESSES)?;
    // Everything that can fail comes before the first entry is written.
    let mut tables = [core::ptr::null_mut::<Pte>(); TABLES];
    for (index, table) in (0..).zip(tables.iter_mut().take(pages.div_ceil(512))) {
        *table = paging::entry_of(LOG_RING + index * TABLE_REACH)?;
    }
    if USED.swap(true, Ordering::AcqRel) {
        return Err(NO_ADDRESSES);
    }
    SIZE.store(size, Ordering::Release);
    let frames = (frames.start()..frames.end()).map(|gfn| gfn * PAGE_SIZE);
    for (frame, (table, index)) in frames.zip(entries(&tables)) {
        // SAFETY: `entry_of` gave the first of the 512 entries of a table that maps the ring's addresses only, which
        // are aligned to the table's reach; the claim above makes this the only use of them. Not present before.
        unsafe { table.add(index).write_volatile(frame | ENTRY.bits()) };
    }
    Ok(Box::new(Mapping(())))
}

/// Table and index of each page, ascending.
fn entries(tables: &[*mut Pte]) -> impl Iterator<Item = (*mut Pte, usize)> {
    tables.iter().flat_map(|table| (0..512).map(move |index| (*table, index)))
}

impl RingMemory for Mapping {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= SIZE.load(Ordering::Relaxed));
        debug_assert!(fits, "a write beyond the ring");
        if fits {
            // SAFETY: the ring's addresses, within what is mapped there; no Rust value of ours lives in it. Memory that
            // has gone away stops the copy, and the line is lost.
            let _ = unsafe { copy_fallible((LOG_RING + offset as u64) as *mut u8, bytes.as_ptr(), bytes.len()) };
        }
    }

    fn publish(&mut self, offset: usize, byte: u8) {
        // String moves may store out of order among themselves (Intel SDM vol. 3 §8.2.4); this is one byte behind all.
        fence(Ordering::SeqCst);
        self.write(offset, &[byte]);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let size = SIZE.swap(0, Ordering::AcqRel) as u64;
        for va in (LOG_RING..LOG_RING + size).step_by(PAGE) {
            // The tables exist, so that this allocates nothing; and the addresses are not used again.
            paging::unmap_page(va);
            tlb::flush(VirtAddr::new_truncate(va));
        }
    }
}
