//! What VTL0 knows an accepted module by.

use core::fmt;
use core::num::NonZeroU32;

/// What VTL1 gave out for a module: `1..=0x7fff_ffff` (LVBS contract §3: older drivers keep it in an `int`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(NonZeroU32);

impl Token {
    /// The greatest token.
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
