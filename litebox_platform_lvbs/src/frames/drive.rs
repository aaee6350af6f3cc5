//! Bringing the hypervisor's permissions to where the registry wants them, with few hypercalls and no allocation.
//!
//! What is trusted: the hypervisor's count of completed list elements when a hypercall fails (TLFS "Hypercall Status
//! and Reps": elements are done in order, and the count says how many).

use alloc::vec::Vec;

use crate::error::VsmError;
use crate::hardware::{Hardware, calls};
use crate::hv::{HypercallCode, MODIFY_VTL_PROTECTION_MASK_MAX_GFNS};

use super::list::Interval;
use super::permission::Permission;
use super::registry::FrameRegistry;
use super::spans::Spans;

/// How often a failing roll-back is taken up again before VTL1 accepts what the hypervisor has.
const RESTORE_ATTEMPTS: usize = 3;
const _: () = assert!(RESTORE_ATTEMPTS < super::list::RESERVED_SPLITS, "each failure may split one interval");

/// Where a stream of frames stopped: everything before `done` has the new permission.
pub(super) struct Stopped {
    pub done: u64,
    pub error: VsmError,
}

/// The set of permissions as bits of one word.
fn bit(permission: Permission) -> u8 {
    1 << permission.bits()
}

impl FrameRegistry {
    /// Gives every touched interval the permission `target` names, at the hypervisor, and records in `in_force`
    /// exactly how far that came.
    pub(super) fn drive(
        &mut self,
        hardware: &dyn Hardware,
        touched: &Spans,
        target: fn(&Interval) -> Permission,
    ) -> Result<(), VsmError> {
        let mut wanted = 0;
        for span in touched.iter() {
            for (.., interval) in self.list.overlapping(span.from, span.to) {
                if target(interval) != interval.in_force {
                    wanted |= bit(target(interval));
                }
            }
        }
        for bits in 0..=Permission::ALL.bits() {
            let permission = Permission::from_bits_truncate(bits);
            if wanted & bit(permission) == 0 {
                continue;
            }
            let selected = |interval: &Interval| target(interval) == permission && interval.in_force != permission;
            let result = self.stream(hardware, touched, permission, selected);
            let done = match &result {
                Ok(()) => u64::MAX,
                Err(stopped) => {
                    // From the reserve: cannot fail (see RESERVED_SPLITS). If it did, the whole interval would be
                    // recorded as unchanged.
                    if let Err(error) = self.list.split_reserved(stopped.done) {
                        log::error!("frame registry: {error}; an interval's record is inexact");
                    }
                    stopped.done
                }
            };
            for span in touched.iter() {
                self.list.change(span.from, span.to.min(done), |interval| {
                    if selected(interval) {
                        interval.put_in_force(permission);
                    }
                });
            }
            result.map_err(|stopped| stopped.error)?;
        }
        Ok(())
    }

    /// Sends all selected frames, in ascending order, as many per hypercall as go into one.
    fn stream(
        &mut self,
        hardware: &dyn Hardware,
        touched: &Spans,
        permission: Permission,
        selected: impl Fn(&Interval) -> bool,
    ) -> Result<(), Stopped> {
        let Self { list, batch, .. } = self;
        batch.clear();
        for span in touched.iter() {
            for (start, end, _) in list.overlapping(span.from, span.to).filter(|(.., interval)| selected(interval)) {
                let mut next = start;
                while next < end {
                    // Lossless: both are at most the room in one hypercall.
                    let room = MODIFY_VTL_PROTECTION_MASK_MAX_GFNS.saturating_sub(batch.len()) as u64;
                    let upto = end.min(next.saturating_add(room));
                    batch.extend(next..upto);
                    next = upto;
                    if batch.len() >= MODIFY_VTL_PROTECTION_MASK_MAX_GFNS {
                        flush(hardware, permission, batch)?;
                    }
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { flush(hardware, permission, batch) }
    }

    /// Brings the hypervisor back to the committed permissions. Where it keeps refusing, the registry takes over what
    /// the hypervisor has, and says so in the log.
    pub(super) fn restore(&mut self, hardware: &dyn Hardware, touched: &Spans) {
        let mut failure = None;
        for _ in 0..RESTORE_ATTEMPTS {
            failure = self.drive(hardware, touched, |interval| interval.permission).err();
            if failure.is_none() {
                break;
            }
        }
        if let Some(error) = failure {
            // One line, however many intervals: the registry is locked, and VTL0 may have caused it.
            let (mut count, mut first) = (0_u64, None);
            for span in touched.iter() {
                let spans = self.list.overlapping(span.from, span.to);
                for (start, end, interval) in spans.filter(|(.., interval)| interval.in_force != interval.permission) {
                    count = count.saturating_add(end - start);
                    first.get_or_insert((start, interval.owner, interval.in_force, interval.permission));
                }
            }
            if let Some((start, owner, is, was)) = first {
                log::error!(
                    "frame registry: a roll-back failed ({error}): {count} frames do not have the permission they had; \
                     the first is {start:#x} of {owner}, which stays {is} instead of {was}"
                );
            }
        }
        for span in touched.iter() {
            self.list.change(span.from, span.to, |interval| {
                interval.permission = interval.in_force;
                interval.unstage();
            });
            self.list.coalesce(span.from, span.to);
        }
    }
}

/// One hypercall; empties the batch.
pub(super) fn flush(hardware: &dyn Hardware, permission: Permission, batch: &mut Vec<u64>) -> Result<(), Stopped> {
    let result =
        calls::modify_vtl_protection_mask(hardware, permission.map_flags(), batch).map_err(|(done, status)| {
            // The first frame that was not done; all may be, and the hypercall a failure nevertheless.
            let after_all = batch.last().map_or(0, |last| last.saturating_add(1));
            let call = HypercallCode::MODIFY_VTL_PROTECTION_MASK.0;
            Stopped { done: batch.get(done).copied().unwrap_or(after_all), error: VsmError::Hypercall { call, status } }
        });
    batch.clear();
    result
}
