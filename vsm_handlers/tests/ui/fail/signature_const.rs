//! The handler is `const`.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
const fn patch_text(_: &CallContext<'_>) -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
