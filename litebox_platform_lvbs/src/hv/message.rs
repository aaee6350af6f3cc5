//! SynIC messages and the payloads of secure intercepts (TLFS `HV_MESSAGE`, "Intercept Messages").
//!
//! A message page holds 16 slots of 256 bytes, one per synthetic interrupt source. Copy a slot before looking at it.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::context::SegmentRegister;
use super::register::{HvRegisterName, HvRegisterValue};

/// The kind of a message (TLFS `HV_MESSAGE_TYPE`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MessageType(pub u32);

impl MessageType {
    /// The slot is empty.
    pub const NONE: Self = Self(0);
    /// An access to an unmapped guest-physical address.
    pub const UNMAPPED_GPA: Self = Self(0x8000_0000);
    /// An access to a guest-physical address beyond the protection a higher VTL set ([`MemoryIntercept`]).
    pub const GPA_INTERCEPT: Self = Self(0x8000_0001);
    /// An MSR access ([`MsrIntercept`]).
    pub const MSR_INTERCEPT: Self = Self(0x8001_0001);
    /// A control or descriptor-table register access ([`RegisterIntercept`]).
    pub const REGISTER_INTERCEPT: Self = Self(0x8001_0006);

    /// Whether the hypervisor itself has sent it: bit 31 is reserved for it (TLFS `HV_MESSAGE_TYPE`).
    #[must_use]
    pub const fn is_from_hypervisor(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("no message"),
            Self::UNMAPPED_GPA => f.write_str("unmapped GPA"),
            Self::GPA_INTERCEPT => f.write_str("GPA intercept"),
            Self::MSR_INTERCEPT => f.write_str("MSR intercept"),
            Self::REGISTER_INTERCEPT => f.write_str("register intercept"),
            Self(other) => write!(f, "message type {other:#010x}"),
        }
    }
}

/// A message, 256 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvMessage {
    /// Its kind; [`MessageType::NONE`] when the slot is empty.
    pub message_type: MessageType,
    /// Bytes of the payload that are used.
    pub payload_size: u8,
    /// Bit 0: more messages wait; write the EOM MSR after emptying the slot.
    pub flags: u8,
    /// Unused.
    pub reserved: [u8; 2],
    /// Sender: a partition or port.
    pub origin: u64,
    /// The payload.
    pub payload: [u8; 240],
}

impl HvMessage {
    /// [`Self::flags`]: more messages wait.
    pub const MESSAGE_PENDING: u8 = 1;
    /// Size of a slot, in bytes.
    pub const SIZE: usize = size_of::<Self>();
    /// Slots of a message page.
    pub const SLOTS: usize = 16;

    /// A message with `payload`, whose size is at most 240 bytes by construction of the payload types.
    #[must_use]
    pub fn new<T: IntoBytes + Immutable>(message_type: MessageType, origin: u64, payload: &T) -> Self {
        const { assert!(size_of::<T>() <= 240) };
        let mut message = Self::new_zeroed();
        message.message_type = message_type;
        message.origin = origin;
        for (slot, byte) in message.payload.iter_mut().zip(payload.as_bytes()) {
            *slot = *byte;
        }
        message.payload_size = u8::try_from(size_of::<T>()).unwrap_or(u8::MAX);
        message
    }

    /// Whether more messages wait.
    #[must_use]
    pub const fn is_message_pending(&self) -> bool {
        self.flags & Self::MESSAGE_PENDING != 0
    }

    fn payload_as<T: FromBytes>(&self, message_type: MessageType) -> Option<T> {
        // A shorter size than the layout means that the sender did not fill all of its fields.
        if self.message_type != message_type || usize::from(self.payload_size) < size_of::<T>() {
            return None;
        }
        T::read_from_prefix(&self.payload).ok().map(|(value, _)| value)
    }

    /// What any intercept message says of the instruction; `None` for other messages.
    #[must_use]
    pub fn intercept_header(&self) -> Option<InterceptHeader> {
        let memory = self.memory_intercept().map(|intercept| intercept.header);
        let msr = || self.msr_intercept().map(|intercept| intercept.header);
        memory.or_else(msr).or_else(|| self.register_intercept().map(|intercept| intercept.header))
    }

    /// The payload of a [`MessageType::GPA_INTERCEPT`] message.
    #[must_use]
    pub fn memory_intercept(&self) -> Option<MemoryIntercept> {
        self.payload_as(MessageType::GPA_INTERCEPT)
    }

    /// The payload of a [`MessageType::MSR_INTERCEPT`] message.
    #[must_use]
    pub fn msr_intercept(&self) -> Option<MsrIntercept> {
        self.payload_as(MessageType::MSR_INTERCEPT)
    }

    /// The payload of a [`MessageType::REGISTER_INTERCEPT`] message.
    #[must_use]
    pub fn register_intercept(&self) -> Option<RegisterIntercept> {
        self.payload_as(MessageType::REGISTER_INTERCEPT)
    }
}

impl fmt::Debug for HvMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HvMessage")
            .field("message_type", &self.message_type)
            .field("payload_size", &self.payload_size)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// The kind of access an intercept stopped (TLFS `HV_INTERCEPT_ACCESS_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct InterceptAccess(pub u8);

