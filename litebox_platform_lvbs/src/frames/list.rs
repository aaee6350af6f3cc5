//! A sorted list of intervals that partitions the frame space, in two levels so that inserting stays cheap.
//!
//! The list is an outer vector of chunks of at most [`CHUNK`] intervals. A chunk is allocated at full size, so
//! inserting into it never allocates; only splitting a full chunk does, and that can fail without harm. An interval
//! ends where the next one starts: there are no gaps and no overlaps by construction.

use alloc::vec::Vec;

use crate::address::{PAGE_SHIFT, PHYS_ADDR_BITS};
use crate::error::VsmError;

use super::permission::Permission;
use crate::owner::Owner;

/// First frame number beyond the guest-physical space.
pub(super) const END: u64 = 1 << (PHYS_ADDR_BITS - PAGE_SHIFT);
/// Intervals per chunk: one page of them.
pub(super) const CHUNK: usize = 128;
/// Splits that [`IntervalList::split_reserved`] is good for after [`IntervalList::reserve`].
pub(super) const RESERVED_SPLITS: usize = 6;
/// An insertion this near to the end of a full chunk splits the chunk there and not in the middle, so that a list
/// filled in ascending or descending order has full chunks.
const NEAR_END: usize = 4;

/// Owner and permission of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub owner: Owner,
    pub permission: Permission,
}

/// Frames from `start` to the next interval's start.
///
/// The committed state is what holds, and what a roll-back returns to; the staged one is what a transaction wants.
/// The fields are laid out flat to keep the size down: there may be a million intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// Number of the first frame.
    pub start: u64,
    /// Committed owner.
    pub owner: Owner,
    /// Staged owner; equals `owner` outside of a transaction.
    pub staged_owner: Owner,
    /// Committed permission.
    pub permission: Permission,
    /// Staged permission; equals `permission` outside of a transaction.
    pub staged_permission: Permission,
    /// What the hypervisor has; equals `permission` outside of a transaction.
    pub in_force: Permission,
    /// Whether the hypervisor has refused to change it, and has not changed it since.
    pub refused: bool,
    /// The same once the transaction commits; equals `refused` outside of one.
    pub staged_refused: bool,
}

const _: () = assert!(size_of::<Interval>() == 32);

impl Interval {
    fn new(start: u64, State { owner, permission }: State) -> Self {
        let (staged_owner, staged_permission, in_force) = (owner, permission, permission);
        Self {
            start,
            owner,
            staged_owner,
            permission,
            staged_permission,
            in_force,
            refused: false,
            staged_refused: false,
        }
    }

    /// Stages `state`.
    pub fn stage(&mut self, state: State) {
        self.staged_owner = state.owner;
        self.staged_permission = state.permission;
    }

    /// Takes back what is staged.
    pub fn unstage(&mut self) {
        self.staged_owner = self.owner;
        self.staged_permission = self.permission;
        self.staged_refused = self.refused;
    }

    /// Records that the hypervisor has changed it to `permission`.
    pub fn put_in_force(&mut self, permission: Permission) {
        self.in_force = permission;
        self.staged_refused = false;
    }

    /// Takes back what is staged because the hypervisor has refused it.
    pub fn refuse(&mut self) {
        self.unstage();
        self.staged_refused = true;
    }

    /// Commits what is staged.
    pub fn accept(&mut self) {
        self.owner = self.staged_owner;
        self.permission = self.staged_permission;
        self.refused = self.staged_refused;
    }

    /// Whether something is staged that differs from what holds.
    pub fn is_changed(&self) -> bool {
        self.owner != self.staged_owner || self.permission != self.staged_permission
    }

    fn same_state(&self, other: &Self) -> bool {
        Self { start: self.start, ..*other } == *self
    }
}

type Chunk = Vec<Interval>;

/// The list. Never empty; the first interval starts at frame 0, the last ends at [`END`].
#[derive(Debug)]
pub(super) struct IntervalList {
    chunks: Vec<Chunk>,
    spare: Vec<Chunk>,
    /// Where the last change was: the next one is often near. Only a guess, which [`Self::find_chunk`] checks.
    hint: usize,
}

/// Position of an interval.
#[derive(Clone, Copy, Debug)]
struct Position {
    chunk: usize,
    item: usize,
}

