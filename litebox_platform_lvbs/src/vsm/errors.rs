//! The errnos a call may answer with, as data: errors are ABI like ids and parameters.
//!
//! Three things make a call fail, and each says for itself how: the gate, by the row's phase and caller; the parameters'
//! types ([`VsmParam::ERRORS`](super::VsmParam::ERRORS)); the handler, whose attribute lists what it adds. None of this runs
//! during a call: the tests and fuzzers compare every result with [`CallRow::errnos`].

use super::row::{CallRow, CallerRule, ErrnoMeta, PhaseRule};
use crate::error::Errno;

const _: () = assert!(Errno::ALL.len() <= 32, "a set of errnos has 32 bits");

/// A set of errnos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrnoSet(u32);

impl ErrnoSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The set and `errno`.
    #[must_use]
    pub const fn with(self, errno: Errno) -> Self {
        Self(self.0 | Self::bit(errno))
    }

    /// The set and the errnos of `list`.
    #[must_use]
    pub const fn with_all(mut self, list: &[ErrnoMeta]) -> Self {
        let mut rest = list;
        while let [first, tail @ ..] = rest {
            self = self.with(first.errno);
            rest = tail;
        }
        self
    }

    /// Whether `errno` is in it.
    #[must_use]
    pub const fn contains(self, errno: Errno) -> bool {
        self.0 & Self::bit(errno) != 0
    }

    /// The errno's bit: that of its place in [`Errno::ALL`].
    const fn bit(errno: Errno) -> u32 {
        let (mut bit, mut rest) = (1, Errno::ALL);
        while let [first, tail @ ..] = rest
            && *first as i32 != errno as i32
        {
            (bit, rest) = (bit << 1, tail);
        }
        bit
    }

    /// The errnos, ascending.
    pub fn iter(self) -> impl Iterator<Item = Errno> {
        Errno::ALL.iter().copied().filter(move |errno| self.contains(*errno))
    }
}

const AFTER_BOOT: ErrnoMeta = ErrnoMeta::new(Errno::Eperm, "the boot has ended");
const BEFORE_BOOT_ENDS: ErrnoMeta = ErrnoMeta::new(Errno::Eperm, "the boot has not ended");
const OTHER_PROCESSOR: ErrnoMeta = ErrnoMeta::new(Errno::Eperm, "the call comes from another than the boot processor");
const FAILED: ErrnoMeta = ErrnoMeta::new(Errno::Eio, "VTL1 has failed and serves no calls");
const NOT_IMPLEMENTED: ErrnoMeta = ErrnoMeta::new(Errno::Enotsup, "this build has no implementation of the call");

impl CallRow {
    /// What the gate, or VTL1's state, answers instead of the handler; `None` where there is no such rule.
    #[must_use]
    pub const fn gate_errors(&self) -> [Option<ErrnoMeta>; 4] {
        let phase = match self.meta.phase {
            PhaseRule::Boot => Some(AFTER_BOOT),
            PhaseRule::Runtime => Some(BEFORE_BOOT_ENDS),
            PhaseRule::Any => None,
        };
        let caller = match self.meta.caller {
            CallerRule::Bsp => Some(OTHER_PROCESSOR),
            CallerRule::Any => None,
        };
        let implemented = if self.meta.implemented { None } else { Some(NOT_IMPLEMENTED) };
        [phase, caller, implemented, Some(FAILED)]
    }

    /// Every errno the call may answer with.
    #[must_use]
    pub const fn errnos(&self) -> ErrnoSet {
        let mut set = ErrnoSet::EMPTY.with_all(self.meta.errors);
        let gate = self.gate_errors();
        let mut rest: &[Option<ErrnoMeta>] = &gate;
        while let [first, tail @ ..] = rest {
            if let Some(error) = first {
                set = set.with(error.errno);
            }
            rest = tail;
        }
        let mut params = self.meta.params;
        while let [first, tail @ ..] = params {
            set = set.with_all(first.errors);
            params = tail;
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_has_its_own_bit() {
        for errno in Errno::ALL {
            let alone = ErrnoSet::EMPTY.with(*errno);
            assert!(alone.iter().eq([*errno]), "{}", errno.name());
        }
    }
}
