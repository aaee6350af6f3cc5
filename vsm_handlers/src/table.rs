//! The table of the handlers.
//!
//! `vsm_rows!` names every declared call, so a call without a handler does not compile here; two handlers for one
//! do not compile where they stand. The runner puts [`VSM_TABLE`] into the image's read-only memory.

use litebox_platform_lvbs::vsm::{CallRow, Gate, VsmFunction, VsmJumpTable, describe};

/// Stands for the table: `#[vsm_handler]` implements `Handles` on it, once per call.
#[derive(Clone, Copy, Debug)]
pub struct VsmTable;

/// Every call with its handler and what the handler's attribute says, by ascending id.
pub const ROWS: [CallRow; VsmFunction::COUNT] = litebox_platform_lvbs::vsm_rows!(VsmTable);

/// The jump table.
pub const VSM_TABLE: VsmJumpTable = VsmJumpTable::new(&ROWS);

/// The version of what VTL0 sees of the table. `cargo xtask abi` raises it with every new entry of `abi/vsm.lock`.
pub const ABI_VERSION: u32 = 3;

/// The number that VTL0 and VTL1 agree on if their tables and versions are the same ([`describe::hash`]).
pub const ABI_HASH: u64 = describe::hash(&ROWS, ABI_VERSION);

/// The table in words ([`describe`]); the runner puts it into a section of the file that is not loaded.
pub static ABI: [u8; describe::len(&ROWS)] = describe::bytes(&ROWS, ABI_VERSION);

/// The rules tested before a handler runs.
pub const GATE: Gate = Gate::new(&ROWS);
