//! An allocator with a part that only one processor may use.
//!
//! Some code must not run out of memory: the arithmetic of signatures is in crates whose allocations panic when they fail. So
//! a part of the heap is an arena of its own, from which nobody is served but its *holder*, however VTL0 has filled the rest.
//! Both arenas and the holder are behind one lock: what is checked is what is taken. The holder, too, is served from the rest
//! first, so that the reserve is whole, and in one piece, whenever the rest has room.

use core::alloc::Layout;
use core::ops::Range;
use core::ptr::{NonNull, null_mut};

use talc::{ErrOnOom, Span, Talc};

/// The holder when nobody has the reserve.
const NOBODY: u32 = u32::MAX;

/// The two arenas.
pub struct ReservedHeap {
    rest: Talc<ErrOnOom>,
    reserve: Talc<ErrOnOom>,
    /// Addresses of the reserve; empty until there is one.
    of_reserve: Range<usize>,
    holder: u32,
}

/// A heap's size and use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapUsage {
    /// Bytes handed to the heap, the reserve included.
    pub size: usize,
    /// Bytes in use, the allocator's own included.
    pub used: usize,
}

impl ReservedHeap {
    /// A heap without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { rest: Talc::new(ErrOnOom), reserve: Talc::new(ErrOnOom), of_reserve: 0..0, holder: NOBODY }
    }

    /// Gives the bytes from `start` to `end` to the rest. Whether they were taken: a few bytes are none.
    ///
    /// # Safety
    /// The bytes can be written, and from now on only the heap uses them.
    pub unsafe fn add(&mut self, start: *mut u8, end: *mut u8) -> bool {
        // SAFETY: the caller's promise is the allocator's condition.
        unsafe { self.rest.claim(Span::new(start, end)) }.is_ok()
    }

    /// Makes the bytes from `start` to `end` the reserve. Whether they were taken; a heap has one reserve.
    ///
    /// # Safety
    /// As for [`Self::add`].
    pub unsafe fn add_reserve(&mut self, start: *mut u8, end: *mut u8) -> bool {
        if !self.of_reserve.is_empty() {
            return false;
        }
        // SAFETY: the caller's promise is the allocator's condition.
        let taken = unsafe { self.reserve.claim(Span::new(start, end)) }.is_ok();
        if taken {
            self.of_reserve = start.addr()..end.addr();
        }
        taken
    }

    /// Lets `processor` use the reserve, until [`Self::give_back`].
    pub fn hold(&mut self, processor: u32) {
        self.holder = processor;
    }

    /// From now on nobody may use the reserve. What lies in it stays.
    pub fn give_back(&mut self) {
        self.holder = NOBODY;
    }

    /// Memory for `processor`, which is asked for only if it matters; null where there is none.
    ///
    /// # Safety
    /// `layout` has a size.
    pub unsafe fn allocate(&mut self, layout: Layout, processor: impl FnOnce() -> u32) -> *mut u8 {
        // SAFETY: the caller's promise.
        let found = unsafe { self.rest.malloc(layout) }.or_else(|()| {
            if self.holder == NOBODY || self.holder != processor() {
                return Err(());
            }
            // SAFETY: the caller's promise.
            unsafe { self.reserve.malloc(layout) }
        });
        found.map_or(null_mut(), NonNull::as_ptr)
    }

    /// Takes memory back, whoever has it.
    ///
    /// # Safety
    /// `pointer` came from [`Self::allocate`] with this layout, and is not used any more.
    pub unsafe fn free(&mut self, pointer: *mut u8, layout: Layout) {
        let arena = if self.of_reserve.contains(&pointer.addr()) { &mut self.reserve } else { &mut self.rest };
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller's promise; the arena is the one that has the address.
            unsafe { arena.free(pointer, layout) };
        }
    }

    /// Size and use of both arenas.
    #[must_use]
    pub fn usage(&self) -> HeapUsage {
        [&self.rest, &self.reserve].into_iter().map(Talc::get_counters).fold(
            HeapUsage { size: 0, used: 0 },
            |sum, arena| HeapUsage {
                size: sum.size + arena.claimed_bytes,
                used: sum.used + (arena.claimed_bytes - arena.available_bytes),
            },
        )
    }
}

