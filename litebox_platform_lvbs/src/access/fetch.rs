//! Copies out of VTL0's memory, of which no byte is fetched twice.
//!
//! VTL0 can rewrite its memory at any time, so that two fetches of one byte may differ and a check of the first
//! says nothing about the second. A call that reads many objects makes one [`FetchOnce`] and reads through it alone:
//! it remembers what has been fetched and refuses to fetch it again. VTL1's own frames are refused too.

use crate::address::{FrameRange, PAGE_SIZE, PhysAddr};
use crate::error::VsmError;
use crate::platform::Platform;

use super::refuse::refuse_vtl1;
use super::span_set::{NotAdded, Span, SpanSet};

/// The copies of one call.
pub struct FetchOnce<'a> {
    platform: &'a Platform,
    fetched: SpanSet,
}

impl<'a> FetchOnce<'a> {
    /// Nothing has been fetched yet.
    #[must_use]
    pub fn new(platform: &'a Platform) -> Self {
        Self { platform, fetched: SpanSet::default() }
    }

    /// Records that `bytes` from `start` on have been fetched in another way, or are about to be.
    ///
    /// # Errors
    /// [`VsmError::InvalidPhysicalAddress`] beyond 2^52, [`VsmError::FrameOwned`] when a byte is VTL1's,
    /// [`VsmError::InvalidRange`] when one has been fetched, [`VsmError::OutOfMemory`].
    pub fn note(&mut self, start: PhysAddr, bytes: u64) -> Result<(), VsmError> {
        if bytes == 0 {
            return Ok(());
        }
        // The last byte has an address too.
        let last = start.checked_add(bytes - 1)?;
        let span = Span { start: start.as_u64(), end: last.as_u64() + 1 };
        refuse_vtl1(self.platform, start, bytes)?;
        self.add(span)
    }

    fn add(&mut self, span: Span) -> Result<(), VsmError> {
        self.fetched.add(span).map_err(|error| match error {
            NotAdded::Overlap => named_twice(span),
            NotAdded::OutOfMemory => VsmError::OutOfMemory("the record of what was fetched"),
        })
    }

    /// Records whole frames, in ascending order, as [`Self::note`] would one by one; but when one of them is refused none is
    /// recorded.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub fn note_frames(&mut self, frames: &[FrameRange]) -> Result<(), VsmError> {
        let mut end = 0;
        for frames in frames {
            let bytes = frames.count() * PAGE_SIZE;
            let start = PhysAddr::new(frames.start() * PAGE_SIZE)?;
            let span = Span { start: start.as_u64(), end: start.checked_add(bytes - 1)?.as_u64() + 1 };
            refuse_vtl1(self.platform, start, bytes)?;
            if span.start < end || self.fetched.fresh(span.start, bytes) < bytes {
                return Err(named_twice(span));
            }
            end = span.end;
        }
        frames
            .iter()
            .try_for_each(|frames| self.add(Span { start: frames.start() * PAGE_SIZE, end: frames.end() * PAGE_SIZE }))
    }

    /// In how many places, runs of bytes that follow each other, lies what has been fetched.
    #[must_use]
    pub fn places(&self) -> usize {
        self.fetched.len()
    }

    /// How many of the `bytes` from `start` on, in one piece, have not been fetched.
    #[must_use]
    pub fn fresh(&self, start: PhysAddr, bytes: u64) -> u64 {
        self.fetched.fresh(start.as_u64(), bytes)
    }

    /// Fetches physically contiguous bytes, page by page.
    ///
    /// # Errors
    /// As [`Self::note`]; [`VsmError::Vtl0MemoryFault`].
    pub fn fetch(&mut self, start: PhysAddr, into: &mut [u8]) -> Result<(), VsmError> {
        self.note(start, into.len() as u64)?;
        let mut at = start;
        let mut rest = into;
        while !rest.is_empty() {
            let room = PAGE_SIZE - at.page_offset();
            let bytes = usize::try_from(room).map_or(rest.len(), |room| room.min(rest.len()));
            let Some((piece, after)) = rest.split_at_mut_checked(bytes) else { break };
            let copied = self.platform.hardware().read_vtl0(at, piece);
            copied.map_err(|fault| VsmError::Vtl0MemoryFault(fault.0))?;
            rest = after;
            if !rest.is_empty() {
                at = at.checked_add(room)?;
            }
        }
        Ok(())
    }
}

