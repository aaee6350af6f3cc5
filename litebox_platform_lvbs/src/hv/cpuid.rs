//! CPUID leaves that describe the hypervisor (TLFS "Feature and Interface Discovery").

use bitflags::bitflags;

/// CPUID leaf 1, ECX: a hypervisor is present.
pub const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// EAX: highest leaf; EBX, ECX, EDX: vendor.
pub const LEAF_VENDOR: u32 = 0x4000_0000;
/// EAX: interface signature.
pub const LEAF_INTERFACE: u32 = 0x4000_0001;
/// Version.
pub const LEAF_VERSION: u32 = 0x4000_0002;
/// EAX and EBX: partition privileges; EDX: features.
pub const LEAF_FEATURES: u32 = 0x4000_0003;
/// Recommendations.
pub const LEAF_RECOMMENDATIONS: u32 = 0x4000_0004;
/// EAX: processors supported.
pub const LEAF_LIMITS: u32 = 0x4000_0005;
/// [`LEAF_FEATURES`], EDX: the MSRs with the frequencies of the time-stamp counter and the local APIC's timer are there.
pub const FEATURE_FREQUENCIES: u32 = 1 << 8;
/// The interface signature "Hv#1".
pub const INTERFACE_HV1: u32 = 0x3123_7648;
/// The vendor "Microsoft Hv" as EBX, ECX, EDX of [`LEAF_VENDOR`].
pub const VENDOR_MICROSOFT_HV: [u32; 3] = [0x7263_694d, 0x666f_736f, 0x7648_2074];

bitflags! {
    /// Partition privileges (TLFS `HV_PARTITION_PRIVILEGE_MASK`): bits 31:0 from EAX, 63:32 from EBX of
    /// [`LEAF_FEATURES`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Privileges: u64 {
        /// The partition reference counter.
        const ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 1;
        /// SynIC MSRs.
        const ACCESS_SYNIC_REGS = 1 << 2;
        /// Synthetic timers.
        const ACCESS_SYNTHETIC_TIMER_REGS = 1 << 3;
        /// APIC access MSRs and the VP assist page.
        const ACCESS_INTR_CTRL_REGS = 1 << 4;
        /// GUEST_OS_ID and HYPERCALL.
        const ACCESS_HYPERCALL_MSRS = 1 << 5;
        /// VP_INDEX.
        const ACCESS_VP_INDEX = 1 << 6;
        /// The reference TSC page.
        const ACCESS_PARTITION_REFERENCE_TSC = 1 << 9;
        /// The frequencies' MSRs.
        const ACCESS_FREQUENCY_REGS = 1 << 11;
        /// Control of the invariant TSC.
        const ACCESS_TSC_INVARIANT_CONTROLS = 1 << 15;
        /// Virtual secure mode.
        const ACCESS_VSM = 1 << (32 + 16);
        /// HvCallGetVpRegisters and HvCallSetVpRegisters.
        const ACCESS_VP_REGISTERS = 1 << (32 + 17);
        /// HvCallStartVirtualProcessor.
        const START_VIRTUAL_PROCESSOR = 1 << (32 + 21);
    }
}

impl Privileges {
    /// What a partition needs to use VSM (TLFS "VSM Detection and Status").
    pub const VSM: Self = Self::ACCESS_VSM.union(Self::ACCESS_VP_REGISTERS).union(Self::ACCESS_SYNIC_REGS);

    /// From EAX and EBX of [`LEAF_FEATURES`]; bits without a name are kept.
    #[must_use]
    pub const fn from_leaf(eax: u32, ebx: u32) -> Self {
        Self::from_bits_retain(eax as u64 | (ebx as u64) << 32)
    }
}
