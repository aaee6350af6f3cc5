//! Events of the model, for people and tests.

use std::fmt;

use litebox_platform_lvbs::hv::{
    EntryReason, HvMessage, HypercallControl, HypercallResult, MapFlags, PendingEvent, Vtl, msr,
};

use super::Fault;
use super::request::Request;

/// Something the model did. Its `Display` is one line without the line's end.
#[derive(Debug)]
pub enum TraceEvent<'a> {
    /// A hypercall and its answer; the request is absent when its form was already wrong.
    Hypercall {
        /// The calling processor.
        vp: u32,
        /// The calling VTL.
        vtl: Vtl,
        /// The control word.
        control: HypercallControl,
        /// What was asked.
        request: Option<&'a Request>,
        /// The answer.
        result: HypercallResult,
    },
    /// A synthetic MSR was read.
    MsrRead {
        /// The processor.
        vp: u32,
        /// Its VTL.
        vtl: Vtl,
        /// Which MSR.
        msr: u32,
        /// The value read, or the exception.
        result: Result<u64, Fault>,
    },
    /// A synthetic MSR was written.
    MsrWrite {
        /// The processor.
        vp: u32,
        /// Its VTL.
        vtl: Vtl,
        /// Which MSR.
        msr: u32,
        /// The value written.
        value: u64,
        /// The exception, if one was raised.
        result: Result<(), Fault>,
    },
    /// VTL1 was entered.
    Enter {
        /// The processor.
        vp: u32,
        /// Why.
        reason: EntryReason,
    },
    /// VTL1 returned to VTL0.
    Return {
        /// The processor.
        vp: u32,
        /// Whether the return left RAX and RCX alone.
        fast: bool,
    },
    /// VTL0's rights to frames changed; neighbouring frames of one hypercall are one event.
    Protection {
        /// First frame.
        start: u64,
        /// First frame after.
        end: u64,
        /// The new rights.
        flags: MapFlags,
    },
    /// A message was queued for a VTL.
    Message {
        /// The processor.
        vp: u32,
        /// The receiving VTL.
        vtl: Vtl,
        /// The message.
        message: &'a HvMessage,
    },
    /// An event will be delivered when the VTL runs next.
    PendingEvent {
        /// The processor.
        vp: u32,
        /// The VTL.
        vtl: Vtl,
        /// The event.
        event: PendingEvent,
    },
    /// The guest did what the TLFS does not define.
    Undefined {
        /// The processor.
        vp: u32,
        /// Its VTL.
        vtl: Vtl,
        /// What it was.
        what: &'a str,
    },
}

impl fmt::Display for TraceEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypercall { vp, vtl, control, request, result } => {
                write!(f, "VP {vp} {vtl} {control:?}")?;
                if let Some(request) = request {
                    write!(f, " {request}")?;
                }
                write!(f, " -> {}", result.status())?;
                if control.reps() != 0 {
                    write!(f, ", {} done", result.reps_done())?;
                }
                Ok(())
            }
            Self::MsrRead { vp, vtl, msr, result } => match result {
                Ok(value) => write!(f, "VP {vp} {vtl} rdmsr {} -> {value:#x}", MsrName(*msr)),
                Err(fault) => write!(f, "VP {vp} {vtl} rdmsr {} -> {fault:?}", MsrName(*msr)),
            },
            Self::MsrWrite { vp, vtl, msr, value, result } => {
                write!(f, "VP {vp} {vtl} wrmsr {} = {value:#x}", MsrName(*msr))?;
                match result {
                    Ok(()) => Ok(()),
                    Err(fault) => write!(f, " -> {fault:?}"),
                }
            }
            Self::Enter { vp, reason } => write!(f, "VP {vp} enters VTL1: {reason:?}"),
            Self::Return { vp, fast } => {
                write!(f, "VP {vp} returns to VTL0{}", if *fast { " (fast)" } else { "" })
            }
            Self::Protection { start, end, flags } => {
                write!(f, "VTL0 {:#x}..{:#x} ({} frames): {flags}", start << 12, end << 12, end - start)
            }
            Self::Message { vp, vtl, message } => {
                write!(f, "VP {vp} message for {vtl}: {:?}", message.message_type)?;
                if let Some(intercept) = message.memory_intercept() {
                    write!(f, " {:?} at GPA {:#x}", intercept.header.access, intercept.gpa)?;
                } else if let Some(intercept) = message.msr_intercept() {
                    write!(f, " {} = {:#x}", MsrName(intercept.msr), intercept.value())?;
                } else if let Some(intercept) = message.register_intercept() {
                    write!(f, " {} = {}", intercept.register, intercept.value)?;
                }
                Ok(())
            }
            Self::PendingEvent { vp, vtl, event } => {
                write!(f, "VP {vp} exception {} pending for {vtl}", event.vector())
            }
            Self::Undefined { vp, vtl, what } => write!(f, "VP {vp} {vtl} NOT DEFINED BY THE TLFS: {what}"),
        }
    }
}

struct MsrName(u32);

impl fmt::Display for MsrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match msr::name(self.0) {
            Some(name) => write!(f, "{name} ({:#x})", self.0),
            None => write!(f, "MSR {:#x}", self.0),
        }
    }
}

/// Receives the events. Called with the model locked: it must not call back into the partition.
pub trait Trace: Send + Sync {
    /// Something happened.
    fn event(&self, event: &TraceEvent<'_>);
}

impl<T: Fn(&TraceEvent<'_>) + Send + Sync> Trace for T {
    fn event(&self, event: &TraceEvent<'_>) {
        self(event);
    }
}
