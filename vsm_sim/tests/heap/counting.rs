//! An allocator that counts what a thread has allocated, and can refuse one request. Other threads are not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes allocated now by this thread while it counts, less those freed, and the most there have been.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// Allocations by this thread while it counts.
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
    /// Whether this thread's allocations count.
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    /// Whether none of this thread's allocations is refused for now.
    static SPARED: Cell<bool> = const { Cell::new(false) };
    /// Allocations until one is refused.
    static UNTIL_REFUSED: Cell<usize> = const { Cell::new(NEVER) };
}

/// For [`counted`]: no allocation is refused.
pub const NEVER: usize = usize::MAX;

/// What some work took.
pub struct Counted<R> {
    pub result: R,
    /// The most bytes in use during it, beyond what was in use before.
    pub peak: usize,
    /// Bytes in use after it, beyond what was in use before.
    pub kept: isize,
    /// How many allocations it made.
    pub requests: usize,
}

struct Counting;

/// Whether the allocation about to be made is the one to be refused.
fn refused() -> bool {
    if SPARED.get() {
        return false;
    }
    let left = UNTIL_REFUSED.get();
    if left != NEVER && left != 0 {
        UNTIL_REFUSED.set(left - 1);
    }
    left == 0
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every request is passed on to the system's allocator unchanged, or refused, as an allocator may; counting
// touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.get() {
            if refused() {
                UNTIL_REFUSED.set(NEVER);
                return std::ptr::null_mut();
            }
            REQUESTS.set(REQUESTS.get() + 1);
            NOW.set(NOW.get() + signed(layout.size()));
            PEAK.set(PEAK.get().max(NOW.get()));
        }
        // SAFETY: the caller's promises about `layout` are those the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if COUNTS.get() {
            NOW.set(NOW.get() - signed(layout.size()));
        }
        // SAFETY: `pointer` came from `alloc` above, that is, from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Does `work` and counts. The `refuse`th allocation fails, if there is one.
pub fn counted<R>(refuse: usize, work: impl FnOnce() -> R) -> Counted<R> {
    NOW.set(0);
    PEAK.set(0);
    REQUESTS.set(0);
    UNTIL_REFUSED.set(refuse);
    COUNTS.set(true);
    let result = work();
    COUNTS.set(false);
    UNTIL_REFUSED.set(NEVER);
    Counted { result, peak: usize::try_from(PEAK.get()).unwrap_or(0), kept: NOW.get(), requests: REQUESTS.get() }
}

/// Refuses none of this thread's allocations, or goes on refusing: VTL1's allocator has a reserve for who holds it.
pub fn spare(hold: bool) {
    SPARED.set(hold);
}

/// Does `work` without counting, but for `adopted` bytes that it allocates and that will be freed with counting.
pub fn apart<R>(adopted: usize, work: impl FnOnce() -> R) -> R {
    let counts = COUNTS.replace(false);
    let result = work();
    COUNTS.set(counts);
    NOW.set(NOW.get() + signed(adopted));
    result
}
