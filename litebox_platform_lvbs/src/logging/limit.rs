//! How much of the log VTL0 can cause.
//!
//! VTL0 can make calls that are refused, and try what it must not do, as often as it likes. Each processor counts those
//! events by kind; the first [`FIRST`] of a kind are logged, then the 16th, the 32nd, the 64th and so on, each with
//! the number of those left out. However long a storm lasts, its lines grow with the logarithm of its length. It counts
//! events and does not measure time, because VTL0 controls the time.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::vsm::function::{VSM_BASE, VSM_TABLE_LEN};

/// How many events of a kind are logged one by one.
pub const FIRST: u64 = 8;

/// A kind of event that VTL0 can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// A refused call, with its id. All ids that are no call's count as one kind.
    RefusedCall(u64),
    /// An access to memory beyond its permission.
    MemoryViolation,
    /// A write of a control register or descriptor table register.
    RegisterViolation,
    /// An access to an MSR.
    MsrViolation,
    /// An intercept with too little information, or one that VTL1 did not ask for.
    OddIntercept,
    /// A write that VTL1 allowed and the hypervisor refused.
    RefusedWrite,
    /// An intercept whose handling failed.
    FailedIntercept,
    /// A processor that could not be locked.
    FailedLock,
    /// A control of such a processor that could not be undone.
    FailedUnlock,
    /// What is wrong with a module.
    RefusedModule,
    /// Who signed a module.
    SignedModule,
    /// What became of a kexec image.
    KexecImage,
    /// An entry for an unknown reason.
    OddEntry,
    /// An interrupt that VTL1 did not ask for.
    OddInterrupt,
    /// A locked processor that was reset.
    Restart,
}

/// Kinds of event: the calls, then the others, of which [`LogKind::Restart`] is the last.
const KINDS: usize = VSM_TABLE_LEN + LogKind::Restart.behind_calls() + 1;
const _: () = assert!(FIRST.is_power_of_two());

impl LogKind {
    /// The kind's number among those that are not a call's. The ids that are no call's have the first one.
    const fn behind_calls(self) -> usize {
        match self {
            Self::RefusedCall(_) => 0,
            Self::MemoryViolation => 1,
            Self::RegisterViolation => 2,
            Self::MsrViolation => 3,
            Self::OddIntercept => 4,
            Self::RefusedWrite => 5,
            Self::FailedIntercept => 6,
            Self::FailedLock => 7,
            Self::FailedUnlock => 8,
            Self::RefusedModule => 9,
            Self::SignedModule => 10,
            Self::KexecImage => 11,
            Self::OddEntry => 12,
            Self::OddInterrupt => 13,
            Self::Restart => 14,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::RefusedCall(id) => {
                usize::try_from(id.wrapping_sub(VSM_BASE)).unwrap_or(usize::MAX).min(VSM_TABLE_LEN)
            }
            other => VSM_TABLE_LEN + other.behind_calls(),
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
    /// Counts an event. `None`: do not log it.
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

/// The end of the line about an event: how many events like it were not logged since the last one.
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
