//! A locked processor that VTL0 starts again, after it was offline.
//!
//! INIT gives VTL0's side of a processor the registers of a reset, but for its MSRs (Intel SDM vol. 3 §11.1.1), and takes
//! VTL1's intercepts away from nothing. Linux's start-up code then loads descriptor tables and control registers in steps whose
//! values are not those that were recorded. VTL1 recognises such a processor at the first of them: long mode is off, which
//! nothing but a reset can turn off on a locked processor. From then on, until its registers are the recorded ones again:
//!
//! * descriptor tables are loaded freely: the loads are no longer intercepted;
//! * CR0, CR4 and EFER may have fewer of the recorded bits and no others, but [`KEPT`] stay on whatever VTL0 writes, as soon
//!   as the processor translates addresses: code that runs with paging never runs without them;
//! * everything else is as on any locked processor: where system calls go does not change by a reset.
//!
//! Without paging VTL0 can run what its permissions let it run, which no register changes.

use core::sync::atomic::Ordering;

use litebox_platform_lvbs::hardware::calls::{get_vp_register, get_vp_registers, set_vp_register, set_vp_registers};
use litebox_platform_lvbs::hv::message::InterceptAccess;
use litebox_platform_lvbs::hv::{CrInterceptControl, HvMessage, HvRegisterName, HvRegisterValue, InputVtl};
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::platform::Processor;
use litebox_platform_lvbs::vtl0::ControlRegMap;
use litebox_platform_lvbs::{Platform, VsmError};
use log::info;

use super::lock::intercept_writes;
use super::pins::{TABLES, pinned};

/// CR0: paging (Intel SDM vol. 3 §2.5).
const PG: u64 = 1 << 31;
/// EFER: long mode is enabled, and active (Intel SDM vol. 3 §2.2.1).
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;

/// The bits that stay on if they were recorded so: CR0.WP; CR4.UMIP, SMEP and SMAP, and CET, which needs WP; EFER.NXE.
const KEPT: [(HvRegisterName, u64); 3] = [
    (HvRegisterName::CR0, 1 << 16),
    (HvRegisterName::CR4, 1 << 11 | 1 << 20 | 1 << 21 | 1 << 23),
    (HvRegisterName::EFER, 1 << 11),
];

/// What VTL0 may do while it starts a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Load descriptor tables: the instruction runs again and is not stopped.
    LoadTables,
    /// Write this value, which may have more bits than the one that VTL0 wanted, and step over.
    Write {
        /// CR0, CR4 or EFER.
        register: HvRegisterName,
        /// Its new value.
        value: u64,
        /// Where VTL0 goes on.
        rip: u64,
    },
}

/// Notes that a locked processor has been reset, if the message shows it. Whether it is being started.
pub(crate) fn is_starting(platform: &Platform, vp: u32, processor: &Processor, message: &HvMessage) -> bool {
    if message.intercept_header().is_some_and(|header| !header.is_long_mode())
        && !processor.is_starting.swap(true, Ordering::AcqRel)
    {
        processor.is_locked.store(false, Ordering::Release);
        if let Some(logged) = platform.count_event(vp, LogKind::Restart) {
            info!(
                "VP {vp}: VTL0 starts the processor again; its registers stay pinned, its tables are loaded anew{logged}"
            );
        }
    }
    processor.is_starting.load(Ordering::Acquire)
}

/// What an intercept on a processor that is being started comes to; `None` where it is as on any other.
#[must_use]
pub fn decide(message: &HvMessage, locked: &ControlRegMap) -> Option<Step> {
    let (register, value, header) = match (message.register_intercept(), message.msr_intercept()) {
        (Some(intercept), _) if intercept.value.high == 0 || TABLES.contains(&intercept.register) => {
            (intercept.register, intercept.value.low, intercept.header)
        }
        (_, Some(intercept)) if intercept.msr == litebox_platform_lvbs::hv::msr::EFER => {
            (HvRegisterName::EFER, intercept.value(), intercept.header)
        }
        _ => return None,
    };
    if header.access != InterceptAccess::WRITE {
        return None;
    }
    if TABLES.contains(&register) {
        return Some(Step::LoadTables);
    }
    let (_, kept) = KEPT.into_iter().find(|(name, _)| *name == register)?;
    let (recorded, length) = (locked.get(register)?, header.instruction_length());
    if value & !recorded & pinned(register) != 0 || length == 0 {
        return None;
    }
    let long_mode = if header.is_long_mode() { LMA } else { 0 };
    let value = match register {
        HvRegisterName::CR0 if value & PG == 0 => value,
        // Before long mode WP is off, and CET must be too.
        HvRegisterName::CR4 if !header.is_long_mode() => value | recorded & kept & !(1 << 23),
        HvRegisterName::EFER => value & !LMA | recorded & kept | long_mode,
        _ => value | recorded & kept,
    };
    Some(Step::Write { register, value, rip: header.rip.wrapping_add(u64::from(length)) })
}

/// Does what [`decide`] says.
pub(crate) fn carry_out(platform: &Platform, step: Step) -> Result<(), VsmError> {
    let hardware = platform.hardware();
    match step {
        Step::LoadTables => {
            let control = HvRegisterName::CR_INTERCEPT_CONTROL;
            let now = CrInterceptControl::from_bits_retain(get_vp_register(hardware, InputVtl::CURRENT, control)?);
            let loads = CrInterceptControl::GDTR_WRITE | CrInterceptControl::IDTR_WRITE | CrInterceptControl::TR_WRITE;
            set_vp_register(hardware, InputVtl::CURRENT, control, now.difference(loads).bits())
        }
        Step::Write { register, value, rip } => {
            let to = |register, value| (register, HvRegisterValue::from_u64(value));
            let [write, step] = [to(register, value), to(HvRegisterName::RIP, rip)];
            if register != HvRegisterName::CR0 {
                return set_vp_registers(hardware, InputVtl::VTL0, &[write, step]);
            }
            // As the processor does when paging is turned on or off (Intel SDM vol. 3 §10.8.5).
            let efer = get_vp_register(hardware, InputVtl::VTL0, HvRegisterName::EFER)?;
            let active = if value & PG != 0 && efer & LME != 0 { LMA } else { 0 };
            let efer = to(HvRegisterName::EFER, efer & !LMA | active);
            set_vp_registers(hardware, InputVtl::VTL0, &[efer, write, step])
        }
    }
}

/// Ends the start of the calling processor, `vp`, if its tables and all that is pinned are as they were recorded: then everything
/// is intercepted again. VTL1 writes no value here, for Linux keeps copies of its own of some (CR4). Whether it has ended.
pub(super) fn finish(platform: &Platform, vp: u32) -> Result<bool, VsmError> {
    let (hardware, processor) = (platform.hardware(), platform.processor(vp)?);
    let mut tables = [HvRegisterValue::default(); TABLES.len()];
    get_vp_registers(hardware, InputVtl::VTL0, &TABLES, &mut tables)?;
    let Some(locked) = processor.locked.lock().filter(|_| tables == *processor.tables.lock()) else {
        return Ok(false);
    };
    for (register, recorded) in locked.iter() {
        let found = get_vp_register(hardware, InputVtl::VTL0, register)?;
        if (found ^ recorded) & pinned(register) != 0 {
            return Ok(false);
        }
    }
    intercept_writes(platform)?;
    processor.is_starting.store(false, Ordering::Release);
    processor.is_locked.store(true, Ordering::Release);
    info!("the registers of VP {vp}, which was started again, are locked");
    Ok(true)
}
