//! The steps of the life that are about one call each, and need nothing of the steps before them but the end of boot.
//!
//! `cargo xtask new-call` adds a step here; it stays where it is unless the call is better told elsewhere.

use anyhow::Result;
use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_TABLE_LEN, VsmFunction as F};

use super::stage::Stage;
use crate::machine::Vtl0;
use crate::vtl0::bytes;

/// Plays them, after the end of boot.
pub(super) fn play(stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    // The id behind the last is no call's yet.
    stage.raw_call(vtl0, "unknown id", VSM_BASE + VSM_TABLE_LEN as u64, [0; 3], "-EINVAL")?;
    query(stage, vtl0)?;
    stage.call(vtl0, F::SetPlatformRootKey, [0; 3], "-EPERM")?;
    Ok(())
}

/// A VTL0 asks whom it talks to, and compares with what it was built against: here with this project's own header.
fn query(stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    let page = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    stage.call(vtl0, F::Query, [page, 0, 0], "0")?;
    let expected = format!("ABI {}, {:#018x}", vsm_handlers::ABI_VERSION, vsm_handlers::ABI_HASH);
    stage.step(vtl0, "read the answer", &format!("{page:#x}"), &expected, |vtl0| {
        let (sizes, hash) =
            (bytes::read_u64(vtl0.machine().ram(), page)?, bytes::read_u64(vtl0.machine().ram(), page + 8)?);
        Ok(format!("ABI {}, {hash:#018x}", sizes >> 32))
    })?;
    let vtl1 = vtl0.machine().config().map.region_start;
    stage.call(vtl0, F::Query, [vtl1, 0, 0], "-EACCES")
}
