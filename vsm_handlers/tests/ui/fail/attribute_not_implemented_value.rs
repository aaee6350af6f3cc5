//! The flag is given a value.

use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, not_implemented = true)]
fn patch_text() {}

fn main() {}
