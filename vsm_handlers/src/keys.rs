//! Keys that VTL0 adds after boot.
//!
//! The one call of this family is declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Adds a certificate to the secondary trusted keys, if a trusted key has signed it.
#[vsm_handler(VsmFunction::CopySecondaryKey, phase = any, caller = any, not_implemented)]
fn copy_secondary_key() {}
