//! A key is misspelt; the key it was meant to be is not reported as missing.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phse = any, caller = any, errors())]
fn patch_text(_: &CallContext<'_>) -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
