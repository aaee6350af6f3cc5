//! What happens when VTL0 does something that the hypervisor stopped on VTL1's behalf.
//!
//! A message comes from the hypervisor and is trusted to say what VTL0 did; the values in it are VTL0's. The policy
//! is [`decide`], which only looks; [`handle_intercept`] carries it out. A violation is a #GP in VTL0, never a panic in
//! VTL1.

use core::fmt;

use litebox_platform_lvbs::hardware::calls::set_vp_registers;
use litebox_platform_lvbs::hv::message::{InterceptAccess, InterceptHeader, MsrIntercept, RegisterIntercept};
use litebox_platform_lvbs::hv::{HvMessage, HvRegisterName, HvRegisterValue, InputVtl, MessageType, PendingEvent, msr};
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::vtl0::ControlRegMap;
use litebox_platform_lvbs::{Platform, VsmError};
use log::{debug, warn};

use crate::registers::{pinned, restart};

/// What is to be done about an intercept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The write changes nothing that is pinned: write the register for VTL0 and step over the instruction.
    CarryOut {
        /// The register.
        register: HvRegisterName,
        /// Its new value.
        value: u64,
        /// Where VTL0 goes on.
        rip: u64,
    },
    /// The write changes nothing at all, and the register is not VTL1's to write: step over the instruction.
    StepOver {
        /// Where VTL0 goes on.
        rip: u64,
    },
    /// A violation: #GP in VTL0, at the instruction that was stopped.
    Fault(Violation),
    /// A message that is not the hypervisor's about an instruction of VTL0: VTL0 goes on as if nothing had
    /// happened.
    Ignore,
}

/// Why VTL0 gets a #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An access to memory beyond its permission.
    Memory {
        /// The guest-physical address.
        gpa: u64,
        /// How it was accessed.
        access: InterceptAccess,
    },
    /// A write of a descriptor table register, or of one that no rule lets through.
    Register(HvRegisterName),
    /// A write that would change pinned bits.
    Pinned {
        /// The register.
        register: HvRegisterName,
        /// What it was to become.
        value: u64,
    },
    /// An access to an MSR that no rule lets through.
    Msr(u32),
    /// The processor has not been locked, so there is nothing to compare with.
    NotLocked,
    /// The message lacks what its type promises, or does not say how long the instruction is.
    Malformed(MessageType),
    /// VTL0 was stopped at something VTL1 has not asked for. It must not go on, nor be stopped there again for ever.
    Unknown(MessageType),
}

impl Violation {
    /// What the log counts it as.
    fn log_kind(&self) -> LogKind {
        match self {
            Self::Memory { .. } => LogKind::MemoryViolation,
            Self::Register(_) | Self::Pinned { .. } => LogKind::RegisterViolation,
            Self::Msr(_) => LogKind::MsrViolation,
            Self::NotLocked | Self::Malformed(_) | Self::Unknown(_) => LogKind::OddIntercept,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { gpa, access } => {
                let access = match *access {
                    InterceptAccess::READ => "read",
                    InterceptAccess::WRITE => "write",
                    InterceptAccess::EXECUTE => "instruction fetch",
                    _ => "unknown access",
                };
                write!(f, "{access} at guest-physical address {gpa:#x}")
            }
            Self::Register(register) => write!(f, "access to {register}"),
            Self::Pinned { register, value } => write!(f, "write of {value:#x} to {register} changes pinned bits"),
            Self::Msr(msr) => write!(f, "access to MSR {msr:#x}"),
            Self::NotLocked => f.write_str("register write on a processor that is not locked"),
            Self::Malformed(kind) => write!(f, "{kind:?} without the particulars"),
            Self::Unknown(kind) => write!(f, "{kind:?}, which VTL1 has not asked for"),
        }
    }
}

/// Decides on a message, given what LockRegs recorded for the processor.
#[must_use]
pub fn decide(message: &HvMessage, locked: Option<&ControlRegMap>) -> Verdict {
    let kind = message.message_type;
    let verdict = match kind {
        MessageType::GPA_INTERCEPT => message
            .memory_intercept()
            .map(|memory| Verdict::Fault(Violation::Memory { gpa: memory.gpa, access: memory.header.access })),
        MessageType::MSR_INTERCEPT => message.msr_intercept().map(|intercept| decide_msr(&intercept, locked)),
        MessageType::REGISTER_INTERCEPT => {
            message.register_intercept().map(|intercept| decide_register(&intercept, locked))
        }
        _ if kind.is_from_hypervisor() => Some(Verdict::Fault(Violation::Unknown(kind))),
        _ => Some(Verdict::Ignore),
    };
    verdict.unwrap_or(Verdict::Fault(Violation::Malformed(kind)))
}

