//! The place where a trusted operating system plugs in, and what is said where there is none.
//!
//! Every register is VTL0's, chosen by an attacker. A [`TrustedOs`] that follows addresses in them must copy what lies
//! there before it looks (`PhysConstPtr`), and write through the frame registry (`PhysMutPtr`).

use litebox_platform_lvbs::optee::{
    INTERFACE_REVISION, INTERFACE_UUID, SmcAnswer, SmcFunction, SmcRegisters, VTL0_UNIPROCESSOR,
};

/// A trusted operating system that takes OP-TEE messages.
///
/// To plug one in: implement this, name it in `optee_message` in place of [`NoTrustedOs`], and extend the tests in
/// `vsm_sim/tests/calls/optee.rs`. What identifies the interface itself is answered before it is asked.
pub trait TrustedOs {
    /// Its UUID, as four words of 32 bits.
    fn uuid(&self) -> [u32; 4];

    /// Its revision: major and minor.
    fn revision(&self) -> (u32, u32);

    /// What it can do, where VTL0 has said what VTL0 can: a bit set of `OPTEE_SMC_SEC_CAP_*`, the greatest number of an
    /// asynchronous notification, and the number of parameters of a request to VTL0.
    fn capabilities(&self) -> [u64; 3];

    /// Learns the platform's root key, once, during boot. What is derived from it is as secret as the key: kept in VTL1,
    /// zeroized where it was copied through, never logged.
    fn take_root_key(&self, key: &[u8; 32]);

    /// Takes any other message.
    fn take(&self, message: &SmcRegisters) -> SmcAnswer;
}

/// Nothing: no memory can be shared with it, no session be opened.
///
/// Linux' driver takes in what it is told and, because there is no way to share memory, registers no device.
#[derive(Clone, Copy, Debug)]
pub struct NoTrustedOs;

impl TrustedOs for NoTrustedOs {
    /// This kernel's own UUID, 5c1f0a52-6d0e-4b7e-9a53-8e0b4f1d7c26 (random, RFC 9562 version 4): it is not OP-TEE.
    fn uuid(&self) -> [u32; 4] {
        [0x5c1f_0a52, 0x6d0e_4b7e, 0x9a53_8e0b, 0x4f1d_7c26]
    }

    fn revision(&self) -> (u32, u32) {
        (0, 0)
    }

    fn capabilities(&self) -> [u64; 3] {
        [0; 3]
    }

    /// Nothing is derived; the platform keeps the key.
    fn take_root_key(&self, _: &[u8; 32]) {}

    fn take(&self, _: &SmcRegisters) -> SmcAnswer {
        SmcAnswer::NOT_AVAILABLE
    }
}

/// The answer to `message`.
pub(super) fn serve(os: &impl TrustedOs, message: &SmcRegisters) -> SmcAnswer {
    let SmcRegisters([_, about_vtl0, ..]) = *message;
    match message.function() {
        SmcFunction::CALLS_UID => SmcAnswer::uuid(INTERFACE_UUID),
        SmcFunction::CALLS_REVISION => {
            let (major, minor) = INTERFACE_REVISION;
            SmcAnswer::revision(major, minor)
        }
        SmcFunction::GET_OS_UUID => SmcAnswer::uuid(os.uuid()),
        SmcFunction::GET_OS_REVISION => {
            let (major, minor) = os.revision();
            SmcAnswer::revision(major, minor)
        }
        // A capability that is not known is one that cannot be dealt with (optee_smc.h).
        SmcFunction::EXCHANGE_CAPABILITIES if about_vtl0 & !VTL0_UNIPROCESSOR == 0 => SmcAnswer::ok(os.capabilities()),
        SmcFunction::EXCHANGE_CAPABILITIES => SmcAnswer::NOT_AVAILABLE,
        _ => os.take(message),
    }
}
