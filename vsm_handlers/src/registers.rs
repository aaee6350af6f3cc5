//! Locking of control registers and MSRs: LockRegs.
//!
//! What is trusted: the values VTL0's registers have during boot. From then on the hypervisor tells VTL1 of every
//! write that could change a pinned bit, and `intercept` decides.

use litebox_platform_lvbs::hv::calls::{get_vp_registers, set_vp_registers};
use litebox_platform_lvbs::hv::{CrInterceptControl, HvRegisterName, HvRegisterValue, InputVtl};
use litebox_platform_lvbs::vsm::BootContext;
use litebox_platform_lvbs::vtl0::ControlRegMap;
use litebox_platform_lvbs::vtl0::control_regs::{LOCKED_REGISTER_COUNT, LOCKED_REGISTERS};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{error, info};
use vsm_macros::vsm_handler;

/// The accesses VTL1 wants to hear of: all writes of the registers that are recorded, and of the four descriptor
/// table registers (LVBS contract, LOCK_REGS: 0x7FD543).
pub(crate) const INTERCEPTS: CrInterceptControl = CrInterceptControl::CR0_WRITE
    .union(CrInterceptControl::CR4_WRITE)
    .union(CrInterceptControl::LSTAR_WRITE)
    .union(CrInterceptControl::STAR_WRITE)
    .union(CrInterceptControl::CSTAR_WRITE)
    .union(CrInterceptControl::APIC_BASE_WRITE)
    .union(CrInterceptControl::EFER_WRITE)
    .union(CrInterceptControl::GDTR_WRITE)
    .union(CrInterceptControl::IDTR_WRITE)
    .union(CrInterceptControl::LDTR_WRITE)
    .union(CrInterceptControl::TR_WRITE)
    .union(CrInterceptControl::SYSENTER_CS_WRITE)
    .union(CrInterceptControl::SYSENTER_EIP_WRITE)
    .union(CrInterceptControl::SYSENTER_ESP_WRITE)
    .union(CrInterceptControl::SFMASK_WRITE);

/// Pinned bits of CR0: PE, WP, PG (Intel SDM vol. 3 §2.5; LVBS contract).
pub(crate) const CR0_PINNED: u64 = 1 | 1 << 16 | 1 << 31;

/// Pinned bits of CR4: all but MCE, PGE, PCE and VMXE (Intel SDM vol. 3 §2.5; LVBS contract).
pub(crate) const CR4_PINNED: u64 = !(1 << 6 | 1 << 7 | 1 << 8 | 1 << 13);

/// What makes the hypervisor intercept. The control word comes last: until it is written the masks mean nothing.
const CONTROLS: [(HvRegisterName, u64); 3] = [
    (HvRegisterName::CR_INTERCEPT_CR0_MASK, CR0_PINNED),
    (HvRegisterName::CR_INTERCEPT_CR4_MASK, CR4_PINNED),
    (HvRegisterName::CR_INTERCEPT_CONTROL, INTERCEPTS.bits()),
];

const _: () = assert!(INTERCEPTS.bits() == 0x7f_d543);
const _: () = assert!(CR0_PINNED == 0x8001_0001 && CR4_PINNED == 0xffff_ffff_ffff_de3f);

/// Locks the control registers and MSRs of the calling processor with the values they have now.
///
/// A processor that is locked already stays as it is. All or nothing: on an error nothing is intercepted.
///
/// -EIO when the hypervisor refuses.
#[vsm_handler(VsmFunction::LockRegs, phase = boot, caller = any)]
fn lock_regs(call: &BootContext<'_>) -> Result<(), VsmError> {
    let platform = call.platform();
    let mut locked = platform.processor(call.vp())?.locked.lock();
    if locked.is_some() {
        return Ok(());
    }
    let mut values = [HvRegisterValue::default(); LOCKED_REGISTER_COUNT];
    get_vp_registers(platform.hardware(), InputVtl::VTL0, &LOCKED_REGISTERS, &mut values)?;
    let controls = CONTROLS.map(|(name, value)| (name, HvRegisterValue::from_u64(value)));
    if let Err(error) = set_vp_registers(platform.hardware(), InputVtl::CURRENT, &controls) {
        unlock(platform, call.vp());
        return Err(error);
    }
    *locked = Some(ControlRegMap::new(values.map(|value| value.low)));
    info!("LockRegs: the registers of VP {} are locked", call.vp());
    Ok(())
}

/// Takes back whatever part of the controls has been written. Only this file writes them, so that they were zero.
fn unlock(platform: &Platform, vp: u32) {
    // One at a time and the control word first: a register the hypervisor refuses must not keep the others set.
    for (name, _) in CONTROLS.iter().rev() {
        let zero = [(*name, HvRegisterValue::from_u64(0))];
        if let Err(failure) = set_vp_registers(platform.hardware(), InputVtl::CURRENT, &zero) {
            error!("LockRegs: {name} of VP {vp} could not be cleared: {failure}");
        }
    }
}
