//! Register names and values of HvCallGetVpRegisters and HvCallSetVpRegisters (TLFS "Virtual Processor Register
//! Formats", `HV_REGISTER_NAME`, `HV_REGISTER_VALUE`).

use core::fmt;
use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::context::{SegmentRegister, TableRegister};

/// A register's name: an open number, for a hypervisor may know more than are listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct HvRegisterName(pub u32);

macro_rules! registers {
    ($($name:ident = $value:literal: $text:literal;)*) => {
        impl HvRegisterName {
            /// Every register with a name here.
            pub const KNOWN: &'static [Self] = &[$(Self($value),)*];

            $(
                #[doc = $text]
                pub const $name: Self = Self($value);
            )*

            /// The name as this project spells it, if the number is a known one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

registers! {
    PENDING_EVENT0 = 0x0001_0004: "The event delivered at the next entry to the VTL ([`PendingEvent`](super::PendingEvent)).";
    RAX = 0x0002_0000: "RAX, shared by the VTLs.";
    RCX = 0x0002_0001: "RCX, shared by the VTLs.";
    RDX = 0x0002_0002: "RDX, shared by the VTLs.";
    RBX = 0x0002_0003: "RBX, shared by the VTLs.";
    RSP = 0x0002_0004: "Stack pointer.";
    RBP = 0x0002_0005: "RBP, shared by the VTLs.";
    RSI = 0x0002_0006: "RSI, shared by the VTLs.";
    RDI = 0x0002_0007: "RDI, shared by the VTLs.";
    R8 = 0x0002_0008: "R8, shared by the VTLs.";
    R9 = 0x0002_0009: "R9, shared by the VTLs.";
    R10 = 0x0002_000a: "R10, shared by the VTLs.";
    R11 = 0x0002_000b: "R11, shared by the VTLs.";
    R12 = 0x0002_000c: "R12, shared by the VTLs.";
    R13 = 0x0002_000d: "R13, shared by the VTLs.";
    R14 = 0x0002_000e: "R14, shared by the VTLs.";
    R15 = 0x0002_000f: "R15, shared by the VTLs.";
    RIP = 0x0002_0010: "Instruction pointer.";
    RFLAGS = 0x0002_0011: "Flags.";
    CR0 = 0x0004_0000: "Control register 0.";
    CR2 = 0x0004_0001: "Control register 2, shared by the VTLs.";
    CR3 = 0x0004_0002: "Control register 3.";
    CR4 = 0x0004_0003: "Control register 4.";
    CR8 = 0x0004_0004: "Control register 8 (TPR).";
    XFEM = 0x0004_0005: "XCR0, shared by the VTLs.";
    DR6 = 0x0005_0004: "Debug status.";
    DR7 = 0x0005_0005: "Debug control.";
    ES = 0x0006_0000: "ES segment.";
    CS = 0x0006_0001: "Code segment.";
    SS = 0x0006_0002: "Stack segment.";
    DS = 0x0006_0003: "Data segment.";
    FS = 0x0006_0004: "FS segment.";
    GS = 0x0006_0005: "GS segment.";
    LDTR = 0x0006_0006: "Local descriptor table register.";
    TR = 0x0006_0007: "Task register.";
    IDTR = 0x0007_0000: "Interrupt descriptor table register.";
    GDTR = 0x0007_0001: "Global descriptor table register.";
    TSC = 0x0008_0000: "Time-stamp counter.";
    EFER = 0x0008_0001: "Extended features (MSR 0xC0000080).";
    KERNEL_GS_BASE = 0x0008_0002: "KERNEL_GS_BASE (MSR 0xC0000102).";
    APIC_BASE = 0x0008_0003: "APIC base (MSR 0x1B).";
    PAT = 0x0008_0004: "Page attribute table (MSR 0x277).";
    SYSENTER_CS = 0x0008_0005: "SYSENTER code segment (MSR 0x174).";
    SYSENTER_EIP = 0x0008_0006: "SYSENTER instruction pointer (MSR 0x176).";
    SYSENTER_ESP = 0x0008_0007: "SYSENTER stack pointer (MSR 0x175).";
    STAR = 0x0008_0008: "SYSCALL segments (MSR 0xC0000081).";
    LSTAR = 0x0008_0009: "SYSCALL target (MSR 0xC0000082).";
    CSTAR = 0x0008_000a: "SYSCALL target in compatibility mode (MSR 0xC0000083).";
    SFMASK = 0x0008_000b: "SYSCALL flag mask (MSR 0xC0000084).";
    TSC_AUX = 0x0008_007b: "TSC_AUX (MSR 0xC0000103).";
    MISC_ENABLE = 0x0008_00a0: "IA32_MISC_ENABLE (MSR 0x1A0); Intel's processors only.";
    HYPERCALL = 0x0009_0001: "A VTL's hypercall page (MSR 0x40000001).";
    VSM_CODE_PAGE_OFFSETS = 0x000d_0002: "Where the hypercall page holds the VTL call and return sequences.";
    VSM_VP_STATUS = 0x000d_0003: "Which VTLs the processor has, and which is active.";
    VSM_PARTITION_STATUS = 0x000d_0004: "Which VTLs the partition has.";
    VSM_VINA = 0x000d_0005: "Virtual interrupt notification assist.";
    VSM_CAPABILITIES = 0x000d_0006: "What VSM can do here.";
    VSM_PARTITION_CONFIG = 0x000d_0007: "A VTL's partition-wide configuration.";
    VSM_VP_SECURE_CONFIG_VTL0 = 0x000d_0010: "How a higher VTL configures VTL0 on this processor.";
    CR_INTERCEPT_CONTROL = 0x000e_0000: "Which register accesses of lower VTLs are intercepted.";
    CR_INTERCEPT_CR0_MASK = 0x000e_0001: "Bits of CR0 whose change is intercepted.";
    CR_INTERCEPT_CR4_MASK = 0x000e_0002: "Bits of CR4 whose change is intercepted.";
    CR_INTERCEPT_IA32_MISC_ENABLE_MASK = 0x000e_0003: "Bits of IA32_MISC_ENABLE whose change is intercepted.";
}

impl fmt::Display for HvRegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "register {:#010x}", self.0),
        }
    }
}

