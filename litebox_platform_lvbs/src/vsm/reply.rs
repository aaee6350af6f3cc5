//! What a handler may return to VTL0 on success.
//!
//! Values and errors share one register, and older VTL0 drivers keep only 32 signed bits of it (LVBS contract §3).
//! So a reply lies in `0..=0x7fff_ffff`, where no errno can be.

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
