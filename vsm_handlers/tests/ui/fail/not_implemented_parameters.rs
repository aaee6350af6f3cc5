//! A call that is not implemented takes the context.

use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, not_implemented)]
fn patch_text(_: &CallContext<'_>) {}

fn main() {}
