//! A handler of any phase asks for the proof of the boot phase.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::BootContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text(_: &BootContext<'_>) -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
