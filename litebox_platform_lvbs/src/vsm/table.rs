//! The jump table: one code pointer per id, and nothing else.
//!
//! The table is a constant; the image puts it into memory that is read-only at run time. The ids between the
//! declared ones hold a function that refuses, so that there is no null to test.

use super::context::CallContext;
use super::function::VSM_TABLE_LEN;
use super::handler::{CallRow, Entry};
use crate::error::VsmError;

/// The entries of all ids from [`VSM_BASE`](super::VSM_BASE) on.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct VsmJumpTable {
    entries: [Entry; VSM_TABLE_LEN],
}

const _: () = assert!(size_of::<VsmJumpTable>() == VSM_TABLE_LEN * size_of::<usize>(), "nothing but code pointers");

impl VsmJumpTable {
    /// The table of the rows.
    #[must_use]
    pub const fn new(rows: &[CallRow]) -> Self {
        let mut entries: [Entry; VSM_TABLE_LEN] = [reserved; VSM_TABLE_LEN];
        let mut rest = rows;
        while let [row, tail @ ..] = rest {
            // Evaluated at compile time; an index out of range does not build.
            entries[row.function.index()] = row.entry;
            rest = tail;
        }
        Self { entries }
    }

    /// The entry at `index`.
    #[inline]
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).copied()
    }
}

/// The entry of an id that no call has.
///
/// # Errors
/// Always: -EINVAL. The gate refuses such an id first, by its own number.
pub fn reserved(_: &CallContext<'_>, _: &[u64; 3]) -> Result<u32, VsmError> {
    Err(VsmError::UnknownFunction(0))
}
