//! OP-TEE messages.
//!
//! The one call of this family is declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Passes an OP-TEE message, given by the frame number of its page.
#[vsm_handler(VsmFunction::OpteeMessage, phase = any, caller = any, not_implemented)]
fn optee_message() {}
