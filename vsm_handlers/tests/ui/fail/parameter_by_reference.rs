//! A parameter is taken by reference.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::{CallContext, Token};
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text(_: &CallContext<'_>, _token: &Token) -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
