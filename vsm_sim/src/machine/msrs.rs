//! Architectural MSRs the engine does not keep, and which accesses it has to stop at.

use litebox_platform_lvbs::hv::{CrInterceptControl as C, HvRegisterName, msr};

use crate::engine::Intercepts;
use crate::hv::RegisterFile;

/// APIC enabled at its reset address (Intel SDM vol. 3 §11.4.4); bit 8 marks the boot processor.
const APIC_BASE_RESET: u64 = 0xFEE0_0800;
const APIC_BASE_BSP: u64 = 1 << 8;
/// IA32_MISC_ENABLE: fast string operations.
const MISC_ENABLE_RESET: u64 = 1;

/// The MSRs of one VTL that the engine does not keep.
#[derive(Clone, Copy, Debug)]
pub struct Msrs {
    apic_base: u64,
    tsc_aux: u64,
    misc_enable: u64,
}

impl Msrs {
    /// The values after reset.
    #[must_use]
    pub fn new(vp: u32) -> Self {
        let bsp = if vp == 0 { APIC_BASE_BSP } else { 0 };
        Self { apic_base: APIC_BASE_RESET | bsp, tsc_aux: 0, misc_enable: MISC_ENABLE_RESET }
    }

    fn field(&mut self, number: u32) -> Option<&mut u64> {
        Some(match number {
            msr::APIC_BASE => &mut self.apic_base,
            msr::TSC_AUX => &mut self.tsc_aux,
            msr::MISC_ENABLE => &mut self.misc_enable,
            _ => return None,
        })
    }

    /// The MSR's value; `None` for one that is not kept here.
    #[must_use]
    pub fn read(mut self, number: u32) -> Option<u64> {
        self.field(number).copied()
    }

    /// Writes the MSR; whether it is one that is kept here.
    pub fn write(&mut self, number: u32, value: u64) -> bool {
        match self.field(number) {
            Some(field) => {
                *field = value;
                true
            }
            None => false,
        }
    }

    /// Loads the model's file.
    pub fn load(&self, file: &mut RegisterFile) {
        file.load(HvRegisterName::APIC_BASE, self.apic_base);
        file.load(HvRegisterName::TSC_AUX, self.tsc_aux);
        file.load(HvRegisterName::MISC_ENABLE, self.misc_enable);
    }

    /// Applies a register the model has written.
    pub fn apply(&mut self, name: HvRegisterName, value: u64) {
        match name {
            HvRegisterName::APIC_BASE => self.apic_base = value,
            HvRegisterName::TSC_AUX => self.tsc_aux = value,
            HvRegisterName::MISC_ENABLE => self.misc_enable = value,
            // Everything else is synthetic and lives in the model.
            _ => {}
        }
    }
}

/// What the engine has to stop at when VTL1 wants the intercepts `control`. The masks are the model's business. MSRs that
/// are not listed here stop always.
#[must_use]
pub fn intercepts(control: u64) -> Intercepts {
    let control = C::from_bits_retain(control);
    let chosen = |list: &[(C, u32)]| {
        list.iter().filter(|(bit, _)| control.contains(*bit)).map(|(_, number)| *number).collect::<Vec<_>>()
    };
    Intercepts {
        cr0_write: control.contains(C::CR0_WRITE),
        cr4_write: control.contains(C::CR4_WRITE),
        gdtr_write: control.contains(C::GDTR_WRITE),
        idtr_write: control.contains(C::IDTR_WRITE),
        ldtr_write: control.contains(C::LDTR_WRITE),
        tr_write: control.contains(C::TR_WRITE),
        msr_reads: chosen(&[
            (C::LSTAR_READ, msr::LSTAR),
            (C::STAR_READ, msr::STAR),
            (C::CSTAR_READ, msr::CSTAR),
            (C::EFER_READ, msr::EFER),
        ]),
        msr_writes: chosen(&[
            (C::LSTAR_WRITE, msr::LSTAR),
            (C::STAR_WRITE, msr::STAR),
            (C::CSTAR_WRITE, msr::CSTAR),
            (C::EFER_WRITE, msr::EFER),
            (C::SYSENTER_CS_WRITE, msr::SYSENTER_CS),
            (C::SYSENTER_EIP_WRITE, msr::SYSENTER_EIP),
            (C::SYSENTER_ESP_WRITE, msr::SYSENTER_ESP),
            (C::SFMASK_WRITE, msr::SFMASK),
        ]),
        ..Intercepts::default()
    }
}
