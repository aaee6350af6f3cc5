//! A declared call has no handler in a table that names it.

use litebox_platform_lvbs::vsm::{CallRow, calls};

pub struct VsmTable;

pub const ROWS: [CallRow; 1] = [CallRow::of::<VsmTable, calls::LockRegs>()];

fn main() {}
