//! How much of the log VTL0 can cause.
//!
//! VTL0 can be refused, and can be stopped at what it must not do, as often as it likes. Each processor counts those
//! events by kind; the first [`FIRST`] of a kind are logged, then the 16th, the 32nd, the 64th and so on, each with
//! the number of those left out. However long a storm lasts, its lines grow with the logarithm of its length. Counted
//! are events and not time, because time is VTL0's to make.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::vsm::function::{VSM_BASE, VSM_TABLE_LEN};

/// So many events of a kind are logged one by one.
pub const FIRST: u64 = 8;

/// A kind of event that VTL0 can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// A refused call; the id it was made with. All ids that are none of a call count as one kind.
    RefusedCall(u64),
    /// An access to memory beyond its permission.
    MemoryViolation,
    /// A write of a control register or descriptor table register.
    RegisterViolation,
    /// An access to an MSR.
    MsrViolation,
    /// An intercept that says too little, or comes where none was asked for.
    OddIntercept,
    /// A write that VTL1 let through and the hypervisor refused.
    RefusedWrite,
    /// An intercept whose handling failed.
    FailedIntercept,
    /// A processor that could not be locked.
    FailedLock,
    /// A control of such a processor that could not be taken back.
    FailedUnlock,
    /// What is wrong with a module.
    RefusedModule,
    /// Who signed a module.
    SignedModule,
    /// What became of a kexec image.
    KexecImage,
    /// An entry for no known reason.
    OddEntry,
}

/// Kinds of event.
const KINDS: usize = VSM_TABLE_LEN + 13;
const _: () = assert!(FIRST.is_power_of_two());

impl LogKind {
    fn index(self) -> usize {
        let other = |index: usize| VSM_TABLE_LEN + index;
        match self {
            Self::RefusedCall(id) => {
                usize::try_from(id.wrapping_sub(VSM_BASE)).map_or(other(0), |index| index.min(other(0)))
            }
            Self::MemoryViolation => other(1),
            Self::RegisterViolation => other(2),
            Self::MsrViolation => other(3),
            Self::OddIntercept => other(4),
            Self::RefusedWrite => other(5),
            Self::FailedIntercept => other(6),
            Self::FailedLock => other(7),
            Self::FailedUnlock => other(8),
            Self::RefusedModule => other(9),
            Self::SignedModule => other(10),
            Self::KexecImage => other(11),
            Self::OddEntry => other(12),
        }
    }
}

/// One processor's counts.
#[derive(Debug)]
pub struct LogLimits([AtomicU64; KINDS]);

impl Default for LogLimits {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; KINDS])
    }
}

impl LogLimits {
    /// Counts an event; whether it is to be logged.
    pub fn count(&self, kind: LogKind) -> Option<Logged> {
        let count = self.0.get(kind.index())?;
        // Only this processor counts here; wrapping takes longer than any machine runs.
        let number = count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if number <= FIRST {
            return Some(Logged { left_out: 0 });
        }
        number.is_power_of_two().then(|| Logged { left_out: number / 2 - 1 })
    }
}

/// The end of the line about an event that is logged: how many like it were not since the last one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// That many.
    pub left_out: u64,
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left_out {
            0 => Ok(()),
            count => write!(f, " ({count} more like it were not logged)"),
        }
    }
}
