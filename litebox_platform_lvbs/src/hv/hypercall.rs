//! The hypercall ABI: call codes, control and result words, input layouts (TLFS "Hypercall Interface").
//!
//! Register mapping on x64: RCX control, RDX guest-physical address of the input, R8 of the output, RAX result. Input
//! and output are 8-byte aligned and lie within a page each.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::context::InitialVpContext;
use super::register::{HvRegisterName, HvRegisterValue};
use super::status::HvStatus;
use super::vtl::InputVtl;

/// A call code (TLFS appendix "Hypercall Code Reference").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct HypercallCode(pub u16);

macro_rules! codes {
    ($($name:ident = $value:literal, $tlfs:literal: $text:literal;)*) => {
        impl HypercallCode {
            $(
                #[doc = concat!($tlfs, ": ", $text)]
                pub const $name: Self = Self($value);
            )*

            /// The TLFS name, if the code is one this project knows.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($tlfs),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    MODIFY_VTL_PROTECTION_MASK = 0x000c, "HvCallModifyVtlProtectionMask": "sets a lower VTL's rights to frames (rep).";
    ENABLE_PARTITION_VTL = 0x000d, "HvCallEnablePartitionVtl": "enables a VTL for the partition.";
    ENABLE_VP_VTL = 0x000f, "HvCallEnableVpVtl": "enables a VTL for a processor and sets its initial context.";
    VTL_CALL = 0x0011, "HvCallVtlCall": "enters the next higher VTL; made through the code page only.";
    VTL_RETURN = 0x0012, "HvCallVtlReturn": "returns to the next lower VTL; made through the code page only.";
    FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013, "HvCallFlushVirtualAddressSpaceEx": "flushes address spaces.";
    FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014, "HvCallFlushVirtualAddressListEx": "flushes address ranges (rep).";
    GET_VP_REGISTERS = 0x0050, "HvCallGetVpRegisters": "reads registers of a processor (rep).";
    SET_VP_REGISTERS = 0x0051, "HvCallSetVpRegisters": "writes registers of a processor (rep).";
    START_VIRTUAL_PROCESSOR = 0x0099, "HvCallStartVirtualProcessor": "starts a processor in a VTL.";
    GET_VP_INDEX_FROM_APIC_ID = 0x009a, "HvCallGetVpIndexFromApicId": "translates APIC ids (rep).";
}

impl fmt::Display for HypercallCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "hypercall {:#06x}", self.0),
        }
    }
}

impl fmt::Debug for HypercallCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The control word: call code 15:0, fast 16, variable header size in 8-byte units 26:17, nested 31, rep count
/// 43:32, rep start index 59:48; the rest is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct HypercallControl(u64);

impl HypercallControl {
    /// The largest rep count, rep start index and reps-done count: 12 bits.
    pub const MAX_REPS: u16 = 0xfff;
    /// The largest variable header, in 8-byte units: 10 bits.
    pub const MAX_VARIABLE_HEADER: u16 = 0x3ff;
    /// Bits that must be zero.
    pub const RESERVED: u64 = 0xf << 27 | 0xf << 44 | 0xf << 60;
    const FAST: u64 = 1 << 16;
    const NESTED: u64 = 1 << 31;

    /// A simple hypercall without variable header.
    #[must_use]
    pub const fn new(code: HypercallCode) -> Self {
        Self(code.0 as u64)
    }

    /// The word as a guest passed it, with all of its bits.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// With a rep count; `reps` is cut to 12 bits.
    #[must_use]
    pub const fn with_reps(self, reps: u16) -> Self {
        Self(self.0 & !(0xfff << 32) | ((reps & Self::MAX_REPS) as u64) << 32)
    }

    /// With the index of the first list element to process; `start` is cut to 12 bits.
    #[must_use]
    pub const fn with_rep_start(self, start: u16) -> Self {
        Self(self.0 & !(0xfff << 48) | ((start & Self::MAX_REPS) as u64) << 48)
    }

    /// With a variable header of `qwords` 8-byte units; cut to 10 bits.
    #[must_use]
    pub const fn with_varhead(self, qwords: u16) -> Self {
        Self(self.0 & !(0x3ff << 17) | ((qwords & Self::MAX_VARIABLE_HEADER) as u64) << 17)
    }

    /// The register value.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The call code.
    #[must_use]
    pub const fn code(self) -> HypercallCode {
        HypercallCode((self.0 & 0xffff) as u16)
    }

    /// Whether the input lies in registers instead of memory.
    #[must_use]
    pub const fn is_fast(self) -> bool {
        self.0 & Self::FAST != 0
    }

    /// Whether the call is meant for a nested hypervisor's parent.
    #[must_use]
    pub const fn is_nested(self) -> bool {
        self.0 & Self::NESTED != 0
    }

    /// Size of the variable header, in 8-byte units.
    #[must_use]
    pub const fn varhead(self) -> u16 {
        (self.0 >> 17 & 0x3ff) as u16
    }

    /// Number of list elements.
    #[must_use]
    pub const fn reps(self) -> u16 {
        (self.0 >> 32 & 0xfff) as u16
    }

    /// Index of the first list element to process.
    #[must_use]
    pub const fn rep_start(self) -> u16 {
        (self.0 >> 48 & 0xfff) as u16
    }
}

impl fmt::Debug for HypercallControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        if self.reps() != 0 {
            write!(f, "[{}..{}]", self.rep_start(), self.reps())?;
        }
        Ok(())
    }
}

/// The result word in RAX: status 15:0, reps done 43:32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct HypercallResult(pub u64);

