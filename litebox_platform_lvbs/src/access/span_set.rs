//! A set of bytes as spans, to which very many can be added in any order.
//!
//! Spans lie in ascending chunks of at most [`CHUNK`], so that adding one moves a chunk's worth and not all behind it: VTL0
//! chooses the order. Neighbours are joined. Allocates fallibly, at most 32 bytes and a little for each span: a chunk is
//! split only when it is full, in the middle, or at its end where spans come in order.

use alloc::vec::Vec;

/// The most spans of a chunk: 2 KiB of them.
const CHUNK: usize = 128;

/// A half-open span of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u64,
    pub end: u64,
}

/// Why a span is not added; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdded {
    /// A byte of it is in the set.
    Overlap,
    /// There is no memory.
    OutOfMemory,
}

type Chunk = Vec<Span>;

/// The set. No chunk is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanSet {
    chunks: Vec<Chunk>,
    len: usize,
}

/// Where a span with some start would go: a chunk, and a place in it.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    item: usize,
}

impl SpanSet {
    /// How many spans there are; neighbours that touch are one.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All spans, ascending.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.chunks.iter().flatten().copied()
    }

    /// Behind all spans that start at `start` or before it.
    fn place(&self, start: u64) -> Place {
        let starts = |chunk: &Chunk| chunk.first().is_some_and(|first| first.start <= start);
        let chunk = self.chunks.partition_point(starts).saturating_sub(1);
        let item = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|span| span.start <= start));
        Place { chunk, item }
    }

    /// The span before a place, which is in the same chunk.
    fn before(&mut self, Place { chunk, item }: Place) -> Option<&mut Span> {
        self.chunks.get_mut(chunk)?.get_mut(item.checked_sub(1)?)
    }

    /// The place of the span behind a place, which may be in the next chunk.
    fn behind(&self, place: Place) -> Place {
        match self.chunks.get(place.chunk) {
            Some(chunk) if place.item >= chunk.len() => Place { chunk: place.chunk + 1, item: 0 },
            _ => place,
        }
    }

    fn at(&mut self, Place { chunk, item }: Place) -> Option<&mut Span> {
        self.chunks.get_mut(chunk)?.get_mut(item)
    }

    /// Adds a span.
    pub(super) fn add(&mut self, span: Span) -> Result<(), NotAdded> {
        let place = self.place(span.start);
        let behind = self.behind(place);
        let next = self.at(behind).copied();
        let before = self.before(place);
        if before.as_ref().is_some_and(|before| before.end > span.start)
            || next.is_some_and(|next| next.start < span.end)
        {
            return Err(NotAdded::Overlap);
        }
        let next = next.filter(|next| next.start == span.end);
        match before {
            Some(before) if before.end == span.start => {
                before.end = next.map_or(span.end, |next| next.end);
                if next.is_some() {
                    self.remove(behind);
                }
                Ok(())
            }
            _ if next.is_some() => {
                if let Some(next) = self.at(behind) {
                    next.start = span.start;
                }
                Ok(())
            }
            _ => self.insert(place, span).map_err(|_| NotAdded::OutOfMemory),
        }
    }

    fn remove(&mut self, Place { chunk: index, item }: Place) {
        if let Some(chunk) = self.chunks.get_mut(index)
            && item < chunk.len()
        {
            chunk.remove(item);
            self.len -= 1;
            if chunk.is_empty() {
                self.chunks.remove(index);
            }
        }
    }

    fn insert(
        &mut self,
        Place { chunk: index, item }: Place,
        span: Span,
    ) -> Result<(), alloc::collections::TryReserveError> {
        let full = match self.chunks.get_mut(index) {
            Some(chunk) if chunk.len() < CHUNK => {
                chunk.insert(item, span);
                self.len += 1;
                return Ok(());
            }
            full => full,
        };
        let mut new = Chunk::new();
        new.try_reserve_exact(CHUNK)?;
        let room = full.is_some();
        self.chunks.try_reserve(1)?;
        if room && let Some(full) = self.chunks.get_mut(index) {
            // What comes in order leaves full chunks behind it.
            let middle = if item == 0 || item >= CHUNK { item } else { CHUNK / 2 };
            new.extend(full.drain(middle..));
            if item < middle || full.is_empty() {
                full.insert(item, span);
            } else {
                new.insert(item - middle, span);
            }
        } else {
            new.push(span);
        }
        self.chunks.insert((index + 1).min(self.chunks.len()), new);
        self.len += 1;
        Ok(())
    }

    /// How many of the `bytes` from `start` on, in one piece, are not in the set.
    pub(super) fn fresh(&self, start: u64, bytes: u64) -> u64 {
        let place = self.place(start);
        let get = |Place { chunk, item }: Place| self.chunks.get(chunk).and_then(|chunk| chunk.get(item));
        let within = place.item.checked_sub(1).and_then(|item| get(Place { item, ..place }));
        if within.is_some_and(|span| span.end > start) {
            return 0;
        }
        get(self.behind(place)).map_or(bytes, |next| next.start.saturating_sub(start).min(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &SpanSet) {
        let spans: Vec<Span> = set.iter().collect();
        assert_eq!(spans.len(), set.len());
        assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start), "{spans:?}");
        assert!(set.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
    }

    #[test]
    fn tens_of_thousands_of_places_in_any_order_take_a_bounded_memory() {
        const PLACES: u64 = 1 << 16;
        let orders: [fn(u64) -> u64; 4] = [
            |index| index,
            |index| PLACES - 1 - index,
            |index| if index.is_multiple_of(2) { index / 2 } else { PLACES - 1 - index / 2 },
            |index| index.wrapping_mul(0x9e37_79b1) % PLACES,
        ];
        for order in orders {
            let mut set = SpanSet::default();
            for index in 0..PLACES {
                let start = 8192 * order(index);
                assert_eq!(set.fresh(start, 4096), 4096);
                set.add(Span { start, end: start + 4096 }).unwrap();
                assert_eq!(set.fresh(start + 1, 4096), 0);
            }
            check(&set);
            assert_eq!(set.len() as u64, PLACES);
            assert!(set.chunks.len() * CHUNK <= 2 * set.len(), "{} chunks", set.chunks.len());
            // What lies between joins all of them.
            for index in 0..PLACES {
                let start = 8192 * order(index) + 4096;
                assert_eq!(set.add(Span { start: start - 1, end: start }), Err(NotAdded::Overlap));
                set.add(Span { start, end: start + 4096 }).unwrap();
            }
            check(&set);
            assert_eq!((set.len(), set.chunks.len()), (1, 1));
        }
    }
}
