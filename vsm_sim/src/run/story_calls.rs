//! The steps of the life that are about one call each, and need nothing of the steps before them but the end of boot.
//!
//! `cargo xtask new-call` adds a step here; it stays where it is unless the call is better told elsewhere.

use anyhow::Result;
use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_TABLE_LEN};

use super::story::Stage;
use crate::machine::Vtl0;

/// Plays them, after the end of boot.
pub(super) fn play(stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    // The id behind the last is no call's yet.
    stage.raw_call(vtl0, "unknown id", VSM_BASE + VSM_TABLE_LEN as u64, [0; 3], "-EINVAL")?;
    Ok(())
}
