//! A call that is not implemented returns something.

use litebox_platform_lvbs::VsmError;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, not_implemented)]
fn patch_text() -> Result<(), VsmError> {}

fn main() {}
