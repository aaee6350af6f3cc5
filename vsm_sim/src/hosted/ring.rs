//! The log ring's mapping: VTL1 writes guest memory past VTL0's protections, without a hypercall.
//!
//! As on the image there are addresses for one mapping in a machine's life. Tests can look at it and make it fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::logging::RingMemory;

use super::memory::HostedMemory;
use crate::hv::GuestMemory;

/// Where the ring is mapped, if it is.
#[derive(Debug, Default)]
pub struct RingPlace {
    mapped: Mutex<Option<FrameRange>>,
    used: AtomicBool,
    fails: AtomicBool,
    writes: AtomicUsize,
}

impl RingPlace {
    /// The frames that are mapped.
    pub fn mapped(&self) -> Option<FrameRange> {
        *self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets mappings fail, or succeed again.
    pub fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// How often VTL1 has written to the mapping.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    pub(super) fn map(
        self: &Arc<Self>,
        frames: FrameRange,
        memory: &Arc<HostedMemory>,
    ) -> Result<Box<dyn RingMemory>, VsmError> {
        if self.fails.load(Ordering::Relaxed) || self.used.swap(true, Ordering::Relaxed) {
            return Err(VsmError::OutOfMemory("the log ring's mapping"));
        }
        *self.mapped.lock().unwrap_or_else(PoisonError::into_inner) = Some(frames);
        Ok(Box::new(Mapping { place: Arc::clone(self), frames, memory: Arc::clone(memory) }))
    }
}

struct Mapping {
    place: Arc<RingPlace>,
    frames: FrameRange,
    memory: Arc<HostedMemory>,
}

impl RingMemory for Mapping {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!((offset + bytes.len()) as u64 <= self.frames.count() << 12, "a write beyond the ring");
        self.place.writes.fetch_add(1, Ordering::Relaxed);
        let gpa = (self.frames.start() << 12) + offset as u64;
        // Memory that has gone away swallows writes.
        let _ = crate::vtl0::bytes::write(&*self.memory as &dyn GuestMemory, gpa, bytes);
    }

    fn publish(&mut self, offset: usize, byte: u8) {
        self.write(offset, &[byte]);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        *self.place.mapped.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
