//! Locking of control registers and MSRs: LockRegs.
//!
//! What is trusted: the values VTL0's registers have during boot. From then on the hypervisor tells VTL1 of every
//! write that could change a pinned bit, and `intercept` decides. A processor that was not locked by the end of boot is
//! locked by VTL1 itself, with the values of the first one that was: its own may have been changed in bad faith. The
//! processor that ends the boot is locked before the boot ends, so that there is such a one.

use core::sync::atomic::Ordering;

use litebox_platform_lvbs::hardware::calls::{get_vp_registers, set_vp_registers};
use litebox_platform_lvbs::hv::{CrInterceptControl, HvRegisterName, HvRegisterValue, InputVtl};
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vsm::BootContext;
use litebox_platform_lvbs::vtl0::ControlRegMap;
use litebox_platform_lvbs::vtl0::control_regs::{ALWAYS_LOCKED_COUNT, LOCKED_REGISTER_COUNT, LOCKED_REGISTERS};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{error, info, warn};
use vsm_macros::vsm_handler;

/// The accesses VTL1 hears of on every hypervisor: all writes of the registers that are recorded, and of three of the four
/// descriptor table registers (LVBS contract, LOCK_REGS: 0x7FD543, which has LDTR too).
///
/// LDTR is VTL0's. Linux loads it whenever it switches to or from a process that has used modify_ldt, which needs no
/// privilege: a #GP there would let any user kill the guest. And it would protect nothing. LDTs and the GDT lie in memory
/// that VTL0 writes, so that an entry can change without a load; the most that one can do, a call gate, is to lead to ring 0,
/// where whoever writes the table is already, and VTL1's permissions hold there.
const INTERCEPTS: CrInterceptControl = CrInterceptControl::CR0_WRITE
    .union(CrInterceptControl::CR4_WRITE)
    .union(CrInterceptControl::LSTAR_WRITE)
    .union(CrInterceptControl::STAR_WRITE)
    .union(CrInterceptControl::CSTAR_WRITE)
    .union(CrInterceptControl::APIC_BASE_WRITE)
    .union(CrInterceptControl::EFER_WRITE)
    .union(CrInterceptControl::GDTR_WRITE)
    .union(CrInterceptControl::IDTR_WRITE)
    .union(CrInterceptControl::TR_WRITE)
    .union(CrInterceptControl::SYSENTER_CS_WRITE)
    .union(CrInterceptControl::SYSENTER_EIP_WRITE)
    .union(CrInterceptControl::SYSENTER_ESP_WRITE)
    .union(CrInterceptControl::SFMASK_WRITE);

/// What is locked beyond the contract's registers, where the hypervisor lets VTL1 (LVBS contract §7, CrInterceptControl).
/// Linux leaves them alone once a processor is up: XCR0 and TSC_AUX get the same value again when a processor comes back,
/// and of IA32_MISC_ENABLE one bit is pinned. S_CET is not among them, because Linux turns its endbranch tracking off and
/// on around calls to firmware.
const OPTIONAL: [(HvRegisterName, CrInterceptControl); 3] = [
    (HvRegisterName::XFEM, CrInterceptControl::XCR0_WRITE),
    (HvRegisterName::TSC_AUX, CrInterceptControl::TSC_AUX_WRITE),
    (HvRegisterName::MISC_ENABLE, CrInterceptControl::IA32_MISC_ENABLE_WRITE),
];

/// Those of [`OPTIONAL`] that Linux switches between itself and virtual machines of its own: KVM has no way to bear a #GP
/// there. Left to VTL0 where the processors offer virtualization.
const SWITCHED_FOR_GUESTS: u8 = 0b011;

/// Which of [`OPTIONAL`] to try to lock, bit by bit, one attempt after the other: nothing tells beforehand what a
/// hypervisor can intercept (HvRegisterVsmCapabilities does not), or has at all. What one processor was granted is tried
/// first on the others.
const ATTEMPTS: [u8; 8] = [0b111, 0b110, 0b011, 0b101, 0b010, 0b001, 0b100, 0b000];

/// Pinned bits of CR0: PE, WP, PG (Intel SDM vol. 3 §2.5; LVBS contract).
const CR0_PINNED: u64 = 1 | 1 << 16 | 1 << 31;

/// Pinned bits of CR4: all but TSD, MCE, PGE, PCE and VMXE (Intel SDM vol. 3 §2.5; LVBS contract). Linux switches TSD from
/// process to process, for prctl(PR_SET_TSC) and strict seccomp; it says who may read the time stamp counter, no more.
const CR4_PINNED: u64 = !(1 << 2 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 13);

/// Pinned bit of IA32_MISC_ENABLE: XD disable, which would make every page executable (Intel SDM vol. 4, MSR 1A0h).
const MISC_ENABLE_PINNED: u64 = 1 << 34;

/// The bits of a locked register that VTL0 cannot change.
pub(crate) const fn pinned(register: HvRegisterName) -> u64 {
    match register {
        HvRegisterName::CR0 => CR0_PINNED,
        HvRegisterName::CR4 => CR4_PINNED,
        HvRegisterName::MISC_ENABLE => MISC_ENABLE_PINNED,
        _ => u64::MAX,
    }
}

