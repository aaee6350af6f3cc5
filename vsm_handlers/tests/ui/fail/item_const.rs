//! The attribute stands before a constant.

use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
pub const PATCH_TEXT: u32 = 1;

fn main() {}
