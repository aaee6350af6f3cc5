//! Locking of control registers and MSRs: LockRegs.
//!
//! What is trusted: the values VTL0's registers have during boot. From then on the hypervisor tells VTL1 of every
//! write that could change a pinned bit, and `intercept` decides. A processor that was not locked by the end of boot is
//! locked by VTL1 itself, with the boot processor's values: its own may have been changed in bad faith.

use core::sync::atomic::Ordering;

use litebox_platform_lvbs::hv::calls::{get_vp_registers, set_vp_registers};
use litebox_platform_lvbs::hv::{CrInterceptControl, HvRegisterName, HvRegisterValue, InputVtl};
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::vsm::BootContext;
use litebox_platform_lvbs::vtl0::control_regs::{LOCKED_REGISTER_COUNT, LOCKED_REGISTERS};
use litebox_platform_lvbs::vtl0::{ControlRegMap, Phase};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{error, info, warn};
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
#[vsm_handler(VsmFunction::LockRegs, phase = boot, caller = any, errors(EIO = "the hypervisor refuses"))]
fn lock_regs(call: &BootContext<'_>) -> Result<(), VsmError> {
    if lock(call.platform(), call.vp(), None)? {
        info!("LockRegs: the registers of VP {} are locked", call.vp());
    }
    Ok(())
}

/// Locks the calling processor, `vp`: with the values it has, or with those of `reference` where all processors of a Linux
/// machine have the same. False if that was done before.
fn lock(platform: &Platform, vp: u32, reference: Option<&ControlRegMap>) -> Result<bool, VsmError> {
    let processor = platform.processor(vp)?;
    let mut locked = processor.locked.lock();
    if locked.is_some() {
        return Ok(false);
    }
    let mut values = [HvRegisterValue::default(); LOCKED_REGISTER_COUNT];
    get_vp_registers(platform.hardware(), InputVtl::VTL0, &LOCKED_REGISTERS, &mut values)?;
    if let Some(reference) = reference {
        set_to(platform, vp, &mut values, reference)?;
    }
    let controls = CONTROLS.map(|(name, value)| (name, HvRegisterValue::from_u64(value)));
    if let Err(error) = set_vp_registers(platform.hardware(), InputVtl::CURRENT, &controls) {
        unlock(platform, vp);
        return Err(error);
    }
    *locked = Some(ControlRegMap::new(values.map(|value| value.low)));
    processor.is_locked.store(true, Ordering::Release);
    Ok(true)
}

/// Gives the registers of the calling processor, whose `values` are known, the values of `reference`.
fn set_to(
    platform: &Platform,
    vp: u32,
    values: &mut [HvRegisterValue; LOCKED_REGISTER_COUNT],
    reference: &ControlRegMap,
) -> Result<(), VsmError> {
    for ((register, expected), value) in reference.iter().zip(values) {
        let common = match register {
            HvRegisterName::CR0 => CR0_PINNED,
            HvRegisterName::CR4 => CR4_PINNED,
            // A processor's own: its stack, whether it is the boot processor.
            HvRegisterName::SYSENTER_ESP | HvRegisterName::APIC_BASE => 0,
            _ => u64::MAX,
        };
        let wanted = value.low & !common | expected & common;
        if value.low != wanted {
            let found = value.low;
            *value = HvRegisterValue::from_u64(wanted);
            set_vp_registers(platform.hardware(), InputVtl::VTL0, &[(register, *value)])?;
            warn!("VP {vp} had {register} = {found:#x}; it has the boot processor's {wanted:#x} now");
        }
    }
    Ok(())
}

/// What must hold whenever the calling processor, `vp`, goes back to VTL0: after the end of boot its registers are
/// locked, whether VTL0 has asked for it or not.
///
/// Called at every return, so it is cheap where there is nothing to do. When the hypervisor refuses, VTL1 tries again
/// the next time.
#[inline]
pub fn before_return(platform: &Platform, vp: u32) {
    let is_locked = platform.processor(vp).is_ok_and(|processor| processor.is_locked.load(Ordering::Acquire));
    if !is_locked && platform.vtl0().phase.get() == Phase::Runtime {
        lock_late(platform, vp);
    }
}

#[cold]
fn lock_late(platform: &Platform, vp: u32) {
    // Copied out: not held together with the lock of the processor that is about to be locked.
    let boot_vp = platform.processor(platform.config().boot_vp);
    let reference = boot_vp.ok().and_then(|processor| *processor.locked.lock());
    match lock(platform, vp, reference.as_ref()) {
        Ok(false) => {}
        Ok(true) => warn!("the registers of VP {vp} were not locked before the end of boot; they are now"),
        Err(error) => {
            if let Some(logged) = platform.count_event(vp, LogKind::FailedLock) {
                error!("the registers of VP {vp} cannot be locked: {error}{logged}");
            }
        }
    }
}

/// Takes back whatever part of the controls has been written. Only this file writes them, so that they were zero.
fn unlock(platform: &Platform, vp: u32) {
    // One at a time and the control word first: a register the hypervisor refuses must not keep the others set.
    for (name, _) in CONTROLS.iter().rev() {
        let zero = [(*name, HvRegisterValue::from_u64(0))];
        if let Err(failure) = set_vp_registers(platform.hardware(), InputVtl::CURRENT, &zero)
            && let Some(logged) = platform.count_event(vp, LogKind::FailedUnlock)
        {
            error!("LockRegs: {name} of VP {vp} could not be cleared: {failure}{logged}");
        }
    }
}