impl fmt::Debug for HvRegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A register's value, 16 bytes. Registers of 64 bits and less use the low half and leave the high half zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvRegisterValue {
    /// Bits 63:0.
    pub low: u64,
    /// Bits 127:64.
    pub high: u64,
}

impl HvRegisterValue {
    /// A 64-bit value.
    #[must_use]
    pub const fn from_u64(low: u64) -> Self {
        Self { low, high: 0 }
    }

    /// A 128-bit value.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
    pub const fn from_u128(value: u128) -> Self {
        Self { low: value as u64, high: (value >> 64) as u64 }
    }

    /// All 128 bits.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.low as u128 | (self.high as u128) << 64
    }

    /// A segment register's value.
    #[must_use]
    pub fn from_segment(segment: SegmentRegister) -> Self {
        zerocopy::transmute!(segment)
    }

    /// As a segment register.
    #[must_use]
    pub fn as_segment(self) -> SegmentRegister {
        zerocopy::transmute!(self)
    }

    /// A descriptor table register's value.
    #[must_use]
    pub fn from_table(table: TableRegister) -> Self {
        zerocopy::transmute!(table)
    }

    /// As a descriptor table register.
    #[must_use]
    pub fn as_table(self) -> TableRegister {
        zerocopy::transmute!(self)
    }
}

impl From<u64> for HvRegisterValue {
    fn from(low: u64) -> Self {
        Self::from_u64(low)
    }
}

impl fmt::Debug for HvRegisterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.as_u128())
    }
}

impl fmt::Display for HvRegisterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const _: () = assert!(size_of::<HvRegisterName>() == 4);
const _: () = assert!(size_of::<HvRegisterValue>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_shown() {
        let mut numbers: Vec<u32> = HvRegisterName::KNOWN.iter().map(|name| name.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), HvRegisterName::KNOWN.len());
        assert_eq!(HvRegisterName::CR0.to_string(), "CR0");
        assert_eq!(HvRegisterName(0x999).to_string(), "register 0x00000999");
    }

    #[test]
    fn composite_values_round_trip() {
        let gdtr = TableRegister { pad: [0; 3], limit: 0x1f, base: 0x1234_5000 };
        let value = HvRegisterValue::from_table(gdtr);
        assert_eq!((value.low, value.high), (0x1f << 48, 0x1234_5000));
        assert_eq!(value.as_table(), gdtr);
        let cs = SegmentRegister { base: 0, limit: 0, selector: 8, attributes: 0x209b };
        assert_eq!(HvRegisterValue::from_segment(cs).high, 0x209b_0008_0000_0000);
        assert_eq!(HvRegisterValue::from_u128(1 << 64 | 2).as_u128(), 1 << 64 | 2);
    }
}
