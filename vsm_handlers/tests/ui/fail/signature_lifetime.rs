//! The handler names a lifetime.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text<'a>(_: &'a CallContext<'a>) -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
