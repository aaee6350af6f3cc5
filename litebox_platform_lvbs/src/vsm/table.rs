//! The jump table: one code pointer per id, and nothing else.
//!
//! The table is a constant; the image puts it into memory that is read-only at run time. The ids between the
//! declared ones hold a function that refuses, so that there is no null to test.
//!
//! The index comes from an id that VTL0 chose. [`TableIndex::of`] is its one check. That check is a branch, and a
//! processor that predicts it wrongly would load a code pointer from beyond the table (bounds-check bypass,
//! CVE-2017-5753), so [`VsmJumpTable::entry`] computes with the flags what the branch only predicts. This is the one
//! file of `vsm` with `unsafe`.

use super::context::CallContext;
use super::function::{VSM_BASE, VSM_MAX_TABLE_LEN, VSM_TABLE_LEN};
use super::reply::Refusal;
use super::row::{CallRow, Entry};
use crate::error::VsmError;

const _: () = assert!(VSM_MAX_TABLE_LEN <= u64::BITS as usize, "a mask has a bit for each place");

/// A place in the jump table: below [`VSM_TABLE_LEN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableIndex(usize);

impl TableIndex {
    /// The place of the call with this id. All 64 bits of the id count: one with upper bits set has no more a place than one
    /// below the base.
    #[inline]
    #[must_use]
    pub fn of(id: u64) -> Option<Self> {
        usize::try_from(id.wrapping_sub(VSM_BASE)).ok().filter(|index| *index < VSM_TABLE_LEN).map(Self)
    }

    /// The id whose place it is, a reserved one included.
    #[must_use]
    pub const fn id(self) -> u64 {
        VSM_BASE + self.0 as u64
    }

    /// The bit of a mask that is for this place.
    #[inline]
    #[must_use]
    pub const fn bit(self) -> u64 {
        // Changes no index: below `VSM_MAX_TABLE_LEN`.
        1 << (self.0 & 63)
    }
}

/// The entries of all ids from [`VSM_BASE`] on.
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

    /// The entry at `index`, also while the processor speculates.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::inline_always, reason = "the image's dispatch must index its static table, and clamp, itself")]
    pub fn entry(&self, index: TableIndex) -> Entry {
        let clamped = clamp::<VSM_TABLE_LEN>(index.0);
        // SAFETY: `clamp` returns an index below `VSM_TABLE_LEN`, which is the array's length.
        unsafe { *self.entries.get_unchecked(clamped) }
    }
}

/// The entry of an id that no call has.
///
/// # Errors
/// Always: -EINVAL. The gate refuses such an id first, by its own number.
pub fn reserved(_: &CallContext<'_>, _: &[u64; 3]) -> Result<u32, Refusal> {
    Err(Refusal::Before(VsmError::UnknownFunction(0)))
}

/// `index` if it is below `LEN`, else 0, with no branch to predict.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "the clamp must stand beside the load it guards, in the caller")]
fn clamp<const LEN: usize>(index: usize) -> usize {
    const { assert!(LEN > 0 && LEN <= 0x7fff_ffff, "the length is an immediate operand, and 0 lies below it") };
    let mut clamped = index;
    // SAFETY: the three instructions read and write only the two operands and the flags.
    unsafe {
        core::arch::asm!(
            // Borrow exactly if index < LEN; then all ones, else zero.
            "cmp {index}, {len}",
            "sbb {mask}, {mask}",
            "and {index}, {mask}",
            index = inout(reg) clamped,
            mask = out(reg) _,
            len = const LEN,
            options(pure, nomem, nostack),
        );
    }
    clamped
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn clamp<const LEN: usize>(index: usize) -> usize {
    const { assert!(LEN > 0, "0 lies below the length") };
    index & usize::from(index < LEN).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_to_zero_from_the_length_on() {
        for index in 0..17 {
            assert_eq!(clamp::<17>(index), index);
        }
        for index in [17, 18, 64, 1 << 31, 1 << 32, (1 << 32) + 3, 1 << 63, usize::MAX - 1, usize::MAX] {
            assert_eq!(clamp::<17>(index), 0, "{index:#x}");
        }
        assert_eq!(clamp::<1>(usize::MAX), 0);
    }

    #[test]
    fn an_index_beyond_the_table_reads_its_first_entry() {
        let first: Entry = |_, _| Ok(0);
        let mut table = VsmJumpTable::new(&[]);
        table.entries[0] = first;
        for index in [0, VSM_TABLE_LEN, VSM_TABLE_LEN + 1, 1 << 32, usize::MAX] {
            assert!(core::ptr::fn_addr_eq(table.entry(TableIndex(index)), first), "{index:#x}");
        }
        assert!(core::ptr::fn_addr_eq(table.entry(TableIndex(1)), reserved as Entry));
    }
}
