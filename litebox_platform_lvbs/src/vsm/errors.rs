//! The errnos a call may answer with, as data: errors are ABI like ids and parameters.
//!
//! Three things make a call fail, and each says for itself how: the gate, by the row's phase and caller; the parameters'
//! types ([`VsmParam::ERRORS`](super::VsmParam::ERRORS)); the handler, whose attribute lists what it adds. Nothing here is
//! in the way of a call: what was not listed is found by whoever compares a result with [`CallRow::errnos`], as every hosted
//! test, every machine test and every fuzz run does for each of its calls.

use super::gate::{CallerRule, PhaseRule};
use super::handler::CallRow;
use crate::error::Errno;

/// An errno and when it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrnoMeta {
    /// The errno.
    pub errno: Errno,
    /// When it occurs, in a few words.
    pub when: &'static str,
}

impl ErrnoMeta {
    /// `errno`, which occurs in the case that `when` describes.
    #[must_use]
    pub const fn new(errno: Errno, when: &'static str) -> Self {
        Self { errno, when }
    }
}

/// Names every errno as Linux spells it, and keeps the list of all of them.
macro_rules! errnos {
    ($($name:ident = $variant:ident),* $(,)?) => {
        impl Errno {
            $(
                #[doc = concat!("[`Self::", stringify!($variant), "`] as Linux spells it, for `errors(…)`.")]
                pub const $name: Self = Self::$variant;
            )*
            /// All of them, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its place in [`Self::ALL`].
            const fn place(self) -> u32 {
                /// The places, counted by the compiler.
                enum Place {
                    $($variant),*
                }
                match self {
                    $(Self::$variant => Place::$variant as u32),*
                }
            }
        }
    };
}

errnos! {
    EPERM = Eperm,
    ENOENT = Enoent,
    EIO = Eio,
    ENOMEM = Enomem,
    EACCES = Eacces,
    EFAULT = Efault,
    EBUSY = Ebusy,
    EINVAL = Einval,
    ENOSPC = Enospc,
    ERANGE = Erange,
    ENODATA = Enodata,
    ENOPKG = Enopkg,
    EBADMSG = Ebadmsg,
    ENOTSUP = Enotsup,
    ETIMEDOUT = Etimedout,
    ENOKEY = Enokey,
    EKEYREJECTED = Ekeyrejected,
}

const _: () = assert!(Errno::ALL.len() <= 32, "a set of errnos has 32 bits");

impl Errno {
    /// The positive number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The errno of a call's result; `None` for a success, and for a number that is no errno of VTL1's.
    #[must_use]
    pub fn from_result(result: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|errno| errno.to_result() == result)
    }
}

/// A set of errnos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrnoSet(u32);

impl ErrnoSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// The set and `errno`.
    #[must_use]
    pub const fn with(self, errno: Errno) -> Self {
        Self(self.0 | 1 << errno.place())
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
        self.0 & 1 << errno.place() != 0
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
    fn each_errno_has_its_own_place_and_name() {
        for (place, errno) in Errno::ALL.iter().enumerate() {
            assert_eq!(errno.place() as usize, place);
            assert_eq!(Errno::from_result(errno.to_result()), Some(*errno));
            let alone = ErrnoSet::EMPTY.with(*errno);
            assert!(alone.iter().eq([*errno]), "{}", errno.name());
        }
        assert!(Errno::ALL.is_sorted());
        assert_eq!(Errno::from_result(0), None);
        assert_eq!(Errno::from_result(-3), None);
        assert_eq!(Errno::EKEYREJECTED.number(), 129);
    }
}
