//! The one way to change who owns a frame or what VTL0 may do with it.
//!
//! Staging checks and records; the hypervisor is called by [`Transaction::apply`] and [`Transaction::commit`]. A
//! transaction that is dropped, or whose hypercalls fail, leaves the registry and the hypervisor as they were.
//! What is trusted: the claimant a handler names is the owner its own call stands for.

use crate::address::{FrameRange, Gfn};
use crate::error::VsmError;
use crate::hardware::{Hardware, ViewPiece};
use crate::hv::HvStatus;
use crate::phase::Phase;

use super::list::{END, Interval, State};
use super::narrow::Refused;
use super::permission::Permission;
use super::registry::{FrameRegistry, breaks_write_xor_execute};
use super::spans::Spans;
use super::view::FrozenView;
use crate::owner::Owner;

/// A change that is under way.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Transaction<'a> {
    registry: &'a mut FrameRegistry,
    hardware: &'a dyn Hardware,
    phase: Phase,
    touched: Spans,
    /// Whether the hypervisor may differ from the committed state.
    applied: bool,
}

impl FrameRegistry {
    /// Takes every access to VTL1's frames from VTL0. Done already, it costs nothing.
    ///
    /// # Errors
    /// [`VsmError::Hypercall`].
    pub fn close_vtl1(&mut self, hardware: &dyn Hardware) -> Result<(), VsmError> {
        let vtl1 = self.vtl1();
        let mut transaction = self.begin(hardware, Phase::Boot)?;
        transaction.stage_vtl1(vtl1, Permission::NONE)?;
        transaction.commit()
    }

