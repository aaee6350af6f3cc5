//! Going on where the hypervisor refuses frames: everything else changes, those are left as they are.
//!
//! A list of VTL0's may name frames that are no memory, which the hypervisor refuses, each in its own way: Hyper-V changes
//! those before the first one and stops there, others change none of the hypercall. So what is refused is narrowed by halves
//! down to a frame. From there the end of the run of refused frames is looked for: frame by frame as far as [`EXACT`], so
//! that memory between two small holes is not taken for one of them, then in steps of [`STEP`] and, far on, of a part of the
//! distance, and by halves again, so that a large hole does not cost a hypercall for each of its frames. What lies between two
//! refused frames of the second kind counts as refused.
//!
//! What is trusted: the hypervisor's answers.

use crate::error::VsmError;
use crate::hardware::Hardware;
use crate::hv::{HvStatus, MODIFY_VTL_PROTECTION_MASK_MAX_GFNS};

use super::drive::{Stopped, flush};
use super::list::{Interval, IntervalList};
use super::permission::Permission;
use super::registry::FrameRegistry;
use super::spans::Spans;

/// Hypercalls that may be refused before the rest is left as it is, so that a call ends soon whatever VTL0 names.
const MAX_REFUSALS: u32 = 4096;

/// Frames of a run that are tried one by one. The hole below 1 MiB has 96.
pub(super) const EXACT: u64 = 256;

/// Beyond that, one in so many: memory of half a MiB within a hole is found.
const STEP: u64 = 128;
/// Far on, steps are this part of the distance.
const PART: u64 = 32;

/// What the hypervisor refused to change, most likely because it is no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// So many frames.
    pub frames: u64,
    /// In so many runs.
    pub runs: u64,
    /// The number of the first one found.
    pub first: u64,
    /// What the hypervisor said to that.
    pub status: Option<HvStatus>,
    /// How many of the frames were not tried, because the hypervisor had refused too much before.
    pub untried: u64,
}

/// One permission's frames, in ascending order.
struct Stream<'a> {
    registry: &'a mut FrameRegistry,
    hardware: &'a dyn Hardware,
    touched: &'a Spans,
    permission: Permission,
    is_refusal: fn(HvStatus) -> bool,
    refusals: u32,
}

impl FrameRegistry {
    /// Gives every touched interval its staged permission, at the hypervisor. Frames for which a hypercall fails with a status
    /// that `is_refusal` are unstaged.
    ///
    /// # Errors
    /// [`VsmError::Hypercall`] for any other status; [`VsmError::OutOfMemory`]. What has been changed is recorded.
    pub(super) fn drive_leaving(
        &mut self,
        hardware: &dyn Hardware,
        touched: &Spans,
        is_refusal: fn(HvStatus) -> bool,
    ) -> Result<Refused, VsmError> {
        let mut refused = Refused::default();
        let permissions = (0..=Permission::ALL.bits()).map(Permission::from_bits_truncate);
        let mut stream =
            Stream { registry: self, hardware, touched, permission: Permission::NONE, is_refusal, refusals: 0 };
        for permission in permissions {
            stream.permission = permission;
            stream.run(&mut refused)?;
        }
        Ok(refused)
    }
}

