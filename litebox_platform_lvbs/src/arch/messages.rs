//! The SynIC message slot through which the hypervisor reports intercepts.

use x86_64::registers::model_specific::Msr;

use super::vp::{VpState, page};
use crate::hv::msr::EOM;
use crate::hv::{HvMessage, MessageType};

/// Takes the message out of the calling processor's slot 0; `None` when it is empty.
///
/// Follows the TLFS protocol: copy, mark the slot free, and if more messages wait, tell the hypervisor, which then
/// fills the slot again.
pub fn take(vp: &VpState) -> Option<HvMessage> {
    let slot = vp.page(page::MESSAGES) as *mut HvMessage;
    // SAFETY: the message page is mapped for the processor's lifetime and shared with the hypervisor only. Volatile,
    // and copied once: nothing is read from the slot afterwards but the flag the protocol says to read last.
    unsafe {
        if (&raw const (*slot).message_type).read_volatile() == MessageType::NONE {
            return None;
        }
        let message = slot.read_volatile();
        (&raw mut (*slot).message_type).write_volatile(MessageType::NONE);
        // The store must be seen before the flag is read again (TLFS "SynIC message flags").
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        if (&raw const (*slot).flags).read_volatile() & HvMessage::MESSAGE_PENDING != 0 {
            Msr::new(EOM).write(0);
        }
        Some(message)
    }
}
