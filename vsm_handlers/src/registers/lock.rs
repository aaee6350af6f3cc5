//! Locking one processor: its values recorded, its writes intercepted, all of it or nothing.

use core::sync::atomic::Ordering;

use litebox_platform_lvbs::hardware::calls::{get_vp_registers, set_vp_registers};
use litebox_platform_lvbs::hv::{CrInterceptControl, HvRegisterName, HvRegisterValue, InputVtl};
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vtl0::ControlRegMap;
use litebox_platform_lvbs::vtl0::control_regs::{LOCKED_REGISTER_COUNT, LOCKED_REGISTERS};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{error, info};

use super::pins::{ATTEMPTS, Attempt, SWITCHED_FOR_GUESTS, TABLES, merged};

/// Locks the calling processor, `vp`: with the values it has, or with those of `reference` where all processors of a Linux
/// machine have the same; its registers are not written. False if that was done before.
pub(super) fn lock(platform: &Platform, vp: u32, reference: Option<&ControlRegMap>) -> Result<bool, VsmError> {
    let processor = platform.processor(vp)?;
    let mut locked = processor.locked.lock();
    if locked.is_some() {
        return Ok(false);
    }
    let first = platform.lock_attempt().load(Ordering::Relaxed);
    let left_out = if platform.hardware().offers_virtualization() { SWITCHED_FOR_GUESTS } else { 0 };
    let mut result = Err(VsmError::NotImplemented);
    for (index, optional) in (0..).zip(ATTEMPTS).skip(first).filter(|(_, optional)| optional & left_out == 0) {
        result = attempt(platform, vp, Attempt(optional), reference);
        match &result {
            Ok(_) => {
                platform.lock_attempt().store(index, Ordering::Relaxed);
                if index != first {
                    let left =
                        Attempt(!optional).optional().fold(CrInterceptControl::empty(), |all, (_, bit)| all | bit);
                    info!("LockRegs: writes that are not intercepted on any processor: {left:?}");
                }
                break;
            }
            Err(error) if is_unknown(error) => {}
            Err(_) => break,
        }
    }
    let values = result?;
    *locked = Some(values);
    if platform.vtl0().phase.get() == Phase::Boot {
        platform.lock_reference().lock().get_or_insert(values);
    }
    if reference.is_none() {
        // They are its own.
        processor.is_locked.store(true, Ordering::Release);
    }
    Ok(true)
}

/// Whether a hypervisor may answer so to a register or a bit that it does not have: with anything but a lack of something,
/// for which statuses the TLFS does not say. The last attempt is the contract's, which every hypervisor takes.
fn is_unknown(error: &VsmError) -> bool {
    matches!(error, VsmError::Hypercall { status, .. } if !status.is_lack())
}

/// Locks what `what` says, or nothing; the values recorded.
fn attempt(
    platform: &Platform,
    vp: u32,
    what: Attempt,
    reference: Option<&ControlRegMap>,
) -> Result<ControlRegMap, VsmError> {
    const MOST: usize = TABLES.len() + LOCKED_REGISTER_COUNT;
    let mut names = [HvRegisterName::CR0; MOST];
    let mut values = [HvRegisterValue::default(); MOST];
    let mut count = 0;
    let recorded = LOCKED_REGISTERS.into_iter().filter(|name| what.has(*name));
    for (slot, register) in names.iter_mut().zip(TABLES.into_iter().chain(recorded)) {
        *slot = register;
        count += 1;
    }
    let (names, _) = names.split_at(count);
    let (values, _) = values.split_at_mut(count);
    get_vp_registers(platform.hardware(), InputVtl::VTL0, names, values)?;
    let (tables, values) = values.split_at_mut(TABLES.len());
    let (_, names) = names.split_at(TABLES.len());
    for (register, value) in names.iter().zip(values.iter_mut()) {
        if let Some(expected) = reference.and_then(|reference| reference.get(*register)) {
            *value = HvRegisterValue::from_u64(merged(*register, value.low, expected));
        }
    }
    let (controls, count) = what.controls();
    let (controls, _) = controls.split_at(count);
    if let Err(error) = write_controls(platform, controls) {
        unlock(platform, vp, controls);
        return Err(error);
    }
    platform.processor(vp)?.tables.lock().copy_from_slice(tables);
    Ok(ControlRegMap::of(names.iter().copied().zip(values.iter().map(|value| value.low))))
}

fn write_controls(platform: &Platform, controls: &[(HvRegisterName, u64)]) -> Result<(), VsmError> {
    let mut written = [(HvRegisterName::CR0, HvRegisterValue::default()); 4];
    for (slot, (name, value)) in written.iter_mut().zip(controls) {
        *slot = (*name, HvRegisterValue::from_u64(*value));
    }
    let (written, _) = written.split_at(controls.len().min(written.len()));
    set_vp_registers(platform.hardware(), InputVtl::CURRENT, written)
}

/// Intercepts everything again on the calling processor, which has been locked.
pub(super) fn intercept_writes(platform: &Platform) -> Result<(), VsmError> {
    let attempt = ATTEMPTS.get(platform.lock_attempt().load(Ordering::Relaxed)).copied().unwrap_or_default();
    let (controls, count) = Attempt(attempt).controls();
    write_controls(platform, controls.split_at(count).0)
}

/// Takes back whatever part of the controls has been written. Only this file writes them, so that they were zero.
fn unlock(platform: &Platform, vp: u32, controls: &[(HvRegisterName, u64)]) {
    // One at a time and the control word first: a register the hypervisor refuses must not keep the others set.
    for (name, _) in controls.iter().rev() {
        let zero = [(*name, HvRegisterValue::from_u64(0))];
        let result = set_vp_registers(platform.hardware(), InputVtl::CURRENT, &zero);
        // A mask the hypervisor does not have is not set.
        let may_be_missing = *name == HvRegisterName::CR_INTERCEPT_IA32_MISC_ENABLE_MASK;
        if let Err(failure) = result
            && !(may_be_missing && is_unknown(&failure))
            && let Some(logged) = platform.count_event(vp, LogKind::FailedUnlock)
        {
            error!("LockRegs: {name} of VP {vp} could not be cleared: {failure}{logged}");
        }
    }
}
