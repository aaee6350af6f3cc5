//! The handler returns a number that could be taken for an errno.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text(_: &CallContext<'_>) -> Result<u64, VsmError> {
    Ok(0)
}

fn main() {}
