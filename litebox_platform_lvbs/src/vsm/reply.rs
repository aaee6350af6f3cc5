//! What the entry of a call comes back with: a reply, or a refusal.
//!
//! Values and errors share one register, and older VTL0 drivers keep only 32 signed bits of it (LVBS contract §3).
//! So a reply lies in `0..=0x7fff_ffff`, where no errno can be.

use crate::error::VsmError;
use crate::token::Token;

/// A success value of a VSM call.
#[diagnostic::on_unimplemented(
    message = "VSM052: `{Self}` cannot be the reply of a VSM call",
    label = "not a reply type",
    note = "a handler returns `Result<(), VsmError>` for a plain success, or `Result<Token, VsmError>`; any other \
            number could be taken for an errno"
)]
pub trait VsmReply {
    /// How listings name the reply.
    const KIND: &'static str;

    /// The result register's value, at most `0x7fff_ffff`.
    fn into_value(self) -> u32;
}

impl VsmReply for () {
    const KIND: &'static str = "0";

    fn into_value(self) -> u32 {
        0
    }
}

impl VsmReply for Token {
    const KIND: &'static str = "token";

    fn into_value(self) -> u32 {
        self.get()
    }
}

/// Why a call failed, and whether its handler had been entered: that decides which list of errnos applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The gate or a parameter's type refused; the handler has not run.
    Before(VsmError),
    /// The handler refused.
    ByHandler(VsmError),
}

impl Refusal {
    /// The reason.
    #[must_use]
    pub const fn error(self) -> VsmError {
        match self {
            Self::Before(error) | Self::ByHandler(error) => error,
        }
    }
}

/// A reply of a handler, with its type's trait turned into data.
pub struct Reply<T> {
    kind: &'static str,
    value: fn(T) -> u32,
}

impl<T> Reply<T> {
    /// The reply of type `T`.
    #[must_use]
    pub const fn of_type() -> Self
    where
        T: VsmReply,
    {
        Self { kind: T::KIND, value: T::into_value }
    }

    /// How listings name the reply.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// The entry's result: the result register's value, or the handler's error.
    ///
    /// # Errors
    /// [`Refusal::ByHandler`].
    pub fn answer(&self, result: Result<T, VsmError>) -> Result<u32, Refusal> {
        result.map(self.value).map_err(Refusal::ByHandler)
    }
}
