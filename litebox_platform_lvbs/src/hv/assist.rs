//! The VP assist page (TLFS `HV_VP_ASSIST_PAGE`, `HV_VP_VTL_CONTROL`), one per processor and VTL.
//!
//! The hypervisor may write it at any time, so its fields are read volatilely.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::message::HvMessage;

/// Why the processor entered the VTL (TLFS `HV_VTL_ENTRY_REASON`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct EntryReason(pub u32);

impl EntryReason {
    /// Reserved; also the value before the first entry.
    pub const RESERVED: Self = Self(0);
    /// The lower VTL made a VTL call.
    pub const VTL_CALL: Self = Self(1);
    /// An interrupt for this VTL, secure intercepts included.
    pub const INTERRUPT: Self = Self(2);
    /// An intercept delivered through the assist page.
    pub const INTERCEPT: Self = Self(3);
}

impl fmt::Debug for EntryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::VTL_CALL => f.write_str("VTL call"),
            Self::INTERRUPT => f.write_str("interrupt"),
            Self::INTERCEPT => f.write_str("intercept"),
            Self(other) => write!(f, "entry reason {other}"),
        }
    }
}

/// The page, 4096 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VpAssistPage {
    /// APIC assist: bit 0, no EOI is required.
    pub apic_assist: u32,
    /// Unused.
    pub reserved0: u32,
    /// Why the VTL was entered last.
    pub entry_reason: EntryReason,
    /// Bit 0 of the first byte: VINA is asserted.
    pub vina_status: u8,
    /// Unused.
    pub reserved1: [u8; 3],
    /// RAX a normal (not fast) VTL return restores.
    pub vtl_return_rax: u64,
    /// RCX a normal (not fast) VTL return restores.
    pub vtl_return_rcx: u64,
    /// Nested enlightenments; unused here.
    pub nested_control: [u8; 32],
    /// Virtualization fault information; unused here.
    pub fault_information: [u8; 40],
    /// Unused.
    pub reserved2: [u8; 8],
    /// The intercept, when [`EntryReason::INTERCEPT`].
    pub intercept_message: HvMessage,
    /// Actions at a VTL return; unused here.
    pub vtl_return_actions: [u8; 256],
    /// Unused.
    pub reserved3: [u8; 3472],
}

impl VpAssistPage {
    /// Offset of [`Self::entry_reason`].
    pub const ENTRY_REASON: usize = offset_of!(Self, entry_reason);
    /// Offset of [`Self::vtl_return_rax`].
    pub const VTL_RETURN_RAX: usize = offset_of!(Self, vtl_return_rax);
    /// Offset of [`Self::vtl_return_rcx`].
    pub const VTL_RETURN_RCX: usize = offset_of!(Self, vtl_return_rcx);
}

const _: () = assert!(size_of::<VpAssistPage>() == 4096);
const _: () = assert!(VpAssistPage::ENTRY_REASON == 8);
const _: () = assert!(offset_of!(VpAssistPage, vina_status) == 12);
const _: () = assert!(VpAssistPage::VTL_RETURN_RAX == 16 && VpAssistPage::VTL_RETURN_RCX == 24);
const _: () = assert!(offset_of!(VpAssistPage, nested_control) == 32);
const _: () = assert!(offset_of!(VpAssistPage, fault_information) == 64);
const _: () = assert!(offset_of!(VpAssistPage, intercept_message) == 112);
const _: () = assert!(offset_of!(VpAssistPage, vtl_return_actions) == 368);