impl Stream<'_> {
    fn run(&mut self, refused: &mut Refused) -> Result<(), VsmError> {
        let (mut at, mut size) = (0, MODIFY_VTL_PROTECTION_MASK_MAX_GFNS);
        while let Some(first) = self.nth(at, 0) {
            if self.refusals >= MAX_REFUSALS {
                let left = self.leave(first, u64::MAX)?;
                refused.frames = refused.frames.saturating_add(left);
                refused.untried = refused.untried.saturating_add(left);
                return Ok(());
            }
            self.gather(first, size);
            match self.change(first)? {
                Ok(end) => (at, size) = (end, size.saturating_mul(2).min(MODIFY_VTL_PROTECTION_MASK_MAX_GFNS)),
                Err((_, end)) if size > 1 => (at, size) = (end, size / 2),
                Err((status, _)) => {
                    let last = self.end_of_run(first)?;
                    if refused.runs == 0 {
                        (refused.first, refused.status) = (first, Some(status));
                    }
                    refused.runs = refused.runs.saturating_add(1);
                    refused.frames = refused.frames.saturating_add(self.leave(first, last.saturating_add(1))?);
                    at = last.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Frames that the hypervisor has not changed yet.
    fn selected(permission: Permission) -> impl Fn(&Interval) -> bool {
        move |interval| interval.staged_permission == permission && interval.in_force != permission
    }

    /// The parts of intervals from frame `from` on that are to change, ascending.
    fn parts(&self, from: u64) -> impl Iterator<Item = (u64, u64)> {
        let (list, permission) = (&self.registry.list, self.permission);
        let spans = self.touched.iter().filter(move |span| span.to > from);
        spans.flat_map(move |span| {
            let parts = list.overlapping(span.from.max(from), span.to);
            parts.filter(move |(.., interval)| Self::selected(permission)(interval)).map(|(start, end, _)| (start, end))
        })
    }

    /// The frame behind `index` others that are to change, from `from` on.
    fn nth(&self, from: u64, index: u64) -> Option<u64> {
        let mut before = index;
        for (start, end) in self.parts(from) {
            match before.checked_sub(end - start) {
                Some(rest) => before = rest,
                None => return Some(start + before),
            }
        }
        None
    }

    /// Puts the next `size` frames from `from` on into the batch.
    fn gather(&mut self, from: u64, size: usize) {
        let mut batch = core::mem::take(&mut self.registry.batch);
        batch.clear();
        for (start, end) in self.parts(from) {
            let room = size.saturating_sub(batch.len());
            if room == 0 {
                break;
            }
            // Never more than there is room for since the registry was made.
            batch.extend(start..end.min(start.saturating_add(room as u64)));
        }
        self.registry.batch = batch;
    }

    /// One hypercall for the batch, whose first frame is `first`. Where the next one begins; with the status if something
    /// was refused.
    fn change(&mut self, first: u64) -> Result<Result<u64, (HvStatus, u64)>, VsmError> {
        // For what is recorded behind the hypercall, which must not fail.
        self.registry.list.reserve()?;
        let end = self.registry.batch.last().map_or(first, |last| last.saturating_add(1));
        let result = flush(self.hardware, self.permission, &mut self.registry.batch);
        let done = result.as_ref().map_or_else(|stopped| stopped.done, |()| end);
        self.record(first, done);
        match result {
            Ok(()) => Ok(Ok(done)),
            Err(Stopped { error: VsmError::Hypercall { status, .. }, .. }) if (self.is_refusal)(status) => {
                self.refusals = self.refusals.saturating_add(1);
                Ok(Err((status, done)))
            }
            Err(Stopped { error, .. }) => Err(error),
        }
    }

    /// Records that the frames from `first` to `end` that were to change have changed.
    fn record(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let (list, permission) = (&mut self.registry.list, self.permission);
        split(list, first);
        split(list, end);
        list.change(first, end, |interval| {
            if Self::selected(permission)(interval) {
                interval.put_in_force(permission);
            }
        });
        list.coalesce(first, end);
    }

    /// Leaves the frames from `first` to `end` that were to change as they are. How many they are.
    fn leave(&mut self, first: u64, end: u64) -> Result<u64, VsmError> {
        let permission = self.permission;
        let frames =
            self.parts(first).take_while(|(start, _)| *start < end).map(|(start, to)| to.min(end) - start).sum();
        let list = &mut self.registry.list;
        list.reserve()?;
        split(list, first);
        split(list, end);
        list.change(first, end, |interval| {
            if Self::selected(permission)(interval) {
                interval.refuse();
            }
        });
        list.coalesce(first, end);
        Ok(frames)
    }

    /// The last frame of the run of refused ones that begins with `first`.
    fn end_of_run(&mut self, first: u64) -> Result<u64, VsmError> {
        // As many frames behind the first one: refused, and the least that is not or does not exist.
        let (mut refused, mut good) = (0_u64, None);
        let mut last = first;
        let mut distance = 1_u64;
        while good.is_none_or(|good| good - refused > 1) && self.refusals < MAX_REFUSALS {
            let index = match good {
                Some(good) => refused + (good - refused) / 2,
                None => distance,
            };
            let step = if distance < EXACT { 1 } else { STEP.max(distance / PART) };
            distance = distance.saturating_add(step);
            let Some(frame) = self.nth(first, index) else {
                good = Some(index);
                continue;
            };
            self.gather(frame, 1);
            if self.change(frame)?.is_ok() {
                good = Some(index);
            } else {
                (refused, last) = (index, frame);
            }
        }
        Ok(last)
    }
}

/// Makes `gfn` the start of an interval, from the reserve.
fn split(list: &mut IntervalList, gfn: u64) {
    if let Err(error) = list.split_reserved(gfn) {
        log::error!("frame registry: {error}; an interval's record is inexact");
    }
}