impl HypercallResult {
    /// Puts a result word together; `reps_done` is cut to 12 bits.
    #[must_use]
    pub const fn new(status: HvStatus, reps_done: u16) -> Self {
        Self(status.0 as u64 | ((reps_done & HypercallControl::MAX_REPS) as u64) << 32)
    }

    /// The status code.
    #[must_use]
    pub const fn status(self) -> HvStatus {
        HvStatus((self.0 & 0xffff) as u16)
    }

    /// Number of list elements completed, counted from the list's first element.
    #[must_use]
    pub const fn reps_done(self) -> u16 {
        (self.0 >> 32 & 0xfff) as u16
    }
}

/// Input of HvCallEnablePartitionVtl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EnablePartitionVtl {
    /// Partition, or [`PARTITION_ID_SELF`](super::PARTITION_ID_SELF).
    pub partition: u64,
    /// Number of the VTL to enable.
    pub target_vtl: u8,
    /// Bit 0: make MBEC available to the VTL; other bits zero.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

impl EnablePartitionVtl {
    /// [`Self::flags`]: make MBEC available.
    pub const ENABLE_MBEC: u8 = 1;
}

/// Input of HvCallEnableVpVtl, 240 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EnableVpVtl {
    /// Partition, or [`PARTITION_ID_SELF`](super::PARTITION_ID_SELF).
    pub partition: u64,
    /// Processor, or [`VP_INDEX_SELF`](super::VP_INDEX_SELF).
    pub vp_index: u32,
    /// Number of the VTL to enable (a plain number, not an [`InputVtl`]).
    pub target_vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// What the processor starts the VTL with.
    pub context: InitialVpContext,
}

/// Header of HvCallModifyVtlProtectionMask's input; a list of u64 frame numbers follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ModifyVtlProtectionMask {
    /// Partition, or [`PARTITION_ID_SELF`](super::PARTITION_ID_SELF).
    pub partition: u64,
    /// The rights, [`MapFlags`](super::MapFlags) bits.
    pub map_flags: u32,
    /// The VTL whose protections on lower VTLs are changed.
    pub input_vtl: InputVtl,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Header of the input of HvCallGetVpRegisters (a list of u32 names follows) and HvCallSetVpRegisters (a list of
/// [`SetRegister`] follows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VpRegistersHeader {
    /// Partition, or [`PARTITION_ID_SELF`](super::PARTITION_ID_SELF).
    pub partition: u64,
    /// Processor, or [`VP_INDEX_SELF`](super::VP_INDEX_SELF).
    pub vp_index: u32,
    /// The VTL whose registers are meant.
    pub input_vtl: InputVtl,
    /// Zero.
    pub reserved: [u8; 3],
}

/// List element of HvCallSetVpRegisters, 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetRegister {
    /// Which register.
    pub name: HvRegisterName,
    /// Zero.
    pub reserved: [u32; 3],
    /// The value to write.
    pub value: HvRegisterValue,
}

/// Bytes a page of hypercall input or output holds.
pub const HYPERCALL_PAGE_BYTES: usize = 4096;
/// Frames one HvCallModifyVtlProtectionMask can take: 510.
pub const MODIFY_VTL_PROTECTION_MASK_MAX_GFNS: usize =
    (HYPERCALL_PAGE_BYTES - size_of::<ModifyVtlProtectionMask>()) / size_of::<u64>();
/// Registers one HvCallGetVpRegisters can take: 256, set by its output page.
pub const MAX_GET_REGISTERS: usize = HYPERCALL_PAGE_BYTES / size_of::<HvRegisterValue>();
/// Registers one HvCallSetVpRegisters can take: 127.
pub const MAX_SET_REGISTERS: usize = (HYPERCALL_PAGE_BYTES - size_of::<VpRegistersHeader>()) / size_of::<SetRegister>();

const _: () = assert!(size_of::<EnablePartitionVtl>() == 16);
const _: () = assert!(size_of::<EnableVpVtl>() == 240 && offset_of!(EnableVpVtl, context) == 16);
const _: () = assert!(offset_of!(EnableVpVtl, vp_index) == 8 && offset_of!(EnableVpVtl, target_vtl) == 12);
const _: () = assert!(size_of::<ModifyVtlProtectionMask>() == 16);
const _: () = assert!(offset_of!(ModifyVtlProtectionMask, input_vtl) == 12);
const _: () = assert!(size_of::<VpRegistersHeader>() == 16 && offset_of!(VpRegistersHeader, input_vtl) == 12);
const _: () = assert!(size_of::<SetRegister>() == 32 && offset_of!(SetRegister, value) == 16);
const _: () =
    assert!(MODIFY_VTL_PROTECTION_MASK_MAX_GFNS == 510 && MAX_GET_REGISTERS == 256 && MAX_SET_REGISTERS == 127);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_fields_lie_where_the_tlfs_puts_them() {
        let control = HypercallControl::new(HypercallCode(0x14)).with_reps(0xabc).with_rep_start(0x123).with_varhead(2);
        assert_eq!(control.raw(), 0x0123_0abc_0004_0014);
        assert_eq!((control.reps(), control.rep_start(), control.varhead()), (0xabc, 0x123, 2));
        assert_eq!(control.raw() & HypercallControl::RESERVED, 0);
        assert_eq!(HypercallControl::RESERVED, 0xf000_f000_7800_0000);
        assert_eq!(control.with_reps(1).reps(), 1);
    }

    #[test]
    fn result_fields_lie_where_the_tlfs_puts_them() {
        let result = HypercallResult(0x0000_01fe_0000_0005);
        assert_eq!((result.status(), result.reps_done()), (HvStatus::INVALID_PARAMETER, 510));
        assert_eq!(HypercallResult::new(HvStatus(5), 510), result);
    }
}
