//! The registry as one would write it with no thought for memory or time: an entry per frame.

use crate::address::FrameRange;
use crate::frames::{FrameRegistry, Permission};
use crate::owner::Owner;

type Entry = (Owner, Permission);

/// An owner and a permission for each frame of a small RAM.
#[derive(Clone, PartialEq)]
pub(super) struct Naive {
    pub committed: Vec<Entry>,
    pub staged: Vec<Entry>,
}

impl Naive {
    pub fn new(frames: usize, vtl1: FrameRange) -> Self {
        let mut committed = vec![(Owner::Nobody, Permission::ALL); frames];
        committed[indices(vtl1)].fill((Owner::Vtl1, Permission::ALL));
        Self { staged: committed.clone(), committed }
    }

    /// Returns whether the claim is allowed; stages it if so.
    pub fn stage(&mut self, range: FrameRange, claimant: Owner, entry: Entry, skip: bool) -> bool {
        let part = &mut self.staged[indices(range)];
        let yields = |owner: Owner| {
            let free = owner == Owner::Nobody || owner == claimant;
            // The trampoline is sealed with the kernel it is part of, and so is the text.
            let sealed = matches!(
                (owner, claimant),
                (Owner::BootProtected | Owner::KernelText, Owner::Trampoline)
                    | (Owner::KernelText, Owner::BootProtected)
            );
            let module = |owner| if let Owner::Module { token, .. } = owner { Some(token) } else { None };
            let free = free || (module(owner).is_some() && module(owner) == module(claimant));
            claimant != Owner::Vtl1 && owner != Owner::Vtl1 && (free || sealed)
        };
        if !skip && !part.iter().all(|(owner, _)| yields(*owner)) {
            return false;
        }
        part.iter_mut().filter(|(owner, _)| yields(*owner)).for_each(|place| *place = entry);
        true
    }

    /// Takes writing from owned frames that VTL0 can execute; how many frames that are.
    pub fn stage_write_xor_execute(&mut self) -> usize {
        let mut closed = 0;
        for (owner, permission) in &mut self.staged {
            let owned = *owner != Owner::Nobody && *owner != Owner::Vtl1;
            if owned && permission.contains(Permission::WRITE | Permission::EXEC) {
                *permission -= Permission::WRITE;
                closed += 1;
            }
        }
        closed
    }

    pub fn breaks_write_xor_execute(&self) -> bool {
        let both = Permission::WRITE | Permission::EXEC;
        self.staged.iter().zip(&self.committed).any(|(new, old)| new != old && new.1.contains(both))
    }

    /// Hypercalls that bring the permissions from `from` to what is staged.
    pub fn hypercalls(&self, from: &[Permission]) -> usize {
        let count = |bits| {
            let changed = self.staged.iter().zip(from).filter(|((_, new), old)| new != *old && new.bits() == bits);
            changed.count().div_ceil(510)
        };
        (0..8).map(count).sum()
    }

    pub fn permissions(&self) -> Vec<Permission> {
        self.staged.iter().map(|(_, permission)| *permission).collect()
    }

    /// Panics unless the registry says the same, in the fewest intervals that can say it.
    pub fn assert_equals(&self, registry: &FrameRegistry) {
        let mut frames = 0;
        let mut previous = None;
        for interval in registry.intervals() {
            let state = (interval.owner, interval.permission);
            assert_ne!(previous, Some(state), "neighbours at {} should be one interval", interval.frames);
            previous = Some(state);
            let end = interval.frames.end().min(u64::try_from(self.committed.len()).unwrap());
            for gfn in interval.frames.start()..end {
                assert_eq!(self.committed[usize::try_from(gfn).unwrap()], state, "frame {gfn:#x}");
                frames += 1;
            }
        }
        assert_eq!(frames, self.committed.len());
        registry.list.assert_consistent();
        for interval in registry.list.overlapping(0, 1 << 40).map(|(.., interval)| interval) {
            assert!(!interval.is_changed() && interval.in_force == interval.permission, "{interval:?} is not settled");
        }
    }
}

fn indices(range: FrameRange) -> std::ops::Range<usize> {
    usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap()
}
