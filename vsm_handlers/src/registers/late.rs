//! Locking a processor that VTL0 did not lock in time.
//!
//! After the end of boot its values may have been changed in bad faith: it gets those of the first processor that was locked.

use core::sync::atomic::Ordering;

use litebox_platform_lvbs::hardware::calls::{get_vp_registers, set_vp_registers};
use litebox_platform_lvbs::hv::{HvRegisterValue, InputVtl};
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vtl0::ControlRegMap;
use litebox_platform_lvbs::{Platform, VsmError};
use log::{error, warn};

use super::lock::lock;
use super::pins::{common, merged};
use super::restart;

/// What must hold whenever the calling processor, `vp`, goes back to VTL0: after the end of boot its registers are
/// locked, whether VTL0 has asked for it or not.
///
/// Called at every return, so it is cheap where there is nothing to do. When the hypervisor refuses, VTL1 tries again
/// the next time.
#[inline]
pub fn before_return(platform: &Platform, vp: u32) {
    let is_locked = platform.processor(vp).is_ok_and(|processor| processor.is_locked.load(Ordering::Acquire));
    if !is_locked {
        lock_again_or_late(platform, vp);
    }
}

#[cold]
fn lock_again_or_late(platform: &Platform, vp: u32) {
    if platform.processor(vp).is_ok_and(|processor| processor.is_starting.load(Ordering::Acquire)) {
        if let Err(error) = restart::finish(platform, vp) {
            failed(platform, vp, error);
        }
    } else if platform.vtl0().phase.get() == Phase::Runtime {
        lock_late(platform, vp);
    }
}

/// Locks the processor that ends the boot, `vp`, before the boot ends: from then on VTL1 needs values that are sound.
pub(crate) fn lock_before_end_of_boot(platform: &Platform, vp: u32) {
    if platform.processor(vp).is_ok_and(|processor| !processor.is_locked.load(Ordering::Acquire)) {
        lock_late(platform, vp);
    }
}

#[cold]
fn lock_late(platform: &Platform, vp: u32) {
    match lock_with_reference(platform, vp) {
        Ok(false) => {}
        Ok(true) => warn!("the registers of VP {vp} were not locked before the end of boot; they are now"),
        Err(error) => failed(platform, vp, error),
    }
}

fn failed(platform: &Platform, vp: u32, error: VsmError) {
    if let Some(logged) = platform.count_event(vp, LogKind::FailedLock) {
        error!("the registers of VP {vp} cannot be locked: {error}{logged}");
    }
}

/// Locks `vp` with the values of the first processor that was locked; true once that is done. Writes are intercepted first:
/// where the hypervisor refuses a value, VTL0 can write no other one, and VTL1 tries again.
fn lock_with_reference(platform: &Platform, vp: u32) -> Result<bool, VsmError> {
    // Copied out: not held together with the lock of the processor.
    let reference = *platform.lock_reference().lock();
    let is_new = lock(platform, vp, reference.as_ref())?;
    let processor = platform.processor(vp)?;
    if processor.is_locked.load(Ordering::Acquire) {
        return Ok(is_new);
    }
    let values = *processor.locked.lock();
    if let Some(values) = values {
        settle(platform, vp, &values)?;
    }
    processor.is_locked.store(true, Ordering::Release);
    Ok(true)
}

/// Gives the registers of the calling processor, which is locked with `values`, those values: it may have had others.
fn settle(platform: &Platform, vp: u32, values: &ControlRegMap) -> Result<(), VsmError> {
    for (register, expected) in values.iter().filter(|(register, _)| common(*register) != 0) {
        let mut now = [HvRegisterValue::default()];
        get_vp_registers(platform.hardware(), InputVtl::VTL0, &[register], &mut now)?;
        let [HvRegisterValue { low: found, .. }] = now;
        let wanted = merged(register, found, expected);
        if found != wanted {
            let value = HvRegisterValue::from_u64(wanted);
            set_vp_registers(platform.hardware(), InputVtl::VTL0, &[(register, value)])?;
            warn!(
                "VP {vp} had {register} = {found:#x}; it has {wanted:#x} now, as the first processor that was locked"
            );
        }
    }
    Ok(())
}