    /// Starts a change. `phase` decides whether a frame may become writable and executable.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`] when the memory that a roll-back may need cannot be set aside.
    pub fn begin<'a>(&'a mut self, hardware: &'a dyn Hardware, phase: Phase) -> Result<Transaction<'a>, VsmError> {
        self.list.reserve()?;
        Ok(Transaction::new(self, hardware, phase))
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(registry: &'a mut FrameRegistry, hardware: &'a dyn Hardware, phase: Phase) -> Self {
        Self { registry, hardware, phase, touched: Spans::default(), applied: false }
    }

    /// The registry as it was when the transaction began: what is staged does not show.
    #[must_use]
    pub fn registry(&self) -> &FrameRegistry {
        self.registry
    }

    /// Stages that `frames` become `owner`'s with `permission`, on behalf of `claimant`. Either all frames are
    /// staged or, on an error, none.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`] when a frame is neither the claimant's nor free, as VTL1's own never are;
    /// [`VsmError::OutOfMemory`].
    pub fn stage(
        &mut self,
        frames: FrameRange,
        claimant: Owner,
        owner: Owner,
        permission: Permission,
    ) -> Result<(), VsmError> {
        self.registry.check_with(frames, claimant, |interval| interval.staged_owner)?;
        self.write(frames, claimant, owner, permission)
    }

    /// As [`Self::stage`], but frames of another owner stay as they are. For the list of all RAM that
    /// VTL0 sends during boot, which names VTL1's frames too. Returns how many frames were left out.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`].
    pub fn stage_skipping_foreign(
        &mut self,
        frames: FrameRange,
        claimant: Owner,
        owner: Owner,
        permission: Permission,
    ) -> Result<u64, VsmError> {
        let skipped = self
            .registry
            .list
            .overlapping(frames.start(), frames.end())
            .filter(|(.., interval)| !interval.staged_owner.yields_to(claimant))
            .map(|(start, end, _)| end - start)
            .sum();
        self.write(frames, claimant, owner, permission)?;
        Ok(skipped)
    }

    fn write(
        &mut self,
        frames: FrameRange,
        claimant: Owner,
        owner: Owner,
        permission: Permission,
    ) -> Result<(), VsmError> {
        let state = State { owner, permission };
        let (from, to) = (frames.start(), frames.end());
        if owner == Owner::Vtl1 {
            // Only FrameRegistry::new makes frames VTL1's.
            return Err(VsmError::FrameOwned(Gfn::new(from)?.start(), Owner::Vtl1));
        }
        let list = &mut self.registry.list;
        self.touched.add(from, to);
        list.split(from)?;
        list.split(to)?;
        list.change(from, to, |interval| {
            if interval.staged_owner.yields_to(claimant) {
                interval.stage(state);
            }
        });
        list.coalesce(from, to);
        Ok(())
    }

    /// Stages that all frames of `owner` lose their owner and get `permission`. For an owner that goes, or whose frames are
    /// then staged anew. Cannot fail, and allocates nothing.
    pub fn release_all(&mut self, owner: Owner, permission: Permission) {
        if matches!(owner, Owner::Nobody | Owner::Vtl1) {
            return;
        }
        let list = &mut self.registry.list;
        for (from, to, _) in list.overlapping(0, END).filter(|(.., interval)| interval.owner == owner) {
            self.touched.add(from, to);
        }
        list.change(0, END, |interval| {
            if interval.owner == owner {
                interval.stage(State { owner: Owner::Nobody, permission });
            }
        });
    }

    /// Takes back what is staged for `frames`: with the next [`Self::apply`] or [`Self::commit`] they are as they were
    /// before the transaction. For frames that were frozen only while VTL1 looked at them.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`].
    pub fn unstage(&mut self, frames: FrameRange) -> Result<(), VsmError> {
        let (from, to) = (frames.start(), frames.end());
        let list = &mut self.registry.list;
        self.touched.add(from, to);
        list.split(from)?;
        list.split(to)?;
        list.change(from, to, Interval::unstage);
        list.coalesce(from, to);
        Ok(())
    }

    /// VTL0's memory that this transaction has frozen, or that another claim keeps frozen, as bytes: the pieces one after
    /// another, in whole pages. What the bytes are cannot change while the view lives, for the transaction cannot change
    /// either.
    ///
    /// # Errors
    /// [`VsmError::NotFrozen`] for a frame that VTL0 can write, or that is free and not claimed by this transaction;
    /// [`VsmError::OutOfMemory`].
    pub fn view<'v>(&'v self, pieces: &'v [ViewPiece<'v>]) -> Result<FrozenView<'v>, VsmError> {
        for frames in pieces.iter().filter_map(ViewPiece::frames) {
            let mut overlapping = self.registry.list.overlapping(frames.start(), frames.end());
            let open = overlapping.find(|(.., interval)| {
                let claimed = interval.is_changed() || interval.owner != Owner::Nobody;
                interval.in_force.contains(Permission::WRITE) || !claimed || interval.owner == Owner::Vtl1
            });
            if let Some((start, ..)) = open {
                return Err(VsmError::NotFrozen(Gfn::new(start)?.start()));
            }
        }
        FrozenView::new(self.hardware, pieces)
    }

    /// Stages a permission for VTL1's own frames, which no other path changes.
    pub(super) fn stage_vtl1(&mut self, frames: FrameRange, permission: Permission) -> Result<(), VsmError> {
        let (from, to) = (frames.start(), frames.end());
        self.touched.add(from, to);
        self.registry.list.split(from)?;
        self.registry.list.split(to)?;
        self.registry.list.change(from, to, |interval| interval.staged_permission = permission);
        Ok(())
    }

    /// Stages that no frame that has an owner is both writable and executable for VTL0: writing goes. A frame has both because
    /// VTL0 maps it twice, as code and as memory like any other (LVBS contract §5.4). VTL0 runs it, its hypercall page with
    /// every hypercall, and has no reason to write it through the other mapping. Owners stay. Allocates nothing.
    pub fn stage_write_xor_execute(&mut self) {
        let is_open = |interval: &Interval| breaks_write_xor_execute(interval.staged_owner, interval.staged_permission);
        let list = &mut self.registry.list;
        for (from, to, _) in list.overlapping(0, END).filter(|(.., interval)| is_open(interval)) {
            self.touched.add(from, to);
        }
        list.change(0, END, |interval| {
            if is_open(interval) {
                interval.staged_permission.remove(Permission::WRITE);
            }
        });
    }

    /// Puts what is staged in force at the hypervisor without committing it: frames can be frozen, read, verified,
    /// and then staged again with their final permission. Dropping the transaction still takes all of it back.
    ///
    /// # Errors
    /// [`VsmError::WriteAndExecute`] when a changed frame would be writable and executable after the end of boot,
    /// [`VsmError::Hypercall`]. On an error the transaction has been rolled back and is empty.
    pub fn apply(&mut self) -> Result<(), VsmError> {
        let result = self.check_write_xor_execute().and_then(|()| {
            // Set aside since the transaction began, and used only by a failure: allocates nothing but in a
            // transaction that goes on after one.
            self.registry.list.reserve()?;
            self.applied = true;
            self.registry.drive(self.hardware, &self.touched, |interval| interval.staged_permission)
        });
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    /// Makes what is staged so: at the hypervisor, then in the registry.
    ///
    /// Costs ⌈n / 510⌉ hypercalls for each distinct permission, where n is the number of frames that change to it.
    ///
    /// # Errors
    /// As [`Self::apply`]; then nothing has changed.
    pub fn commit(mut self) -> Result<(), VsmError> {
        self.apply()?;
        self.accept();
        Ok(())
    }

    /// As [`Self::commit`], but frames that the hypervisor refuses to change stay as they were, with their owner: those for
    /// which a hypercall fails with a status that `is_refusal`. For what VTL0 names without knowing whether it is memory;
    /// nothing may have been applied before.
    ///
    /// Costs what [`Self::commit`] does, and for each run of refused frames some hypercalls of the logarithm of its length; at
    /// most some thousands together, after which the rest is left too.
    ///
    /// # Errors
    /// As [`Self::commit`] for other statuses; [`VsmError::OutOfMemory`]. Then nothing has changed.
    pub fn commit_leaving_refused(mut self, is_refusal: fn(HvStatus) -> bool) -> Result<Refused, VsmError> {
        self.check_write_xor_execute()?;
        self.registry.list.reserve()?;
        self.applied = true;
        // In as few hypercalls as can be; what that has done is not done again.
        let first = self.registry.drive(self.hardware, &self.touched, |interval| interval.staged_permission);
        let result = match first {
            Ok(()) => Ok(Refused::default()),
            Err(VsmError::Hypercall { status, .. }) if is_refusal(status) => {
                self.registry.drive_leaving(self.hardware, &self.touched, is_refusal)
            }
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.accept();
        }
        result
    }

    /// What is staged, and in force, holds from now on.
    fn accept(&mut self) {
        for span in self.touched.iter() {
            self.registry.list.change(span.from, span.to, Interval::accept);
            self.registry.list.coalesce(span.from, span.to);
        }
        self.touched.clear();
        self.applied = false;
    }

    fn check_write_xor_execute(&self) -> Result<(), VsmError> {
        if self.phase == Phase::Boot {
            return Ok(());
        }
        for span in self.touched.iter() {
            for (start, _, interval) in self.registry.list.overlapping(span.from, span.to) {
                if interval.is_changed() && interval.staged_permission.is_write_and_execute() {
                    return Err(VsmError::WriteAndExecute(Gfn::new(start)?.start()));
                }
            }
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        if self.applied {
            self.registry.restore(self.hardware, &self.touched);
        } else {
            for span in self.touched.iter() {
                self.registry.list.change(span.from, span.to, Interval::unstage);
                self.registry.list.coalesce(span.from, span.to);
            }
        }
        self.touched.clear();
        self.applied = false;
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.roll_back();
    }
}
