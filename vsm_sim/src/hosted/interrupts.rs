//! What the image does when the hypervisor has stopped VTL0: the entry for an interrupt, the messages, the return.

use litebox_platform_lvbs::hv::{HvMessage, MessageType, Vtl, msr};
use vsm_handlers::handle_intercept;
use zerocopy::FromBytes;

use super::machine::{HostedMachine, SINT_VECTOR};
use crate::hv::GuestMemory;

/// Most messages handled in one entry, as in the image.
const MAX_MESSAGES: usize = 16;
/// Offset of the flags in a message (TLFS `HV_MESSAGE_HEADER`).
const FLAGS: u64 = 5;

impl HostedMachine {
    /// Lets VTL1 of `vp` answer what VTL0 was stopped at; how many messages that took.
    ///
    /// # Panics
    /// When VTL1 was not set up there, or the hypervisor model refuses a step.
    pub fn serve_intercepts(&self, vp: u32) -> usize {
        let mut served = 0;
        while self.partition.interrupt_entry(vp, &*self.memory) {
            self.partition.acknowledge_interrupt(vp, Vtl::Vtl1, SINT_VECTOR);
            self.serve(vp, || {
                for message in (0..MAX_MESSAGES).map_while(|_| self.take_message(vp)) {
                    // As in the image, what cannot be answered is only logged.
                    let _ = handle_intercept(&self.platform, vp, &message);
                    served += 1;
                }
            });
            self.partition.vtl_return(vp, 0, 0, &*self.memory).expect("VTL return");
        }
        served
    }

    /// Takes the message out of the slot, which is filled again when more wait.
    fn take_message(&self, vp: u32) -> Option<HvMessage> {
        let (memory, slot) = (&*self.memory, self.layout.message_page(vp));
        let mut bytes = [0; HvMessage::SIZE];
        memory.read(slot, &mut bytes).expect("VTL1's message page");
        let message = HvMessage::read_from_bytes(&bytes).expect("a message's size");
        if message.message_type == MessageType::NONE {
            return None;
        }
        memory.write(slot, &[0; 4]).expect("VTL1's message page");
        let mut flags = [0];
        memory.read(slot + FLAGS, &mut flags).expect("VTL1's message page");
        if flags[0] & HvMessage::MESSAGE_PENDING != 0 {
            self.partition.msr_write(vp, Vtl::Vtl1, msr::EOM, 0, memory).expect("VTL1 may write EOM");
        }
        Some(message)
    }
}
