//! Synthetic MSRs (TLFS "Hypervisor Synthetic MSRs") and the architectural MSRs whose accesses VTL1 intercepts.

/// Identity of the guest operating system; must be non-zero before the hypercall page can be enabled.
pub const GUEST_OS_ID: u32 = 0x4000_0000;
/// Hypercall page: bit 0 enable, bit 1 locked, bits 63:12 frame number.
pub const HYPERCALL: u32 = 0x4000_0001;
/// Index of the calling processor (read only).
pub const VP_INDEX: u32 = 0x4000_0002;
/// Time since the partition was made, in units of 100 ns, the same on all processors (read only).
pub const TIME_REF_COUNT: u32 = 0x4000_0020;
/// Reference TSC page: bit 0 enable, bits 63:12 frame number.
pub const REFERENCE_TSC: u32 = 0x4000_0021;
/// Frequency of the time-stamp counter in Hz (read only).
pub const TSC_FREQUENCY: u32 = 0x4000_0022;
/// Frequency of the local APIC's timer in Hz (read only).
pub const APIC_FREQUENCY: u32 = 0x4000_0023;
/// VP assist page: bit 0 enable, bits 63:12 frame number.
pub const VP_ASSIST_PAGE: u32 = 0x4000_0073;
/// SynIC control: bit 0 enable.
pub const SCONTROL: u32 = 0x4000_0080;
/// SynIC version (read only).
pub const SVERSION: u32 = 0x4000_0081;
/// SynIC event flags page: bit 0 enable, bits 63:12 frame number.
pub const SIEFP: u32 = 0x4000_0082;
/// SynIC message page: bit 0 enable, bits 63:12 frame number.
pub const SIMP: u32 = 0x4000_0083;
/// SynIC end of message (write only).
pub const EOM: u32 = 0x4000_0084;
/// First synthetic interrupt source; there are [`SINT_COUNT`].
pub const SINT0: u32 = 0x4000_0090;
/// Number of synthetic interrupt sources.
pub const SINT_COUNT: u32 = 16;
/// Control of the invariant TSC: bit 0, CPUID shows it.
pub const TSC_INVARIANT_CONTROL: u32 = 0x4000_0118;

/// Bit 0 of the page MSRs: the page is enabled.
pub const PAGE_ENABLE: u64 = 1;
/// [`HYPERCALL`]: no more writes are accepted until reset.
pub const HYPERCALL_LOCKED: u64 = 1 << 1;
/// The frame bits of the page MSRs.
pub const PAGE_FRAME_MASK: u64 = !0xfff;
/// [`SCONTROL`]: the SynIC is enabled.
pub const SCONTROL_ENABLE: u64 = 1;
/// What [`SVERSION`] reads.
pub const SVERSION_VALUE: u64 = 1;

/// A synthetic interrupt source's register: vector 7:0, masked 16, auto-EOI 17, polling 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Sint(pub u64);

impl Sint {
    /// No interrupt is requested.
    pub const MASKED: u64 = 1 << 16;
    /// The interrupt ends by itself.
    pub const AUTO_EOI: u64 = 1 << 17;
    /// No interrupt is requested; the guest polls.
    pub const POLLING: u64 = 1 << 18;
    /// The value after reset: masked.
    pub const RESET: Self = Self(Self::MASKED);
    /// Vectors below this are reserved for exceptions and refused.
    pub const FIRST_VECTOR: u8 = 16;

    /// An unmasked source with automatic EOI.
    #[must_use]
    pub const fn auto_eoi(vector: u8) -> Self {
        Self(vector as u64 | Self::AUTO_EOI)
    }

    /// The interrupt vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Whether an interrupt is requested at all.
    #[must_use]
    pub const fn is_unmasked(self) -> bool {
        self.0 & (Self::MASKED | Self::POLLING) == 0
    }
}

/// The value of a page MSR that enables the page at `address`, which must be page-aligned.
#[must_use]
pub const fn page_enabled(address: u64) -> u64 {
    address & PAGE_FRAME_MASK | PAGE_ENABLE
}

/// An open-source operating system's [`GUEST_OS_ID`] (TLFS "Reporting the Guest OS Identity"): bit 63 open source, 62:56
/// type, 47:16 version, 15:0 build.
#[must_use]
pub const fn guest_os_id(os_type: u8, version: u32, build: u16) -> u64 {
    1 << 63 | (os_type as u64 & 0x7f) << 56 | (version as u64) << 16 | build as u64
}

/// APIC_BASE (Intel SDM vol. 4, `IA32_APIC_BASE`).
pub const APIC_BASE: u32 = 0x1b;
/// SYSENTER code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER instruction pointer.
pub const SYSENTER_EIP: u32 = 0x176;
/// IA32_MISC_ENABLE.
pub const MISC_ENABLE: u32 = 0x1a0;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// Extended features.
pub const EFER: u32 = 0xc000_0080;
/// SYSCALL segments.
pub const STAR: u32 = 0xc000_0081;
/// SYSCALL target.
pub const LSTAR: u32 = 0xc000_0082;
/// SYSCALL target in compatibility mode.
pub const CSTAR: u32 = 0xc000_0083;
/// SYSCALL flag mask.
pub const SFMASK: u32 = 0xc000_0084;
/// FS segment base.
pub const FS_BASE: u32 = 0xc000_0100;
/// GS segment base.
pub const GS_BASE: u32 = 0xc000_0101;
/// The GS base SWAPGS exchanges.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// TSC_AUX.
pub const TSC_AUX: u32 = 0xc000_0103;

/// The name of an MSR listed here.
#[must_use]
pub const fn name(msr: u32) -> Option<&'static str> {
    Some(match msr {
        GUEST_OS_ID => "GUEST_OS_ID",
        HYPERCALL => "HYPERCALL",
        VP_INDEX => "VP_INDEX",
        TIME_REF_COUNT => "TIME_REF_COUNT",
        REFERENCE_TSC => "REFERENCE_TSC",
        TSC_FREQUENCY => "TSC_FREQUENCY",
        APIC_FREQUENCY => "APIC_FREQUENCY",
        TSC_INVARIANT_CONTROL => "TSC_INVARIANT_CONTROL",
        VP_ASSIST_PAGE => "VP_ASSIST_PAGE",
        SCONTROL => "SCONTROL",
        SVERSION => "SVERSION",
        SIEFP => "SIEFP",
        SIMP => "SIMP",
        EOM => "EOM",
        SINT0 => "SINT0",
        0x4000_0091..=0x4000_009f => "SINTx",
        APIC_BASE => "APIC_BASE",
        SYSENTER_CS => "SYSENTER_CS",
        SYSENTER_ESP => "SYSENTER_ESP",
        SYSENTER_EIP => "SYSENTER_EIP",
        MISC_ENABLE => "MISC_ENABLE",
        PAT => "PAT",
        EFER => "EFER",
        STAR => "STAR",
        LSTAR => "LSTAR",
        CSTAR => "CSTAR",
        SFMASK => "SFMASK",
        FS_BASE => "FS_BASE",
        GS_BASE => "GS_BASE",
        KERNEL_GS_BASE => "KERNEL_GS_BASE",
        TSC_AUX => "TSC_AUX",
        _ => return None,
    })
}
