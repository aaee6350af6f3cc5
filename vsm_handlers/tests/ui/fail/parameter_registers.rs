//! Two parameters take four registers together.

use litebox_platform_lvbs::vsm::{CallContext, ErrnoMeta, VsmParam};
use litebox_platform_lvbs::{Platform, VsmError};
use vsm_macros::vsm_handler;

pub struct VsmTable;

pub struct Wide;

impl VsmParam for Wide {
    const REGISTERS: usize = 2;
    const KIND: &'static str = "wide";
    const UNIT: &'static str = "words";
    const BITS: u64 = u64::MAX;
    const ERRORS: &'static [ErrnoMeta] = &[];

    fn from_registers(_: &Platform, _: &[u64]) -> Result<Self, VsmError> {
        Ok(Self)
    }
}

/// Writes a patch.
#[vsm_handler(VsmFunction::PatchText, phase = any, caller = any, errors())]
fn patch_text(_: &CallContext<'_>, _a: Wide, _b: Wide) -> Result<(), VsmError> {
    Ok(())
}

fn main() {}