impl InterceptAccess {
    /// A read.
    pub const READ: Self = Self(0);
    /// A write.
    pub const WRITE: Self = Self(1);
    /// An instruction fetch.
    pub const EXECUTE: Self = Self(2);
}

/// What every intercept message starts with, 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterceptHeader {
    /// The processor.
    pub vp_index: u32,
    /// Bits 3:0 instruction length, bits 7:4 CR8: use [`Self::instruction_length`].
    pub instruction_length_and_cr8: u8,
    /// The kind of access.
    pub access: InterceptAccess,
    /// Bits 1:0 CPL, 2 CR0.PE, 3 CR0.AM, 4 EFER.LMA, 5 debug active, 6 interruption pending, 10:7 VTL.
    pub execution_state: u16,
    /// Code segment of the intercepted VTL.
    pub cs: SegmentRegister,
    /// Address of the intercepted instruction.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

impl InterceptHeader {
    /// Length of the intercepted instruction in bytes; 0 when the hypervisor doesn't know it.
    #[must_use]
    pub const fn instruction_length(&self) -> u8 {
        self.instruction_length_and_cr8 & 0xf
    }

    /// Whether the intercepted VTL was in long mode.
    #[must_use]
    pub const fn is_long_mode(&self) -> bool {
        self.execution_state & 1 << 4 != 0
    }

    /// Privilege level of the intercepted instruction.
    #[must_use]
    pub const fn cpl(&self) -> u8 {
        (self.execution_state & 3) as u8
    }
}

/// Payload of [`MessageType::REGISTER_INTERCEPT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterIntercept {
    /// Where and by what.
    pub header: InterceptHeader,
    /// Bit 0: the value comes from memory.
    pub flags: u8,
    /// Unused.
    pub reserved: [u8; 3],
    /// Which register.
    pub register: HvRegisterName,
    /// The value that was to be written.
    pub value: HvRegisterValue,
}

/// Payload of [`MessageType::MSR_INTERCEPT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsrIntercept {
    /// Where and by what.
    pub header: InterceptHeader,
    /// Which MSR.
    pub msr: u32,
    /// Unused.
    pub reserved: u32,
    /// RDX at the instruction; the low 32 bits are the value's high half.
    pub rdx: u64,
    /// RAX at the instruction; the low 32 bits are the value's low half.
    pub rax: u64,
}

impl MsrIntercept {
    /// The value that was to be written.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.rdx << 32 | self.rax & 0xffff_ffff
    }
}

/// Payload of [`MessageType::GPA_INTERCEPT`], 80 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryIntercept {
    /// Where and by what.
    pub header: InterceptHeader,
    /// Cache type of the access.
    pub cache_type: u32,
    /// Bytes of [`Self::instruction`] that are valid.
    pub instruction_byte_count: u8,
    /// Bit 0: the GVA is valid.
    pub access_info: u8,
    /// Task priority.
    pub tpr_priority: u8,
    /// Unused.
    pub reserved: u8,
    /// Virtual address, if [`Self::access_info`] says so.
    pub gva: u64,
    /// Physical address.
    pub gpa: u64,
    /// Bytes at the instruction pointer.
    pub instruction: [u8; 16],
}

impl MemoryIntercept {
    /// [`Self::access_info`]: the GVA is valid.
    pub const GVA_VALID: u8 = 1;
}

const _: () = assert!(size_of::<HvMessage>() == 256 && offset_of!(HvMessage, payload) == 16);
const _: () = assert!(size_of::<InterceptHeader>() == 40);
const _: () = assert!(offset_of!(InterceptHeader, execution_state) == 6 && offset_of!(InterceptHeader, rip) == 24);
const _: () = assert!(offset_of!(RegisterIntercept, register) == 44 && offset_of!(RegisterIntercept, value) == 48);
const _: () = assert!(size_of::<RegisterIntercept>() == 64);
const _: () = assert!(offset_of!(MsrIntercept, rdx) == 48 && offset_of!(MsrIntercept, rax) == 56);
const _: () = assert!(size_of::<MsrIntercept>() == 64);
const _: () = assert!(size_of::<MemoryIntercept>() == 0x50);
const _: () = assert!(offset_of!(MemoryIntercept, instruction_byte_count) == 44);
const _: () = assert!(offset_of!(MemoryIntercept, access_info) == 45);
const _: () = assert!(offset_of!(MemoryIntercept, gva) == 48 && offset_of!(MemoryIntercept, gpa) == 56);
const _: () = assert!(offset_of!(MemoryIntercept, instruction) == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_only_from_a_message_of_its_type_and_size() {
        let mut payload = MsrIntercept::new_zeroed();
        (payload.msr, payload.rdx, payload.rax) = (0xc000_0080, 0xdead_0000_0000_0001, 0xbeef_0000_0000_0d01);
        let mut message = HvMessage::new(MessageType::MSR_INTERCEPT, 0, &payload);
        assert_eq!(message.msr_intercept().unwrap().value(), 0x1_0000_0d01);
        assert!(message.register_intercept().is_none());
        message.payload_size = 63;
        assert!(message.msr_intercept().is_none());
    }

    #[test]
    fn the_instruction_length_is_the_low_nibble_only() {
        let mut header = InterceptHeader::new_zeroed();
        header.instruction_length_and_cr8 = 0xf3;
        assert_eq!(header.instruction_length(), 3);
    }
}
