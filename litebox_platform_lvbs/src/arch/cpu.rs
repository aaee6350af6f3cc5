//! The features the processor must have, and the control registers VTL1 runs with.

use core::arch::x86_64::{__cpuid, __cpuid_count};

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// A feature VTL1 cannot do without, by its name in the SDM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature(pub &'static str);

impl core::fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the processor lacks {}", self.0)
    }
}

/// Checks the features the image relies on (Intel SDM vol. 2, CPUID).
pub fn check_features() -> Result<(), MissingFeature> {
    let basic = __cpuid(1);
    let extended = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    let amd = if __cpuid(0x8000_0000).eax >= 0x8000_0001 { __cpuid(0x8000_0001).edx } else { 0 };
    for (present, name) in [
        (basic.edx & (1 << 24) != 0, "FXSAVE"),
        (basic.edx & (1 << 25) != 0, "SSE"),
        (basic.edx & (1 << 26) != 0, "SSE2"),
        (amd & (1 << 20) != 0, "NX"),
        (extended & 1 != 0, "FSGSBASE"),
        (extended & (1 << 7) != 0, "SMEP"),
        (extended & (1 << 20) != 0, "SMAP"),
    ] {
        if !present {
            return Err(MissingFeature(name));
        }
    }
    Ok(())
}

/// Sets the calling processor's control registers to what [`values`] says.
pub fn set_control_registers() {
    // SAFETY: paging, long mode and the present map stay as they are; the bits added only forbid (WP, NX, SMEP, SMAP,
    // UMIP) or enable instructions the image uses (FXSAVE, SSE, RDGSBASE); `check_features` has seen them.
    unsafe {
        Efer::write(Efer::read() | EferFlags::NO_EXECUTE_ENABLE);
        Cr0::write(
            (Cr0::read() | Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR | Cr0Flags::MONITOR_COPROCESSOR)
                - Cr0Flags::EMULATE_COPROCESSOR
                - Cr0Flags::TASK_SWITCHED,
        );
        let umip = if __cpuid_count(7, 0).ecx & (1 << 2) != 0 {
            Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION
        } else {
            Cr4Flags::empty()
        };
        Cr4::write(
            Cr4::read()
                | Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
                | Cr4Flags::PAGE_GLOBAL
                // Without it a machine check is a shutdown, and its gate in the IDT is never used.
                | Cr4Flags::MACHINE_CHECK_EXCEPTION
                | Cr4Flags::OSFXSR
                | Cr4Flags::OSXMMEXCPT_ENABLE
                | Cr4Flags::FSGSBASE
                | Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION
                | Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION
                | umip,
        );
    }
}
