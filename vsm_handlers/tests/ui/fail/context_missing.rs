//! The handler does not take the context.

use litebox_platform_lvbs::VsmError;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text() -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
