//! The number by which VTL0 names an accepted module.

use core::fmt;
use core::num::NonZeroU32;

/// The number that VTL1 gave to a module: `1..=0x7fff_ffff` (LVBS contract §3: older drivers keep it in an `int`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(NonZeroU32);

impl Token {
    /// The largest token.
    pub const MAX: u32 = 0x7fff_ffff;

    /// The token with that number; `None` outside `1..=0x7fff_ffff`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "compared with a maximum of 31 bits")]
    pub const fn new(raw: u64) -> Option<Self> {
        match NonZeroU32::new(raw as u32) {
            Some(token) if raw <= Self::MAX as u64 => Some(Self(token)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
