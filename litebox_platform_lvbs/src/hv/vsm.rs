//! Layouts of the VSM registers, the intercept controls and the pending event (TLFS "Virtual Secure Mode").

use core::fmt;

use bitflags::bitflags;

use super::protection::MapFlags;
use super::vtl::Vtl;

/// A 64-bit register with named fields: keeps all bits it was made from.
macro_rules! register_layout {
    ($(#[$meta:meta])* $name:ident, reserved = $reserved:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Bits that must be zero.
            pub const RESERVED: u64 = $reserved;
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

register_layout! {
    /// HvRegisterVsmCodePageOffsets: bits 11:0 offset of the VTL call sequence in the hypercall page, 23:12 of the
    /// VTL return sequence.
    VsmCodePageOffsets, reserved = !0xff_ffff
}

impl VsmCodePageOffsets {
    /// Puts the offsets together, in bytes; each is cut to 12 bits.
    #[must_use]
    pub const fn new(call: u16, ret: u16) -> Self {
        Self((call & 0xfff) as u64 | ((ret & 0xfff) as u64) << 12)
    }

    /// Offset of the VTL call sequence, in bytes.
    #[must_use]
    pub const fn call_offset(self) -> u16 {
        (self.0 & 0xfff) as u16
    }

    /// Offset of the VTL return sequence, in bytes.
    #[must_use]
    pub const fn return_offset(self) -> u16 {
        (self.0 >> 12 & 0xfff) as u16
    }
}

register_layout! {
    /// HvRegisterVsmVpStatus: bits 3:0 active VTL, 4 MBEC active, 31:16 VTLs enabled for the processor.
    VsmVpStatus, reserved = !0xffff_001f
}

impl VsmVpStatus {
    /// Puts the fields together; `enabled` has bit n set when VTL n is enabled.
    #[must_use]
    pub const fn new(active: Vtl, mbec_active: bool, enabled: u16) -> Self {
        Self(active as u64 | (mbec_active as u64) << 4 | (enabled as u64) << 16)
    }

    /// Number of the VTL that is running.
    #[must_use]
    pub const fn active_vtl(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// Whether MBEC is active on the processor.
    #[must_use]
    pub const fn is_mbec_active(self) -> bool {
        self.0 & 1 << 4 != 0
    }

    /// Whether `vtl` is enabled for the processor.
    #[must_use]
    pub const fn is_enabled(self, vtl: Vtl) -> bool {
        self.0 >> 16 & 1 << vtl as u64 != 0
    }
}

register_layout! {
    /// HvRegisterVsmPartitionStatus: bits 15:0 enabled VTLs, 19:16 the highest VTL possible, 35:20 VTLs with MBEC.
    VsmPartitionStatus, reserved = !0xf_ffff_ffff
}

impl VsmPartitionStatus {
    /// Puts the fields together; sets have bit n for VTL n.
    #[must_use]
    pub const fn new(enabled: u16, maximum: Vtl, mbec: u16) -> Self {
        Self(enabled as u64 | (maximum as u64) << 16 | (mbec as u64) << 20)
    }

    /// Whether `vtl` is enabled for the partition.
    #[must_use]
    pub const fn is_enabled(self, vtl: Vtl) -> bool {
        self.0 & 1 << vtl as u64 != 0
    }

    /// Number of the highest VTL possible.
    #[must_use]
    pub const fn maximum_vtl(self) -> u8 {
        (self.0 >> 16 & 0xf) as u8
    }

    /// Whether MBEC is available to `vtl`.
    #[must_use]
    pub const fn has_mbec(self, vtl: Vtl) -> bool {
        self.0 >> 20 & 1 << vtl as u64 != 0
    }
}

register_layout! {
    /// HvRegisterVsmCapabilities: bit 63 DR6 is shared, 62:47 VTLs that can have MBEC, 46 a VTL can deny the start of
    /// processors.
    VsmCapabilities, reserved = (1 << 46) - 1
}

impl VsmCapabilities {
    /// A VTL can deny lower ones to start and reset processors.
    pub const DENY_LOWER_VTL_STARTUP: u64 = 1 << 46;

    /// Whether a VTL can deny lower ones to start and reset processors.
    #[must_use]
    pub const fn can_deny_startup(self) -> bool {
        self.0 & Self::DENY_LOWER_VTL_STARTUP != 0
    }
}

register_layout! {
    /// HvRegisterVsmPartitionConfig: what a VTL wants of the whole partition.
    VsmPartitionConfig, reserved = !0x1fff
}

impl VsmPartitionConfig {
    /// Protections of this VTL apply (write-once).
    pub const ENABLE_VTL_PROTECTION: u64 = 1;
    /// The default protection mask's bits (fixed once set).
    pub const DEFAULT_PROTECTION_MASK: u64 = 0xf << 1;
    /// Memory is zeroed before the partition is reset.
    pub const ZERO_MEMORY_ON_RESET: u64 = 1 << 5;
    /// Lower VTLs may not start or reset processors.
    pub const DENY_LOWER_VTL_STARTUP: u64 = 1 << 6;
    /// Accepting memory is intercepted.
    pub const INTERCEPT_ACCEPTANCE: u64 = 1 << 7;
    /// A lower VTL enabling protections is intercepted.
    pub const INTERCEPT_ENABLE_VTL_PROTECTION: u64 = 1 << 8;
    /// Starting or resetting a processor is intercepted.
    pub const INTERCEPT_VP_STARTUP: u64 = 1 << 9;
    /// Unimplemented CPUID leaves are intercepted.
    pub const INTERCEPT_CPUID_UNIMPLEMENTED: u64 = 1 << 10;
    /// Unrecoverable exceptions are intercepted.
    pub const INTERCEPT_UNRECOVERABLE_EXCEPTION: u64 = 1 << 11;
    /// Intercepts are delivered through the VP assist page.
    pub const INTERCEPT_PAGE: u64 = 1 << 12;

    /// Turns protections on; frames not mentioned so far, and those added later, get `default`.
    #[must_use]
    pub const fn new(default: MapFlags) -> Self {
        Self(Self::ENABLE_VTL_PROTECTION).with_default(default)
    }

    /// With another default protection.
    ///
    /// The mask's order differs from the map flags': TLFS "Default Protection Mask" has UMX in bit 2 and KMX in bit 3.
    #[must_use]
    pub const fn with_default(self, default: MapFlags) -> Self {
        let low = (default.bits() & 3) as u64;
        let user = default.contains(MapFlags::USER_EXECUTE) as u64;
        let kernel = default.contains(MapFlags::KERNEL_EXECUTE) as u64;
        Self(self.0 & !Self::DEFAULT_PROTECTION_MASK | (low | user << 2 | kernel << 3) << 1)
    }

    /// Whether protections of this VTL apply.
    #[must_use]
    pub const fn is_protection_enabled(self) -> bool {
        self.0 & Self::ENABLE_VTL_PROTECTION != 0
    }

    /// Whether lower VTLs may start and reset no processor.
    #[must_use]
    pub const fn denies_startup(self) -> bool {
        self.0 & Self::DENY_LOWER_VTL_STARTUP != 0
    }

    /// The protection of frames not mentioned.
    #[must_use]
    pub const fn default_protection(self) -> MapFlags {
        let mask = self.0 >> 1;
        let mut bits = (mask & 3) as u32;
        if mask & 4 != 0 {
            bits |= MapFlags::USER_EXECUTE.bits();
        }
        if mask & 8 != 0 {
            bits |= MapFlags::KERNEL_EXECUTE.bits();
        }
        MapFlags::from_bits_retain(bits)
    }
}

register_layout! {
    /// HvRegisterVsmVpSecureConfigVtl0: how a higher VTL configures VTL0 on a processor. Bit 0 MBEC, bit 1 TLB lock.
    VsmVpSecureConfig, reserved = !3
}

impl VsmVpSecureConfig {
    /// VTL0 runs with mode-based execute control.
    pub const MBEC: u64 = 1;
    /// VTL0's address space flushes wait; released when the processor returns to VTL0.
    pub const TLB_LOCKED: u64 = 1 << 1;

    /// Whether VTL0 runs with mode-based execute control.
    #[must_use]
    pub const fn is_mbec_enabled(self) -> bool {
        self.0 & Self::MBEC != 0
    }

    /// Whether VTL0's address space flushes wait.
    #[must_use]
    pub const fn is_tlb_locked(self) -> bool {
        self.0 & Self::TLB_LOCKED != 0
    }
}

bitflags! {
    /// HvRegisterCrInterceptControl: which accesses of a lower VTL end in an intercept message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct CrInterceptControl: u64 {
        /// Writes of CR0 that change a bit of the CR0 mask.
        const CR0_WRITE = 1;
        /// Writes of CR4 that change a bit of the CR4 mask.
        const CR4_WRITE = 1 << 1;
        /// Writes of XCR0.
        const XCR0_WRITE = 1 << 2;
        /// Reads of IA32_MISC_ENABLE.
        const IA32_MISC_ENABLE_READ = 1 << 3;
        /// Writes of IA32_MISC_ENABLE.
        const IA32_MISC_ENABLE_WRITE = 1 << 4;
        /// Reads of LSTAR.
        const LSTAR_READ = 1 << 5;
        /// Writes of LSTAR.
        const LSTAR_WRITE = 1 << 6;
        /// Reads of STAR.
        const STAR_READ = 1 << 7;
        /// Writes of STAR.
        const STAR_WRITE = 1 << 8;
        /// Reads of CSTAR.
        const CSTAR_READ = 1 << 9;
        /// Writes of CSTAR.
        const CSTAR_WRITE = 1 << 10;
        /// Reads of APIC_BASE.
        const APIC_BASE_READ = 1 << 11;
        /// Writes of APIC_BASE.
        const APIC_BASE_WRITE = 1 << 12;
        /// Reads of EFER.
        const EFER_READ = 1 << 13;
        /// Writes of EFER.
        const EFER_WRITE = 1 << 14;
        /// LGDT.
        const GDTR_WRITE = 1 << 15;
        /// LIDT.
        const IDTR_WRITE = 1 << 16;
        /// LLDT.
        const LDTR_WRITE = 1 << 17;
        /// LTR.
        const TR_WRITE = 1 << 18;
        /// Writes of SYSENTER_CS.
        const SYSENTER_CS_WRITE = 1 << 19;
        /// Writes of SYSENTER_EIP.
        const SYSENTER_EIP_WRITE = 1 << 20;
        /// Writes of SYSENTER_ESP.
        const SYSENTER_ESP_WRITE = 1 << 21;
        /// Writes of SFMASK.
        const SFMASK_WRITE = 1 << 22;
        /// Writes of TSC_AUX.
        const TSC_AUX_WRITE = 1 << 23;
        /// Writes of the SGX launch control MSRs.
        const SGX_LAUNCH_CONTROL_WRITE = 1 << 24;
        /// Writes of XSS.
        const XSS_WRITE = 1 << 25;
        /// Writes of the SCET MSRs.
        const SCET_WRITE = 1 << 26;
        /// Writes of the privileged shadow stack pointers.
        const PLS_SSP_WRITE = 1 << 27;
        /// Writes of the interrupt shadow stack table.
        const INTERRUPT_SSP_TABLE_ADDR_WRITE = 1 << 28;
    }
}

register_layout! {
    /// HvRegisterPendingEvent0, low half: bit 0 pending, 3:1 type (0 exception), 8 deliver the error code, 31:16
    /// vector, 63:32 error code.
    PendingEvent, reserved = 0xfef0
}

impl PendingEvent {
    /// The #GP(0) that tells VTL0 of a violation: 0x000D0101.
    pub const GENERAL_PROTECTION: Self = Self::exception(13, Some(0));

    /// An exception with this vector and, if it has one, error code.
    #[must_use]
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        let error = match error_code {
            Some(code) => 1 << 8 | (code as u64) << 32,
            None => 0,
        };
        Self(1 | (vector as u64) << 16 | error)
    }

    /// Whether an event waits.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        self.0 & 1 != 0
    }

    /// The kind of event; 0 is an exception.
    #[must_use]
    pub const fn event_type(self) -> u8 {
        (self.0 >> 1 & 7) as u8
    }

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u16 {
        (self.0 >> 16 & 0xffff) as u16
    }

    /// The error code, if one is delivered.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & 1 << 8 != 0 { Some((self.0 >> 32) as u32) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_mask_has_its_own_order() {
        assert_eq!(VsmPartitionConfig::new(MapFlags::ALL).0, 0x1f);
        // TLFS: bit 2 of the mask is user-mode, bit 3 kernel-mode execution.
        let config = VsmPartitionConfig::new(MapFlags::READ_ONLY);
        assert_eq!(config.0, 1 | 0b0101 << 1);
        assert_eq!(config.default_protection(), MapFlags::READ_ONLY);
    }

    #[test]
    fn the_general_protection_event_is_the_contracts_number() {
        assert_eq!(PendingEvent::GENERAL_PROTECTION.0, 0x000d_0101);
        assert_eq!(PendingEvent::GENERAL_PROTECTION.vector(), 13);
        assert_eq!(PendingEvent::GENERAL_PROTECTION.error_code(), Some(0));
        assert_eq!(PendingEvent::GENERAL_PROTECTION.0 & PendingEvent::RESERVED, 0);
    }

    #[test]
    fn status_fields_lie_where_the_tlfs_puts_them() {
        let vp = VsmVpStatus::new(Vtl::Vtl1, true, 0b11);
        assert_eq!(vp.0, 0x0003_0011);
        assert!(vp.is_enabled(Vtl::Vtl0) && vp.is_enabled(Vtl::Vtl1) && vp.is_mbec_active());
        let partition = VsmPartitionStatus::new(0b11, Vtl::Vtl1, 0b10);
        assert_eq!(partition.0, 0x0021_0003);
        assert!(partition.has_mbec(Vtl::Vtl1) && !partition.has_mbec(Vtl::Vtl0));
        assert_eq!(VsmCodePageOffsets::new(0x20, 0x41).0, 0x4_1020);
    }
}
