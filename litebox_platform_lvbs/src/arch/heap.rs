//! VTL1's heap: the region's memory that the image does not occupy.
//!
//! Allocation can fail, and callers that act for VTL0 must ask with `try_reserve`; an infallible allocation that
//! fails ends in VTL1's panic. The RSA crate makes such allocations: the last [`RESERVE`] bytes are for the one processor
//! that checks a signature and for no other, however VTL0 has filled the heap.

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU32, Ordering};

use talc::{ErrOnOom, Span, Talc, Talck};

use super::vp::VpState;
use crate::error::VsmError;
use crate::hardware::HeapReserve;
use crate::sync::Mutex;

/// Bytes that only the processor with the reserve may allocate; a check with RSA-4096 takes 23 KiB.
const RESERVE: usize = 96 << 10;
/// The holder when no processor has the reserve.
const NO_PROCESSOR: u32 = u32::MAX;

#[global_allocator]
static HEAP: Heap = Heap(Talc::new(ErrOnOom).lock());
/// Index of the processor with the reserve.
static RESERVE_OF: AtomicU32 = AtomicU32::new(NO_PROCESSOR);

/// The allocator, which keeps a reserve.
struct Heap(Talck<Mutex<()>, ErrOnOom>);

// SAFETY: every request is handed on unchanged, or refused, as an allocator may.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let holder = RESERVE_OF.load(Ordering::Relaxed);
        // A processor has its state, and so an index, long before the first one holds the reserve.
        if holder == NO_PROCESSOR || VpState::current().index != holder {
            let left = self.0.lock().get_counters().available_bytes;
            if left.saturating_sub(RESERVE) < layout.size() {
                return core::ptr::null_mut();
            }
        }
        // SAFETY: the caller's promises about `layout` are those the allocator asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: what the caller gives back came from `alloc` above, with this layout.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

/// Lets the calling processor use the reserve until the guard is dropped. The caller makes sure that one at a time does.
pub fn reserve() -> HeapReserve {
    RESERVE_OF.store(VpState::current().index, Ordering::Relaxed);
    HeapReserve::new(|| RESERVE_OF.store(NO_PROCESSOR, Ordering::Relaxed))
}

/// How much of the reserve the heap has and uses.
#[derive(Clone, Copy, Debug)]
pub struct HeapUsage {
    /// Bytes handed to the heap at boot.
    pub size: usize,
    /// Bytes in use, the allocator's own included.
    pub used: usize,
}

/// Gives the bytes `start..end` of the linear map to the heap. Does nothing with less than a page.
///
/// # Safety
/// The span is mapped and writable, belongs to VTL1's region, and from now on only the heap uses it.
pub unsafe fn add_span(start: u64, end: u64) {
    if end.saturating_sub(start) < crate::address::PAGE_SIZE {
        return;
    }
    // SAFETY: the caller's promise is the allocator's condition.
    let claimed = unsafe { HEAP.0.lock().claim(Span::new(start as *mut u8, end as *mut u8)) };
    debug_assert!(claimed.is_ok(), "a span of a page or more can be claimed");
}

/// [`Box::new`] that can fail.
///
/// # Errors
/// [`VsmError::OutOfMemory`].
pub fn try_box<T>(value: T) -> Result<Box<T>, VsmError> {
    const { assert!(size_of::<T>() != 0) };
    let layout = Layout::new::<T>();
    // SAFETY: the layout has a size.
    let place = unsafe { alloc::alloc::alloc(layout) }.cast::<T>();
    if place.is_null() {
        return Err(VsmError::OutOfMemory("a box"));
    }
    // SAFETY: fresh memory of T's layout, from the allocator that a box gives it back to.
    unsafe {
        place.write(value);
        Ok(Box::from_raw(place))
    }
}

/// The heap's current size and use.
#[must_use]
pub fn usage() -> HeapUsage {
    let talc = HEAP.0.lock();
    let counters = talc.get_counters();
    HeapUsage { size: counters.claimed_bytes, used: counters.claimed_bytes - counters.available_bytes }
}
