//! A handler that is not implemented lists errnos.

use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors(EINVAL = "anything"), not_implemented)]
fn patch_text() {}

fn main() {}
