//! VTL1's heap: the region's memory that the image does not occupy.
//!
//! Allocation can fail, and callers that act for VTL0 must ask with `try_reserve`; an infallible allocation that
//! fails ends in VTL1's panic. The RSA crate makes such allocations: for them there is a reserve, see
//! [`crate::reserved_heap`].

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};

use super::vp::VpState;
use crate::address::PAGE_SIZE;
use crate::error::VsmError;
use crate::hardware::HeapReserve;
use crate::reserved_heap::{HeapUsage, ReservedHeap};
use crate::sync::Mutex;

/// Bytes that only the processor with the reserve may allocate; a check with RSA-4096 takes 23 KiB.
const RESERVE: u64 = 96 << 10;

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(ReservedHeap::new()));

/// The allocator behind its lock.
struct Heap(Mutex<ReservedHeap>);

// SAFETY: every request is handed on unchanged, under the lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A processor has its state, and so an index, long before the first one holds the reserve.
        // SAFETY: the caller's promises about `layout` are those the heap asks for.
        unsafe { self.0.lock().allocate(layout, || VpState::current().index) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: what the caller gives back came from `alloc` above, with this layout.
        unsafe { self.0.lock().free(pointer, layout) }
    }
}

/// Lets the calling processor use the reserve until the guard is dropped. The caller makes sure that one at a time does.
pub fn reserve() -> HeapReserve {
    HEAP.0.lock().hold(VpState::current().index);
    HeapReserve::new(|| HEAP.0.lock().give_back())
}

/// Gives the bytes `start..end` of the linear map to the heap; the first span that is large enough holds the reserve. Does
/// nothing with less than a page.
///
/// # Safety
/// The span is mapped and writable, belongs to VTL1's region, and from now on only the heap uses it.
pub unsafe fn add_span(start: u64, end: u64) {
    let size = end.saturating_sub(start);
    if size < PAGE_SIZE {
        return;
    }
    let mut heap = HEAP.0.lock();
    let mut rest = start;
    // SAFETY: the caller's promise is the heap's condition; the reserve lies within the span.
    unsafe {
        if size > 2 * RESERVE && heap.add_reserve(start as *mut u8, (start + RESERVE) as *mut u8) {
            rest += RESERVE;
        }
        let claimed = heap.add(rest as *mut u8, end as *mut u8);
        debug_assert!(claimed, "a span of a page or more can be claimed");
    }
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
    HEAP.0.lock().usage()
}
