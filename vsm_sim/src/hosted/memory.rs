//! Sparse guest memory with witnesses: how often VTL1 fetched a byte, and what VTL0 does meanwhile.
//!
//! Pages exist once they are written and read as zero before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use litebox_platform_lvbs::address::FrameRange;

use crate::hv::{GuestMemory, NotRam};

const PAGE: usize = 4096;

/// A moment at which another processor of VTL0 may get in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RacePoint {
    /// VTL1 is about to read VTL0 memory.
    BeforeRead {
        /// First byte.
        gpa: u64,
        /// How many bytes.
        len: usize,
    },
    /// VTL1 has read VTL0 memory.
    AfterRead {
        /// First byte.
        gpa: u64,
        /// How many bytes.
        len: usize,
    },
    /// VTL1 is about to write VTL0 memory.
    BeforeWrite {
        /// First byte.
        gpa: u64,
        /// How many bytes.
        len: usize,
    },
    /// VTL1 has made a hypercall with this code.
    AfterHypercall(u16),
}

/// What VTL0 does at a [`RacePoint`]. It may use the memory and the model, but not change the race.
pub type Race = Box<dyn FnMut(RacePoint, &HostedMemory) + Send>;

/// Guest memory on the host's heap.
pub struct HostedMemory {
    ram: Vec<FrameRange>,
    pages: Mutex<HashMap<u64, Box<[u8; PAGE]>>>,
    /// How often VTL1 fetched each byte of VTL0's, while counting is on.
    fetches: Mutex<Option<HashMap<u64, u32>>>,
    race: Mutex<Option<Race>>,
    /// How many accesses of VTL1 go well before one faults.
    accesses_left: Mutex<Option<u32>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostedMemory {
    /// Memory with these slots of RAM.
    pub fn new(ram: Vec<FrameRange>) -> Self {
        let (pages, fetches, race) = Default::default();
        Self { ram, pages, fetches, race, accesses_left: Mutex::default() }
    }

    /// Whether frame `gfn` is RAM.
    pub fn is_ram(&self, gfn: u64) -> bool {
        self.ram.iter().any(|slot| slot.start() <= gfn && gfn < slot.end())
    }

    /// Sets what VTL0 does while VTL1 works; `None` lets it rest.
    pub fn set_race(&self, race: Option<Race>) {
        *locked(&self.race) = race;
    }

    /// Lets one of VTL1's accesses fault, after `left` that go well; `None` lets none.
    pub fn fail_access_after(&self, left: Option<u32>) {
        *locked(&self.accesses_left) = left;
    }

    /// Whether an access that was to fault has not come yet.
    pub fn is_failure_pending(&self) -> bool {
        locked(&self.accesses_left).is_some()
    }

    /// VTL1 is about to access memory: whether that faults.
    pub(super) fn faults(&self) -> bool {
        let mut accesses = locked(&self.accesses_left);
        let fault = *accesses == Some(0);
        *accesses = accesses.and_then(|left| left.checked_sub(1));
        fault
    }

    /// Lets VTL0 act. Does nothing while VTL0 is acting already.
    pub(super) fn race_at(&self, point: RacePoint) {
        let taken = locked(&self.race).take();
        if let Some(mut race) = taken {
            race(point, self);
            locked(&self.race).get_or_insert(race);
        }
    }

    /// Counts from now on, starting at zero, how often VTL1 fetches each byte.
    pub fn count_fetches(&self) {
        *locked(&self.fetches) = Some(HashMap::new());
    }

    /// Ends the counting: how often VTL1 fetched which byte, for the bytes it fetched at all.
    pub fn take_fetches(&self) -> HashMap<u64, u32> {
        locked(&self.fetches).take().unwrap_or_default()
    }

    pub(super) fn note_fetch(&self, gpa: u64, len: usize) {
        if let Some(fetches) = locked(&self.fetches).as_mut() {
            for byte in (gpa..).take(len) {
                *fetches.entry(byte).or_default() += 1;
            }
        }
    }

    /// The frame and the bytes within it; they must not cross a page.
    fn place(&self, gpa: u64, len: usize) -> Result<(u64, std::ops::Range<usize>), NotRam> {
        let offset = usize::try_from(gpa % 4096).map_err(|_| NotRam(gpa))?;
        let end = offset.checked_add(len).filter(|end| *end <= PAGE).ok_or(NotRam(gpa))?;
        if self.is_ram(gpa >> 12) { Ok((gpa >> 12, offset..end)) } else { Err(NotRam(gpa)) }
    }
}

impl GuestMemory for HostedMemory {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
        let (gfn, bytes) = self.place(gpa, into.len())?;
        match locked(&self.pages).get(&gfn) {
            Some(page) => into.copy_from_slice(&page[bytes]),
            None => into.fill(0),
        }
        Ok(())
    }

    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam> {
        let (gfn, bytes) = self.place(gpa, from.len())?;
        locked(&self.pages).entry(gfn).or_insert_with(|| Box::new([0; PAGE]))[bytes].copy_from_slice(from);
        Ok(())
    }
}
