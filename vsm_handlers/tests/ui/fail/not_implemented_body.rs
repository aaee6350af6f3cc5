//! A call that is not implemented has code.

use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, not_implemented)]
fn patch_text() {
    let _ = 1;
}

fn main() {}