fn out_of_memory<T>(_: T) -> VsmError {
    VsmError::OutOfMemory("the frame registry")
}

fn new_chunk() -> Result<Chunk, VsmError> {
    let mut chunk = Chunk::new();
    chunk.try_reserve_exact(CHUNK).map_err(out_of_memory)?;
    Ok(chunk)
}

impl IntervalList {
    /// One interval over everything.
    pub fn new(state: State) -> Result<Self, VsmError> {
        let mut chunk = new_chunk()?;
        chunk.push(Interval::new(0, state));
        let mut chunks = Vec::new();
        chunks.try_reserve(1).map_err(out_of_memory)?;
        chunks.push(chunk);
        Ok(Self { chunks, spare: Vec::new(), hint: 0 })
    }

    /// Makes sure that the next [`RESERVED_SPLITS`] calls of [`Self::split_reserved`] find memory, whatever
    /// [`Self::split`] does meanwhile.
    pub fn reserve(&mut self) -> Result<(), VsmError> {
        self.chunks.try_reserve(RESERVED_SPLITS).map_err(out_of_memory)?;
        self.spare.try_reserve_exact(RESERVED_SPLITS.saturating_sub(self.spare.len())).map_err(out_of_memory)?;
        while self.spare.len() < RESERVED_SPLITS {
            self.spare.push(new_chunk()?);
        }
        Ok(())
    }

    /// How many intervals there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// The interval that holds `gfn`.
    fn find(&self, gfn: u64) -> Position {
        let chunk = self.find_chunk(gfn);
        let item = self
            .chunks
            .get(chunk)
            .map_or(0, |chunk| chunk.partition_point(|interval| interval.start <= gfn).saturating_sub(1));
        Position { chunk, item }
    }

    /// The chunk with the interval that holds `gfn`.
    fn find_chunk(&self, gfn: u64) -> usize {
        let starts = |chunk: &Chunk| starts_at_or_before(chunk.first(), gfn);
        let after = self.hint.saturating_add(1);
        if self.chunks.get(self.hint).is_some_and(starts) && !self.chunks.get(after).is_some_and(starts) {
            return self.hint;
        }
        self.chunks.partition_point(starts).saturating_sub(1)
    }

    /// The interval that holds `gfn`, if `gfn` is below [`END`].
    pub fn at(&self, gfn: u64) -> Option<&Interval> {
        let position = self.find(gfn);
        self.chunks.get(position.chunk)?.get(position.item).filter(|_| gfn < END)
    }

    /// The intervals that hold a frame of `from..to`, in ascending order, each with its part of `from..to`.
    pub fn overlapping(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64, &Interval)> {
        let position = self.find(from);
        let first = self.chunks.get(position.chunk).and_then(|chunk| chunk.get(position.item..)).unwrap_or_default();
        let rest = self.chunks.get(position.chunk.saturating_add(1)..).unwrap_or_default();
        let mut intervals = first.iter().chain(rest.iter().flatten()).peekable();
        core::iter::from_fn(move || {
            let interval = intervals.next()?;
            let end = intervals.peek().map_or(END, |next| next.start);
            let (start, end) = (interval.start.max(from), end.min(to));
            (start < end).then_some((start, end, interval))
        })
    }

    /// Calls `change` for every interval that starts in `from..to`.
    pub fn change(&mut self, from: u64, to: u64, mut change: impl FnMut(&mut Interval)) {
        let position = self.find(from);
        self.hint = position.chunk;
        let Some((first, rest)) = self.chunks.get_mut(position.chunk..).and_then(<[_]>::split_first_mut) else {
            return;
        };
        let first = first.get_mut(position.item..).unwrap_or_default();
        // The interval that holds `from` may start before it.
        let intervals = first.iter_mut().chain(rest.iter_mut().flatten()).skip_while(|interval| interval.start < from);
        for interval in intervals.take_while(|interval| interval.start < to) {
            change(interval);
        }
    }

    /// Makes `gfn` the start of an interval.
    pub fn split(&mut self, gfn: u64) -> Result<(), VsmError> {
        self.split_with(gfn, |list| {
            list.chunks.try_reserve(1 + RESERVED_SPLITS).map_err(out_of_memory)?;
            new_chunk()
        })
    }

