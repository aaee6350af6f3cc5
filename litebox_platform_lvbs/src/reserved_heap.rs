//! A heap with a part that only one processor may use.
//!
//! Some code must not run out of memory: the arithmetic of signatures is in crates whose allocations panic when they fail. So
//! a part of the heap is an arena of its own, from which nobody is served but its *holder*, however VTL0 has filled the rest.
//! Both arenas and the holder belong to one value, behind one lock: what is checked is what is taken. The holder, too, is
//! served from the rest first, so that the reserve is whole, and in one piece, whenever the rest has room.

use core::alloc::Layout;
use core::ptr::NonNull;

/// Something that gives out memory.
pub trait Arena {
    /// Memory of that layout; `None` if there is none, and for a layout without bytes.
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>>;
}

/// The two arenas.
#[derive(Debug)]
pub struct ReservedHeap<A> {
    /// What everybody is served from.
    pub rest: A,
    /// What only the holder is served from.
    pub reserve: A,
    holder: Option<u32>,
}

impl<A: Arena> ReservedHeap<A> {
    /// A heap of these arenas; nobody holds the reserve.
    pub const fn new(rest: A, reserve: A) -> Self {
        Self { rest, reserve, holder: None }
    }

    /// Lets `processor` use the reserve, until [`Self::give_back`].
    pub fn hold(&mut self, processor: u32) {
        self.holder = Some(processor);
    }

    /// From now on nobody may use the reserve. What lies in it stays.
    pub fn give_back(&mut self) {
        self.holder = None;
    }

    /// Memory for `processor`, which is asked for only if it matters.
    pub fn allocate(&mut self, layout: Layout, processor: impl FnOnce() -> u32) -> Option<NonNull<u8>> {
        self.rest.allocate(layout).or_else(|| {
            let is_holder = self.holder.is_some_and(|holder| holder == processor());
            if is_holder { self.reserve.allocate(layout) } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    const REST: usize = 256 << 10;
    const RESERVE: usize = 96 << 10;

    /// An arena that only counts.
    struct Bytes(usize);

    impl Arena for Bytes {
        fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
            self.0 = self.0.checked_sub(layout.size())?;
            Some(NonNull::dangling())
        }
    }

    fn allocate(heap: &mut ReservedHeap<Bytes>, bytes: usize, processor: u32) -> bool {
        heap.allocate(Layout::from_size_align(bytes, 8).unwrap(), || processor).is_some()
    }

    #[test]
    fn the_reserve_is_for_its_holder_and_for_nobody_else() {
        let mut heap = ReservedHeap::new(Bytes(REST), Bytes(RESERVE));
        assert!(allocate(&mut heap, REST, 7));
        assert!(!allocate(&mut heap, 16, 1), "nobody holds it");
        heap.hold(1);
        assert!(!allocate(&mut heap, 16, 2), "another one than the holder");
        assert!(allocate(&mut heap, RESERVE - 16, 1));
        heap.give_back();
        assert!(!allocate(&mut heap, 16, 1));
    }

    #[test]
    fn the_holder_takes_of_the_rest_first() {
        let mut heap = ReservedHeap::new(Bytes(REST), Bytes(RESERVE));
        heap.hold(0);
        assert!(allocate(&mut heap, 64, 0));
        assert_eq!((heap.rest.0, heap.reserve.0), (REST - 64, RESERVE));
    }

    /// Many at once, and the holder still has all of it.
    #[test]
    fn processors_that_come_together_leave_the_reserve_alone() {
        let heap = Arc::new(Mutex::new(ReservedHeap::new(Bytes(REST), Bytes(RESERVE))));
        heap.lock().unwrap().hold(0);
        let together = Arc::new(Barrier::new(4));
        let others: Vec<_> = (1..5)
            .map(|processor| {
                let (heap, together) = (Arc::clone(&heap), Arc::clone(&together));
                std::thread::spawn(move || {
                    together.wait();
                    while allocate(&mut heap.lock().unwrap(), 3000, processor) {}
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        assert!(allocate(&mut heap.lock().unwrap(), RESERVE, 0));
    }
}
