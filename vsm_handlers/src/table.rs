//! The table of the handlers.
//!
//! `vsm_rows!` names every declared call, so a call without a handler does not compile here; two handlers for one
//! do not compile where they stand. The runner puts [`VSM_TABLE`] into the image's read-only memory.

use litebox_platform_lvbs::vsm::{CallRow, Gate, VsmFunction, VsmJumpTable};

/// Stands for the table: `#[vsm_handler]` implements `Handles` on it, once per call.
#[derive(Clone, Copy, Debug)]
pub struct VsmTable;

/// Every call with its handler and what the handler's attribute says, by ascending id.
pub const ROWS: [CallRow; VsmFunction::COUNT] = litebox_platform_lvbs::vsm_rows!(VsmTable);

/// The jump table.
pub const VSM_TABLE: VsmJumpTable = VsmJumpTable::new(&ROWS);

/// The rules tested before a handler runs.
pub const GATE: Gate = Gate::new(&ROWS);
