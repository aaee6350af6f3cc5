//! Verification of kexec images.
//!
//! The one call of this family is declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Verifies a kexec image before VTL0 may use it, or forgets the one verified before.
#[vsm_handler(VsmFunction::KexecValidate, phase = any, caller = any, not_implemented)]
fn kexec_validate() {}
