//! The attribute stands before a method.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::CallContext;
use vsm_macros::vsm_handler;

pub struct VsmTable;

impl VsmTable {
    /// Writes a patch.
    #[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
    pub fn patch_text(&self, _: &CallContext<'_>) -> Result<(), VsmError> {
        Ok(())
    }
}

fn main() {}
