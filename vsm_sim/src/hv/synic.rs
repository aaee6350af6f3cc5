//! The synthetic interrupt controller: message queues, slots, and interrupt requests (TLFS "Inter-Partition
//! Communication", "SynIC Messages").
//!
//! The message page is guest memory here; the TLFS has an overlay page, whose contents only its VTL can see. A page
//! that is not RAM, or that overlays another one, is therefore refused and reported when it is enabled.

use std::collections::VecDeque;

use litebox_platform_lvbs::hv::{HvMessage, MessageType, Vtl, msr};
use zerocopy::IntoBytes;

use super::memory::GuestMemory;
use super::partition::{Partition, State};
use super::trace::TraceEvent;

/// Number of sources, as an array length.
pub(super) const SINTS: usize = msr::SINT_COUNT as usize;
/// The source secure intercepts arrive on.
pub(super) const INTERCEPT_SINT: usize = 0;

/// One VTL's SynIC on one processor.
#[derive(Debug)]
pub(super) struct Synic {
    pub(super) control: u64,
    pub(super) message_page: u64,
    pub(super) event_page: u64,
    pub(super) sints: [msr::Sint; SINTS],
    queues: [VecDeque<HvMessage>; SINTS],
}

impl Default for Synic {
    fn default() -> Self {
        Self {
            control: 0,
            message_page: 0,
            event_page: 0,
            sints: [msr::Sint::RESET; SINTS],
            queues: Default::default(),
        }
    }
}

impl Synic {
    fn slot(&self, sint: usize) -> Option<u64> {
        let enabled = self.control & msr::SCONTROL_ENABLE != 0 && self.message_page & msr::PAGE_ENABLE != 0;
        let offset = u64::try_from(sint * HvMessage::SIZE).ok()?;
        enabled.then_some((self.message_page & msr::PAGE_FRAME_MASK) + offset)
    }
}

impl State {
    /// Queues a message for `vtl` and delivers it if its slot is free.
    pub(super) fn post(&mut self, vp: u32, vtl: Vtl, sint: usize, message: HvMessage, memory: &dyn GuestMemory) {
        self.event(&TraceEvent::Message { vp, vtl, message: &message });
        self.vtl(vp, vtl).synic.queues[sint].push_back(message);
        if self.vtl(vp, vtl).synic.slot(sint).is_none() {
            self.report(vp, vtl, "a message arrives while the SynIC or its message page is off".into());
        }
        self.deliver(vp, vtl, sint, memory);
    }

    /// Delivers what waits on `sint` as far as its slot allows.
    pub(super) fn deliver(&mut self, vp: u32, vtl: Vtl, sint: usize, memory: &dyn GuestMemory) {
        let target = self.vtl(vp, vtl);
        let Some(slot) = target.synic.slot(sint) else { return };
        let source = target.synic.sints[sint];
        let queue = &mut target.synic.queues[sint];
        let mut message_type = [0; 4];
        if queue.is_empty() || memory.read(slot, &mut message_type).is_err() {
            return;
        }
        if u32::from_le_bytes(message_type) != MessageType::NONE.0 {
            // Occupied: tell the reader that more waits.
            let _ = memory.write(slot + 5, &[HvMessage::MESSAGE_PENDING]);
            return;
        }
        let Some(mut message) = queue.pop_front() else { return };
        if !queue.is_empty() {
            message.flags |= HvMessage::MESSAGE_PENDING;
        }
        // The type last: a reader that polls must not see it before the payload.
        let bytes = message.as_bytes();
        let _ = memory.write(slot + 4, &bytes[4..]);
        let _ = memory.write(slot, &bytes[..4]);
        if source.is_unmasked() {
            target.interrupts.insert(source.vector());
        }
    }

    /// Delivers what waits on any source.
    pub(super) fn deliver_all(&mut self, vp: u32, vtl: Vtl, memory: &dyn GuestMemory) {
        for sint in 0..SINTS {
            self.deliver(vp, vtl, sint, memory);
        }
    }
}

impl Partition {
    /// Queues a message for `vtl` of `vp` on the source of the intercepts, as the hypervisor might for a reason the model has
    /// none for.
    pub fn post_message(&self, vp: u32, vtl: Vtl, message: HvMessage, memory: &dyn GuestMemory) {
        self.lock().post(vp, vtl, INTERCEPT_SINT, message, memory);
    }

    /// How many messages wait for `vtl` of `vp` behind those in their slots.
    pub fn queued_messages(&self, vp: u32, vtl: Vtl) -> usize {
        self.lock().vtl(vp, vtl).synic.queues.iter().map(VecDeque::len).sum()
    }

    /// The highest vector that waits for `vtl` of `vp`.
    pub fn pending_interrupt(&self, vp: u32, vtl: Vtl) -> Option<u8> {
        self.lock().vtl(vp, vtl).interrupts.last().copied()
    }

    /// The interrupt controller has accepted `vector`: it no longer waits. Whether it did.
    pub fn acknowledge_interrupt(&self, vp: u32, vtl: Vtl, vector: u8) -> bool {
        self.lock().vtl(vp, vtl).interrupts.remove(&vector)
    }

    /// Requests an interrupt of `vtl` on `vp`, as a device or another processor would.
    pub fn request_interrupt(&self, vp: u32, vtl: Vtl, vector: u8) {
        self.lock().vtl(vp, vtl).interrupts.insert(vector);
    }
}
