//! Patches to protected text.
//!
//! The one call of this family is declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Writes one step of a jump-label patch into protected text, if the patch was declared.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, not_implemented)]
fn patch_text() {}
