//! The handler returns an error type of its own.

use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text(_: &CallContext<'_>) -> Result<(), i32> {
    Ok(())
}

fn main() {}
