//! VTL1's heap: the region's memory that the image does not occupy.
//!
//! Allocation can fail and callers that act for VTL0 must ask with `try_reserve`; an infallible allocation that
//! fails ends in VTL1's panic.

use talc::{ErrOnOom, Span, Talc, Talck};

use crate::sync::Mutex;

#[global_allocator]
static HEAP: Talck<Mutex<()>, ErrOnOom> = Talc::new(ErrOnOom).lock();

/// How much of the reserve the heap has and uses.
#[derive(Clone, Copy, Debug)]
pub struct HeapUsage {
    /// Bytes handed to the heap at boot.
    pub size: usize,
    /// Bytes in use, the allocator's own included.
    pub used: usize,
}

/// Gives the bytes `start..end` of the linear map to the heap. Spans too small to be of use are left alone.
///
/// # Safety
/// The span is mapped and writable, belongs to VTL1's region, is used by nobody else and stays so for ever.
pub unsafe fn add_span(start: u64, end: u64) {
    if end.saturating_sub(start) < crate::address::PAGE_SIZE {
        return;
    }
    // SAFETY: the caller's promise is the allocator's condition.
    let claimed = unsafe { HEAP.lock().claim(Span::new(start as *mut u8, end as *mut u8)) };
    debug_assert!(claimed.is_ok(), "a span of a page or more can be claimed");
}

/// The heap's present size and use.
#[must_use]
pub fn usage() -> HeapUsage {
    let talc = HEAP.lock();
    let counters = talc.get_counters();
    HeapUsage { size: counters.claimed_bytes, used: counters.claimed_bytes - counters.available_bytes }
}
