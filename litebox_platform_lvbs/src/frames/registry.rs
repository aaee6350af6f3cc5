//! The registry's state and the questions that may be asked of it.
//!
//! Changing it is the business of [`Transaction`](super::Transaction). What is trusted: the range given for VTL1 itself.

use alloc::vec::Vec;

use crate::address::FrameRange;
use crate::error::VsmError;
use crate::hv::MODIFY_VTL_PROTECTION_MASK_MAX_GFNS;
use crate::owner::Owner;

use super::list::{END, Interval, IntervalList, State};
use super::permission::Permission;

/// A run of frames with one owner and one permission, of which all or none were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameState {
    /// The frames.
    pub frames: FrameRange,
    /// Who owns them.
    pub owner: Owner,
    /// What VTL0 may do with them.
    pub permission: Permission,
    /// Whether the hypervisor refused to change them, though VTL0 named them: most likely they are no memory.
    pub refused: bool,
}

/// Whether frames in that state break the rule that VTL0 may write what it may execute, or the other way round. Frames
/// without an owner do not count: VTL1 does not know which of them are memory.
pub(super) fn breaks_write_xor_execute(owner: Owner, permission: Permission) -> bool {
    !matches!(owner, Owner::Nobody | Owner::Vtl1) && permission.is_write_and_execute()
}

/// Who owns each frame VTL0 can see, and what VTL0 may do with it.
#[derive(Debug)]
pub struct FrameRegistry {
    pub(super) list: IntervalList,
    /// The frames of one hypercall, kept here so that committing neither allocates nor needs a page of stack.
    pub(super) batch: Vec<u64>,
    vtl1: FrameRange,
}

impl FrameRegistry {
    /// No frame has an owner and VTL0 may do anything with it, as the hypervisor has it when VTL1 turns
    /// protection on with a default mask of 0xF; but VTL1's own belong to VTL1.
    ///
    /// The hypervisor is not called: [`Self::close_vtl1`] takes VTL1's frames from VTL0.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`].
    pub fn new(vtl1: FrameRange) -> Result<Self, VsmError> {
        let mut batch = Vec::new();
        batch
            .try_reserve_exact(MODIFY_VTL_PROTECTION_MASK_MAX_GFNS)
            .map_err(|_| VsmError::OutOfMemory("the frame registry"))?;
        let mut list = IntervalList::new(State { owner: Owner::Nobody, permission: Permission::ALL })?;
        list.split(vtl1.start())?;
        list.split(vtl1.end())?;
        list.change(vtl1.start(), vtl1.end(), |interval| {
            interval.owner = Owner::Vtl1;
            interval.unstage();
        });
        Ok(Self { list, batch, vtl1 })
    }

    /// VTL1's own frames.
    #[must_use]
    pub fn vtl1(&self) -> FrameRange {
        self.vtl1
    }

    /// Owner and permission of the frame with number `gfn`; `None` beyond the guest-physical space.
    #[must_use]
    pub fn get(&self, gfn: u64) -> Option<(Owner, Permission)> {
        self.list.at(gfn).map(|interval| (interval.owner, interval.permission))
    }

    /// Checks that `claimant` may write to, or take, every one of `frames`.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] for the first frame that belongs to another owner.
    pub fn check(&self, frames: FrameRange, claimant: Owner) -> Result<(), VsmError> {
        self.check_with(frames, claimant, |interval| interval.owner)
    }

    pub(super) fn check_with(
        &self,
        frames: FrameRange,
        claimant: Owner,
        owner: impl Fn(&Interval) -> Owner,
    ) -> Result<(), VsmError> {
        let mut overlapping = self.list.overlapping(frames.start(), frames.end());
        match overlapping.find(|(.., interval)| !owner(interval).yields_to(claimant)) {
            None => Ok(()),
            Some((start, _, interval)) => {
                let gfn = crate::address::Gfn::new(start)?;
                Err(VsmError::FrameOwned(gfn.start(), owner(interval)))
            }
        }
    }

    /// All frames, in ascending order: each item is the longest run with one owner and permission.
    pub fn intervals(&self) -> impl Iterator<Item = FrameState> {
        self.list.overlapping(0, END).filter_map(|(start, end, interval)| {
            let frames = FrameRange::from_gfns(start, end).ok()?;
            Some(FrameState {
                frames,
                owner: interval.owner,
                permission: interval.permission,
                refused: interval.refused,
            })
        })
    }

    /// The first run of frames from `from` on that has an owner and that VTL0 can both write and execute.
    #[must_use]
    pub fn write_and_execute(&self, from: u64) -> Option<FrameRange> {
        let mut overlapping = self.list.overlapping(from, END);
        let (start, end, _) =
            overlapping.find(|(.., interval)| breaks_write_xor_execute(interval.owner, interval.permission))?;
        FrameRange::from_gfns(start, end).ok()
    }

    /// How many intervals the registry holds: the measure of its memory and time.
    #[must_use]
    pub fn interval_count(&self) -> usize {
        self.list.len()
    }
}