const _: () = assert!(INTERCEPTS.bits() == 0x7d_d543);
const _: () = assert!(CR0_PINNED == 0x8001_0001 && CR4_PINNED == 0xffff_ffff_ffff_de3b);
const _: () = assert!(ALWAYS_LOCKED_COUNT + OPTIONAL.len() == LOCKED_REGISTER_COUNT);

/// What one attempt locks.
#[derive(Clone, Copy)]
struct Attempt(u8);

impl Attempt {
    /// Those of [`OPTIONAL`] that it has.
    fn optional(self) -> impl Iterator<Item = (HvRegisterName, CrInterceptControl)> {
        (0..).zip(OPTIONAL).filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, optional)| optional)
    }

    /// Whether it locks `register`, one of [`LOCKED_REGISTERS`].
    fn has(self, register: HvRegisterName) -> bool {
        let is = |(name, _): &(HvRegisterName, CrInterceptControl)| *name == register;
        !OPTIONAL.iter().any(is) || self.optional().any(|optional| is(&optional))
    }

    /// What makes the hypervisor intercept: names, values, and how many they are. The control word comes last: until it is
    /// written the masks mean nothing.
    fn controls(self) -> ([(HvRegisterName, u64); 4], usize) {
        let intercepts = self.optional().fold(INTERCEPTS, |all, (_, intercept)| all.union(intercept));
        let control = (HvRegisterName::CR_INTERCEPT_CONTROL, intercepts.bits());
        let [cr0, cr4] =
            [(HvRegisterName::CR_INTERCEPT_CR0_MASK, CR0_PINNED), (HvRegisterName::CR_INTERCEPT_CR4_MASK, CR4_PINNED)];
        if self.has(HvRegisterName::MISC_ENABLE) {
            ([cr0, cr4, (HvRegisterName::CR_INTERCEPT_IA32_MISC_ENABLE_MASK, MISC_ENABLE_PINNED), control], 4)
        } else {
            ([cr0, cr4, control, control], 3)
        }
    }
}

/// Locks the control registers and MSRs of the calling processor with the values they have now.
///
/// A processor that is locked already stays as it is. All or nothing: on an error nothing is intercepted. Two hypercalls:
/// all values in one, all controls in the other; more only on the first processor of a hypervisor that does not know some
/// of what VTL1 would like to lock.
#[vsm_handler(VsmFunction::LockRegs, phase = boot, caller = any, errors(EIO = "the hypervisor refuses"))]
fn lock_regs(call: &BootContext<'_>) -> Result<(), VsmError> {
    if lock(call.platform(), call.vp(), None)? {
        info!("LockRegs: the registers of VP {} are locked", call.vp());
    }
    Ok(())
}

/// Locks the calling processor, `vp`: with the values it has, or with those of `reference` where all processors of a Linux
/// machine have the same; its registers are not written. False if that was done before.
fn lock(platform: &Platform, vp: u32, reference: Option<&ControlRegMap>) -> Result<bool, VsmError> {
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
    let mut names = [HvRegisterName::CR0; LOCKED_REGISTER_COUNT];
    let mut values = [HvRegisterValue::default(); LOCKED_REGISTER_COUNT];
    let mut count = 0;
    for (slot, register) in names.iter_mut().zip(LOCKED_REGISTERS.into_iter().filter(|name| what.has(*name))) {
        *slot = register;
        count += 1;
    }
    let (names, _) = names.split_at(count);
    let (values, _) = values.split_at_mut(count);
    get_vp_registers(platform.hardware(), InputVtl::VTL0, names, values)?;
    for (register, value) in names.iter().zip(values.iter_mut()) {
        if let Some(expected) = reference.and_then(|reference| reference.get(*register)) {
            *value = HvRegisterValue::from_u64(merged(*register, value.low, expected));
        }
    }
    let (controls, count) = what.controls();
    let (controls, _) = controls.split_at(count);
    let mut written = [(HvRegisterName::CR0, HvRegisterValue::default()); 4];
    for (slot, (name, value)) in written.iter_mut().zip(controls) {
        *slot = (*name, HvRegisterValue::from_u64(*value));
    }
    let (written, _) = written.split_at(count);
    if let Err(error) = set_vp_registers(platform.hardware(), InputVtl::CURRENT, written) {
        unlock(platform, vp, controls);
        return Err(error);
    }
    Ok(ControlRegMap::of(names.iter().copied().zip(values.iter().map(|value| value.low))))
}

/// The bits of a register that all processors of a Linux machine have in common, of those that are pinned.
const fn common(register: HvRegisterName) -> u64 {
    match register {
        // A processor's own: its stack, its number. XCR0 its VTLs share, and VTL1 does not depend on it.
        HvRegisterName::SYSENTER_ESP | HvRegisterName::TSC_AUX | HvRegisterName::XFEM => 0,
        // But that it is the boot processor (Intel SDM vol. 3 §12.4.4).
        HvRegisterName::APIC_BASE => !(1 << 8),
        _ => pinned(register),
    }
}

/// A register's value `now`, with the bits that all processors have in common as `expected`.
const fn merged(register: HvRegisterName, now: u64, expected: u64) -> u64 {
    let common = common(register);
    now & !common | expected & common
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
        Err(error) => {
            if let Some(logged) = platform.count_event(vp, LogKind::FailedLock) {
                error!("the registers of VP {vp} cannot be locked: {error}{logged}");
            }
        }
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