fn decide_msr(intercept: &MsrIntercept, locked: Option<&ControlRegMap>) -> Verdict {
    let register = match intercept.msr {
        msr::EFER => HvRegisterName::EFER,
        msr::STAR => HvRegisterName::STAR,
        msr::LSTAR => HvRegisterName::LSTAR,
        msr::CSTAR => HvRegisterName::CSTAR,
        msr::SFMASK => HvRegisterName::SFMASK,
        msr::APIC_BASE => HvRegisterName::APIC_BASE,
        msr::SYSENTER_CS => HvRegisterName::SYSENTER_CS,
        msr::SYSENTER_EIP => HvRegisterName::SYSENTER_EIP,
        msr::SYSENTER_ESP => HvRegisterName::SYSENTER_ESP,
        msr::TSC_AUX => HvRegisterName::TSC_AUX,
        msr::MISC_ENABLE => HvRegisterName::MISC_ENABLE,
        other => return Verdict::Fault(Violation::Msr(other)),
    };
    if intercept.header.access != InterceptAccess::WRITE {
        return Verdict::Fault(Violation::Msr(intercept.msr));
    }
    let kind = MessageType::MSR_INTERCEPT;
    compare(kind, &intercept.header, register, intercept.value(), locked)
}

fn decide_register(intercept: &RegisterIntercept, locked: Option<&ControlRegMap>) -> Verdict {
    let register = intercept.register;
    let has_rule = matches!(register, HvRegisterName::CR0 | HvRegisterName::CR4 | HvRegisterName::XFEM);
    if !has_rule || intercept.header.access != InterceptAccess::WRITE || intercept.value.high != 0 {
        return Verdict::Fault(Violation::Register(register));
    }
    let kind = MessageType::REGISTER_INTERCEPT;
    match compare(kind, &intercept.header, register, intercept.value.low, locked) {
        // The VTLs share XCR0: VTL1 would write its own.
        Verdict::CarryOut { register: HvRegisterName::XFEM, rip, .. } => Verdict::StepOver { rip },
        verdict => verdict,
    }
}

/// Lets a write through that leaves the pinned bits as they were recorded.
fn compare(
    kind: MessageType,
    header: &InterceptHeader,
    register: HvRegisterName,
    value: u64,
    locked: Option<&ControlRegMap>,
) -> Verdict {
    let Some(recorded) = locked.and_then(|map| map.get(register)) else {
        return Verdict::Fault(Violation::NotLocked);
    };
    if (value ^ recorded) & pinned(register) != 0 {
        return Verdict::Fault(Violation::Pinned { register, value });
    }
    match header.instruction_length() {
        // Going on at the same instruction would end here again, forever.
        0 => Verdict::Fault(Violation::Malformed(kind)),
        length => Verdict::CarryOut { register, value, rip: header.rip.wrapping_add(u64::from(length)) },
    }
}

/// Handles an intercept message of processor `vp`, which must be the calling one.
///
/// The message must be a copy: the slot it came from belongs to the hypervisor.
///
/// # Errors
/// [`VsmError::NoSuchProcessor`]; [`VsmError::Hypercall`] when not even the #GP could be raised in VTL0.
pub fn handle_intercept(platform: &Platform, vp: u32, message: &HvMessage) -> Result<(), VsmError> {
    let processor = platform.processor(vp)?;
    let locked = *processor.locked.lock();
    if let Some(locked) = &locked
        && restart::is_starting(platform, vp, processor, message)
        && let Some(step) = restart::decide(message, locked)
    {
        debug!("VP {vp} is being started: {step:x?}");
        return restart::carry_out(platform, step)
            .or_else(|error| refused(platform, vp, format_args!("{step:x?}"), error));
    }
    match decide(message, locked.as_ref()) {
        Verdict::Ignore => {
            if let Some(logged) = platform.count_event(vp, LogKind::OddIntercept) {
                warn!("VP {vp}: message of unknown type {:?} ignored{logged}", message.message_type);
            }
            Ok(())
        }
        Verdict::Fault(violation) => {
            if let Some(logged) = platform.count_event(vp, violation.log_kind()) {
                warn!("VP {vp}: VTL0 violation: {violation}; #GP{logged}");
            }
            raise_general_protection(platform)
        }
        Verdict::StepOver { rip } => {
            let rip = [(HvRegisterName::RIP, rip.into())];
            set_vp_registers(platform.hardware(), InputVtl::VTL0, &rip)
        }
        Verdict::CarryOut { register, value, rip } => {
            debug!("VP {vp}: VTL0 writes {value:#x} to {register}");
            let values = [(register, HvRegisterValue::from_u64(value)), (HvRegisterName::RIP, rip.into())];
            set_vp_registers(platform.hardware(), InputVtl::VTL0, &values)
                .or_else(|error| refused(platform, vp, format_args!("{register} = {value:#x}"), error))
        }
    }
}

/// The hypervisor has refused a write, as the processor would have refused the value.
fn refused(platform: &Platform, vp: u32, what: fmt::Arguments<'_>, error: VsmError) -> Result<(), VsmError> {
    if let Some(logged) = platform.count_event(vp, LogKind::RefusedWrite) {
        warn!("VP {vp}: {what} was not written: {error}; #GP{logged}");
    }
    raise_general_protection(platform)
}

/// Makes VTL0 take a #GP(0) when it runs next.
fn raise_general_protection(platform: &Platform) -> Result<(), VsmError> {
    let event = HvRegisterValue::from_u64(PendingEvent::GENERAL_PROTECTION.0);
    set_vp_registers(platform.hardware(), InputVtl::VTL0, &[(HvRegisterName::PENDING_EVENT0, event)])
}