impl Default for ReservedHeap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: the arenas own the memory they were given; nothing in them belongs to a thread.
unsafe impl Send for ReservedHeap {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    const REST: usize = 256 << 10;
    const RESERVE: usize = 96 << 10;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 8).unwrap()
    }

    fn heap() -> ReservedHeap {
        let mut heap = ReservedHeap::new();
        for (bytes, reserve) in [(REST, false), (RESERVE, true)] {
            let memory = Vec::leak(vec![0_u8; bytes]).as_mut_ptr_range();
            // SAFETY: the memory is leaked, so that the heap is its only user for ever.
            assert!(unsafe {
                if reserve { heap.add_reserve(memory.start, memory.end) } else { heap.add(memory.start, memory.end) }
            });
        }
        heap
    }

    fn allocate(heap: &mut ReservedHeap, bytes: usize, processor: u32) -> Option<*mut u8> {
        // SAFETY: the sizes in these tests are not 0.
        let pointer = unsafe { heap.allocate(layout(bytes), || processor) };
        (!pointer.is_null()).then_some(pointer)
    }

    fn fill(heap: &mut ReservedHeap, processor: u32) -> usize {
        [4096, 256, 16]
            .into_iter()
            .map(|bytes| bytes * (0..).take_while(|_| allocate(heap, bytes, processor).is_some()).count())
            .sum()
    }

    #[test]
    fn the_reserve_is_whole_and_in_one_piece_for_its_holder_and_for_nobody_else() {
        let mut heap = heap();
        assert!(fill(&mut heap, 7) > REST * 9 / 10);
        assert_eq!(allocate(&mut heap, 16, 1), None);
        heap.hold(1);
        assert_eq!(allocate(&mut heap, 16, 2), None, "another one than the holder");
        let piece = allocate(&mut heap, RESERVE * 9 / 10, 1).expect("the reserve is in one piece");
        heap.give_back();
        assert_eq!(allocate(&mut heap, 16, 1), None);
        // SAFETY: from `allocate`, with this layout.
        unsafe { heap.free(piece, layout(RESERVE * 9 / 10)) };
        heap.hold(2);
        assert!(allocate(&mut heap, RESERVE * 9 / 10, 2).is_some(), "freed by another one than its user");
    }

    #[test]
    fn the_holder_takes_of_the_rest_first() {
        let mut heap = heap();
        heap.hold(0);
        let pointer = allocate(&mut heap, 64, 0).unwrap();
        assert!(!heap.of_reserve.contains(&pointer.addr()));
    }

    #[test]
    fn a_heap_has_one_reserve_and_counts_it() {
        let mut heap = heap();
        let usage = heap.usage();
        assert!(usage.size > (REST + RESERVE) * 9 / 10 && usage.used < usage.size / 10, "{usage:?}");
        let memory = Vec::leak(vec![0_u8; 4096]).as_mut_ptr_range();
        // SAFETY: the memory is leaked.
        assert!(!unsafe { heap.add_reserve(memory.start, memory.end) });
    }

    /// Many at once, and the holder still has all of it: one lock holds the check and what is taken.
    #[test]
    fn processors_that_come_together_leave_the_reserve_alone() {
        let heap = Arc::new(Mutex::new(heap()));
        heap.lock().unwrap().hold(0);
        let together = Arc::new(Barrier::new(4));
        let others: Vec<_> = (1..5)
            .map(|processor| {
                let (heap, together) = (Arc::clone(&heap), Arc::clone(&together));
                std::thread::spawn(move || {
                    together.wait();
                    while allocate(&mut heap.lock().unwrap(), 3000, processor).is_some() {}
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        assert!(allocate(&mut heap.lock().unwrap(), RESERVE * 9 / 10, 0).is_some());
    }
}
