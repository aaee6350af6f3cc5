//! A handler has a mistake; the table does not report it as missing on top.

use litebox_platform_lvbs::vsm::{CallRow, calls};
use vsm_macros::vsm_handler;

pub struct VsmTable;

pub const ROWS: [CallRow; 1] = [CallRow::of::<VsmTable, calls::LockRegs>()];

/// Locks.
#[vsm_handler(VsmFunction::LockRegs, phase = late, caller = any, not_implemented)]
fn lock_regs() {}

fn main() {}