fn named_twice(Span { start, end }: Span) -> VsmError {
    VsmError::InvalidRange { start, end, rule: "its bytes must not be named twice" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::fake::{Fake, frames};
    use crate::owner::Owner;

    fn pa(raw: u64) -> PhysAddr {
        PhysAddr::new(raw).unwrap()
    }

    #[test]
    fn no_byte_is_fetched_twice_in_any_order() {
        let fake = Fake::new(64);
        let platform = fake.platform(frames(0x30, 0x32));
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..50 {
            let mut once = FetchOnce::new(&platform);
            let mut model = vec![false; 2000];
            for _ in 0..300 {
                let (start, len) = (random(1950), 1 + random(49));
                let bytes = &mut model[usize::try_from(start).unwrap()..][..usize::try_from(len).unwrap()];
                let fresh = bytes.iter().take_while(|fetched| !**fetched).count() as u64;
                assert_eq!(once.fresh(pa(start), len), fresh);
                assert_eq!(once.note(pa(start), len).is_ok(), fresh == len);
                if fresh == len {
                    bytes.fill(true);
                }
                let spans: Vec<Span> = once.fetched.iter().collect();
                assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }

    #[test]
    fn frames_at_once_are_noted_as_one_by_one() {
        let fake = Fake::new(64);
        let platform = fake.platform(frames(0x60, 0x62));
        let mut seed = 7_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut fine, mut refused) = (0, 0);
        for _ in 0..2000 {
            let (mut once, mut other) = (FetchOnce::new(&platform), FetchOnce::new(&platform));
            for _ in 0..random(6) {
                let (start, len) = (pa(random(0x6_0000)), 1 + random(0x2000));
                let noted = once.note(start, len);
                assert_eq!(noted, other.note(start, len));
            }
            let mut at = 0;
            let mut named = Vec::new();
            for _ in 0..random(8) {
                let (start, count) = (at + random(8), 1 + random(3));
                // Sometimes the last frame once more.
                at = start + count - u64::from(random(20) == 0);
                named.push(frames(start, start + count));
            }
            let before: Vec<Span> = once.fetched.iter().collect();
            let one_by_one = named
                .iter()
                .try_for_each(|frames| other.note(pa(frames.start() * PAGE_SIZE), frames.count() * PAGE_SIZE));
            assert_eq!(once.note_frames(&named), one_by_one, "{named:?} and {before:?}");
            match one_by_one {
                Ok(()) => fine += 1,
                Err(_) => refused += 1,
            }
            let after: Vec<Span> = once.fetched.iter().collect();
            assert_eq!(after, if one_by_one.is_ok() { other.fetched.iter().collect() } else { before });
        }
        assert!(fine > 200 && refused > 200, "{fine} {refused}");
    }

    #[test]
    fn bytes_are_copied_page_by_page() {
        let fake = Fake::new(64);
        let platform = fake.platform(frames(0x30, 0x32));
        let text: Vec<u8> = (0..9000u64).map(|index| u8::try_from(index % 251).unwrap()).collect();
        for (at, piece) in (0x1000..).step_by(4096).zip(text.chunks(4096)) {
            fake.poke(at, piece);
        }
        let mut once = FetchOnce::new(&platform);
        let mut copy = vec![0; 8000];
        once.fetch(pa(0x1100), &mut copy).unwrap();
        assert_eq!(copy, text[0x100..][..8000]);
        assert_eq!(fake.with(|state| state.reads.clone()), [(0x1100, 0xf00), (0x2000, 4096), (0x3000, 64)]);
        assert!(matches!(once.fetch(pa(0x303f), &mut [0]), Err(VsmError::InvalidRange { .. })));
        assert_eq!(once.fetch(pa(0x3040), &mut [0]), Ok(()));
        assert_eq!(once.fetch(pa(0x3040), &mut []), Ok(()));
    }

    #[test]
    fn vtl1_and_what_is_no_memory_are_refused() {
        let fake = Fake::new(64);
        let platform = fake.platform(frames(0x30, 0x32));
        let mut once = FetchOnce::new(&platform);
        for (start, len) in [(0x3_0000, 1), (0x3_1fff, 1), (0x2_ffff, 2), (0x2_f000, 0x9000)] {
            let error = once.fetch(pa(start), &mut vec![0; len]).unwrap_err();
            assert!(matches!(error, VsmError::FrameOwned(_, Owner::Vtl1)), "{start:#x}: {error}");
        }
        assert_eq!(fake.with(|state| state.reads.len()), 0);
        assert!(matches!(once.fetch(pa((1 << 52) - 1), &mut [0; 2]), Err(VsmError::InvalidPhysicalAddress(_))));
        assert_eq!(once.fetch(pa(64 << 12), &mut [0]), Err(VsmError::Vtl0MemoryFault(pa(64 << 12))));
        assert_eq!(once.fetch(pa(0x2_ffff), &mut [0]), Ok(()));
    }
}
