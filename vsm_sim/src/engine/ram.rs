//! Guest RAM: anonymous shared memory that this process and the emulator both map, seen as guest-physical slots.
//!
//! The guest may change any byte at any time, so nothing here hands out a reference: data is copied in and out with relaxed atomic accesses. Aligned
//! 64-bit accesses are single copy atomic. Addresses are the caller's and are checked against the slots.

use super::error::{EngineError, Result};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// A shared mapping of a memory file.
pub struct Mapping {
    fd: OwnedFd,
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping lives as long as the value, is never moved, and is only accessed through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; atomics may be used from several threads.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Creates and maps a memory file of `len` bytes, all zero and none of them allocated yet.
    pub fn new(len: u64) -> Result<Self> {
        // SAFETY: the name is a C string; the call has no other precondition.
        let fd = unsafe { libc::memfd_create(c"vsm_sim".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(EngineError::system("memfd_create for guest RAM"));
        }
        // SAFETY: the descriptor was just created and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let too_large = |_| EngineError::Config(format!("{len:#x} bytes of RAM"));
        let signed = libc::off_t::try_from(len).map_err(too_large)?;
        let len = usize::try_from(len).map_err(too_large)?;
        // SAFETY: a plain system call on an owned descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), signed) } != 0 {
            return Err(EngineError::system("ftruncate for guest RAM"));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; no existing memory is touched.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(EngineError::system("mmap for guest RAM"));
        }
        Ok(Self { fd, base: base.cast(), len })
    }

    /// The descriptor of the memory file.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.len as u64
    }

    fn at<T>(&self, offset: u64) -> *mut T {
        let size = size_of::<T>();
        let at = usize::try_from(offset)
            .ok()
            .filter(|at| at.is_multiple_of(size) && at.checked_add(size).is_some_and(|end| end <= self.len));
        let at = at.unwrap_or_else(|| panic!("offset {offset:#x} is outside the RAM file or not {size}-byte aligned"));
        // SAFETY: `at` was just checked to lie inside the mapping.
        unsafe { self.base.add(at).cast() }
    }

    /// The byte at `offset`.
    pub fn u8(&self, offset: u64) -> &AtomicU8 {
        // SAFETY: `at` gives an aligned address inside the mapping, which lives as long as `self`.
        unsafe { AtomicU8::from_ptr(self.at(offset)) }
    }

    /// The aligned 32-bit word at `offset`.
    pub fn u32(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: as for `u8`.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    /// The aligned 64-bit word at `offset`.
    pub fn u64(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: as for `u8`.
        unsafe { AtomicU64::from_ptr(self.at(offset)) }
    }

    /// Copies out; whole aligned words are read at once.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let head = out.len().min(usize::try_from(offset.wrapping_neg() & 7).unwrap_or(0));
        let (head, rest) = out.split_at_mut(head);
        let mut at = offset;
        for byte in head {
            *byte = self.u8(at).load(Relaxed);
            at += 1;
        }
        let (words, tail) = rest.as_chunks_mut::<8>();
        for word in words {
            *word = self.u64(at).load(Relaxed).to_le_bytes();
            at += 8;
        }
        for byte in tail {
            *byte = self.u8(at).load(Relaxed);
            at += 1;
        }
    }

    /// Copies in; whole aligned words are written at once.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let head = data.len().min(usize::try_from(offset.wrapping_neg() & 7).unwrap_or(0));
        let (head, rest) = data.split_at(head);
        let mut at = offset;
        for byte in head {
            self.u8(at).store(*byte, Relaxed);
            at += 1;
        }
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            self.u64(at).store(u64::from_le_bytes(*word), Relaxed);
            at += 8;
        }
        for byte in tail {
            self.u8(at).store(*byte, Relaxed);
            at += 1;
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// A range of guest-physical addresses that is RAM. Both fields are in bytes and multiples of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// First guest-physical address.
    pub gpa: u64,
    /// Size.
    pub size: u64,
}

/// A slot and where it lies in the memory file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub slot: Slot,
    pub offset: u64,
}

/// The RAM of a machine by guest-physical address.
pub struct GuestRam {
    mapping: Arc<Mapping>,
    slots: Vec<Placed>,
    writes: Writes,
}

/// What the host wrote since a guest first ran, as ranges of the memory file. An engine that caches translated code has to be told.
#[derive(Default)]
struct Writes {
    recorded: AtomicBool,
    ranges: Mutex<Vec<(u64, u64)>>,
}

impl Writes {
    fn add(&self, start: u64, len: u64) {
        if len == 0 || !self.recorded.load(SeqCst) {
            return;
        }
        let end = start + len;
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        match ranges.iter_mut().find(|(from, to)| start <= *to && end >= *from) {
            Some((from, to)) => (*from, *to) = (start.min(*from), end.max(*to)),
            None => ranges.push((start, end)),
        }
    }
}

impl GuestRam {
    pub(crate) fn new(mapping: Arc<Mapping>, slots: Vec<Placed>) -> Self {
        Self { mapping, slots, writes: Writes::default() }
    }

    /// The ranges (start and end in the memory file) written by the host since the last call; recording starts with the first call.
    pub(crate) fn take_writes(&self) -> Vec<(u64, u64)> {
        self.writes.recorded.store(true, SeqCst);
        core::mem::take(&mut *self.writes.ranges.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The slots, ascending.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots.iter().map(|placed| placed.slot)
    }

    pub(crate) fn placed(&self) -> &[Placed] {
        &self.slots
    }

    /// Offset in the memory file of `len` bytes at `gpa`, all in one slot.
    fn offset(&self, gpa: u64, len: u64) -> Result<u64> {
        let found = self.slots.iter().find(|Placed { slot, .. }| {
            gpa.checked_sub(slot.gpa).is_some_and(|into| into < slot.size && len <= slot.size - into)
        });
        found.map(|placed| placed.offset + (gpa - placed.slot.gpa)).ok_or(EngineError::NotRam { gpa, len })
    }

    /// Whether the byte at `gpa` is RAM.
    pub fn is_ram(&self, gpa: u64) -> bool {
        self.offset(gpa, 1).is_ok()
    }

    /// Copies `out.len()` bytes from `gpa`, which must lie in one slot.
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> Result<()> {
        self.mapping.read(self.offset(gpa, out.len() as u64)?, out);
        Ok(())
    }

    /// Copies `data` to `gpa`; all of it must lie in one slot.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Result<()> {
        let offset = self.offset(gpa, data.len() as u64)?;
        self.mapping.write(offset, data);
        self.writes.add(offset, data.len() as u64);
        Ok(())
    }

    /// Sets `len` bytes from `gpa` to `value`.
    pub fn fill(&self, gpa: u64, len: u64, value: u8) -> Result<()> {
        let start = self.offset(gpa, len)?;
        let page = [value; 4096];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(4096);
            self.mapping.write(start + done, &page[..usize::try_from(step).unwrap_or(4096)]);
            done += step;
        }
        self.writes.add(start, len);
        Ok(())
    }

    /// The little-endian 64-bit value at `gpa`; one access if aligned.
    pub fn read_u64(&self, gpa: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian 64-bit value; one access if aligned.
    pub fn write_u64(&self, gpa: u64, value: u64) -> Result<()> {
        self.write(gpa, &value.to_le_bytes())
    }
}