    /// As [`Self::split`], from what [`Self::reserve`] set aside: allocates nothing.
    pub fn split_reserved(&mut self, gfn: u64) -> Result<(), VsmError> {
        self.split_with(gfn, |list| list.spare.pop().ok_or(VsmError::OutOfMemory("a reserved split")))
    }

    fn split_with(
        &mut self,
        gfn: u64,
        more: impl FnOnce(&mut Self) -> Result<Chunk, VsmError>,
    ) -> Result<(), VsmError> {
        let position = self.find(gfn);
        self.hint = position.chunk;
        let at = position.item.saturating_add(1);
        let Some(chunk) = self.chunks.get_mut(position.chunk) else { return Ok(()) };
        let Some(&interval) = chunk.get(position.item) else { return Ok(()) };
        if interval.start == gfn || gfn >= END {
            return Ok(());
        }
        let new = Interval { start: gfn, ..interval };
        if chunk.len() < CHUNK {
            chunk.insert(at, new);
            return Ok(());
        }
        let mut upper = more(self)?;
        let Some(lower) = self.chunks.get_mut(position.chunk) else { return Ok(()) };
        let middle = if at <= NEAR_END || at >= CHUNK - NEAR_END { at } else { CHUNK / 2 };
        upper.extend(lower.drain(middle..));
        if at <= middle && lower.len() < CHUNK {
            lower.insert(at, new);
        } else {
            upper.insert(at - middle, new);
        }
        self.chunks.insert(position.chunk + 1, upper);
        Ok(())
    }

    /// Joins neighbours with the same state, from the interval before `from` to the one that holds `to`.
    pub fn coalesce(&mut self, from: u64, to: u64) {
        let start = self.find(from.saturating_sub(1));
        let end = self.find(to.min(END - 1));
        let (first, last) = (start.chunk, end.chunk);
        let mut previous = first;
        let mut emptied = false;
        for index in first..=last {
            let Some((before, rest)) = self.chunks.split_at_mut_checked(index) else { break };
            let Some(chunk) = rest.first_mut() else { break };
            let begin = if index == first { start.item } else { 0 };
            let finish = if index == last { end.item } else { chunk.len().saturating_sub(1) };
            join_equal(chunk, begin, finish);
            if index == first {
                continue;
            }
            let Some(previous_chunk) = before.get_mut(previous) else { break };
            if let (Some(left), Some(right)) = (previous_chunk.last(), chunk.first())
                && left.same_state(right)
            {
                chunk.remove(0);
            }
            // Chunks that have become small are put together, well below the size at which they would be split again.
            if previous_chunk.len() + chunk.len() <= CHUNK / 2 {
                previous_chunk.append(chunk);
            }
            if chunk.is_empty() {
                emptied = true;
            } else {
                previous = index;
            }
        }
        if emptied {
            self.chunks.retain(|chunk| !chunk.is_empty());
        }
    }

    /// Panics unless the list is what its documentation says.
    #[cfg(test)]
    pub fn assert_consistent(&self) {
        assert_eq!(self.chunks[0][0].start, 0);
        assert!(self.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK && chunk.capacity() >= CHUNK));
        let starts: Vec<u64> = self.chunks.iter().flatten().map(|interval| interval.start).collect();
        assert!(starts.windows(2).all(|pair| pair[0] < pair[1]) && starts.iter().all(|&start| start < END));
    }

    /// Number of chunks.
    #[cfg(test)]
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}

/// Joins neighbours with the same state among the items `first..=last` of a chunk.
fn join_equal(chunk: &mut Chunk, first: usize, last: usize) {
    let mut kept = first;
    for index in first.saturating_add(1)..=last {
        let (Some(&earlier), Some(&later)) = (chunk.get(kept), chunk.get(index)) else { break };
        if later.same_state(&earlier) {
            continue;
        }
        kept += 1;
        if kept != index
            && let Some(place) = chunk.get_mut(kept)
        {
            *place = later;
        }
    }
    if kept < last && last < chunk.len() {
        chunk.drain(kept + 1..=last);
    }
}

fn starts_at_or_before(interval: Option<&Interval>, gfn: u64) -> bool {
    interval.is_some_and(|interval| interval.start <= gfn)
}
