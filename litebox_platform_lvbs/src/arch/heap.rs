//! VTL1's heap: the region's memory that the image does not occupy.
//!
//! Allocation can fail, and callers that act for VTL0 must ask with `try_reserve`; an infallible allocation that
//! fails ends in VTL1's panic. The RSA crate makes such allocations: for them there is a reserve, see
//! [`crate::reserved_heap`].

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use talc::{ErrOnOom, Span, Talc};

use super::vp::VpState;
use crate::address::PAGE_SIZE;
use crate::error::VsmError;
use crate::hardware::HeapReserve;
use crate::reserved_heap::{Arena, ReservedHeap};
use crate::sync::Mutex;

/// Bytes that only the processor with the reserve may allocate; a check with RSA-4096 takes 23 KiB.
const RESERVE: u64 = 96 << 10;

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(ReservedHeap::new(Memory::EMPTY, Memory::EMPTY)));

/// The allocator behind its lock.
struct Heap(Mutex<ReservedHeap<Memory>>);

/// An arena, and the last addresses that it was given.
struct Memory {
    allocator: Talc<ErrOnOom>,
    span: Span,
}

impl Memory {
    const EMPTY: Self = Self { allocator: Talc::new(ErrOnOom), span: Span::empty() };
}

impl Arena for Memory {
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the layout has a size.
        unsafe { self.allocator.malloc(layout) }.ok()
    }
}

// SAFETY: every request is handed on unchanged, under the lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A processor has its state, and so an index, long before the first one holds the reserve.
        self.0.lock().allocate(layout, || VpState::current().index).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(memory) = NonNull::new(pointer) else { return };
        let mut heap = self.0.lock();
        let is_reserve = heap.reserve.span.contains(pointer);
        let arena = if is_reserve { &mut heap.reserve } else { &mut heap.rest };
        // SAFETY: what the caller gives back came from `alloc` above, with this layout, and from the arena that has its
        // address.
        unsafe { arena.allocator.free(memory, layout) }
    }
}

/// Lets the calling processor use the reserve until the guard is dropped. The caller makes sure that one at a time does.
pub fn reserve() -> HeapReserve {
    HEAP.0.lock().hold(VpState::current().index);
    HeapReserve::new(|| HEAP.0.lock().give_back())
}

/// How much of the reserve the heap has and uses.
#[derive(Clone, Copy, Debug)]
pub struct HeapUsage {
    /// Bytes handed to the heap at boot.
    pub size: usize,
    /// Bytes in use, the allocator's own included.
    pub used: usize,
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
    let heap = &mut *heap;
    let reserve = if heap.reserve.span.is_empty() && size > 2 * RESERVE { RESERVE } else { 0 };
    let [reserved, rest] = [start..start + reserve, start + reserve..end]
        .map(|part| Span::new(part.start as *mut u8, part.end as *mut u8));
    for (arena, span) in [(&mut heap.reserve, reserved), (&mut heap.rest, rest)] {
        if !span.is_empty() {
            arena.span = span;
            // SAFETY: the caller's promise is the allocator's condition; both spans lie in the one that was given.
            let claimed = unsafe { arena.allocator.claim(span) };
            debug_assert!(claimed.is_ok(), "a span of a page or more can be claimed");
        }
    }
}

/// [`Box::new`] that can fail.
///
/// # Errors
/// [`VsmError::OutOfMemory`].
pub fn try_box<T>(value: T) -> Result<Box<T>, VsmError> {
    const { assert!(size_of::<T>() != 0) };
    let layout = Layout::new::<T>();
    // SAFETY: the layout has a size. Where there is memory, it is fresh and of T's layout, from the allocator that a box gives
    // it back to.
    unsafe {
        let place = alloc::alloc::alloc(layout).cast::<T>();
        if place.is_null() {
            return Err(VsmError::OutOfMemory("a box"));
        }
        place.write(value);
        Ok(Box::from_raw(place))
    }
}

/// The heap's current size and use.
#[must_use]
pub fn usage() -> HeapUsage {
    let heap = HEAP.0.lock();
    [&heap.rest, &heap.reserve].iter().fold(HeapUsage { size: 0, used: 0 }, |sum, arena| {
        let counters = arena.allocator.get_counters();
        HeapUsage {
            size: sum.size + counters.claimed_bytes,
            used: sum.used + (counters.claimed_bytes - counters.available_bytes),
        }
    })
}
