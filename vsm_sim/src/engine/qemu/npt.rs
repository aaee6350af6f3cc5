//! Nested page tables: one 4-level tree per address space, in engine memory. Large pages of 2 MiB where rights are uniform, split on demand. Leaves
//! point at the RAM's place in the emulated machine; what is not RAM stays not present. SVM rights: present means readable, so a page that may be
//! executed but not read cannot be expressed and is treated as no access.

use super::layout;
use super::process::machine_address;
use crate::engine::error::{EngineError, Result};
use crate::engine::exit::Access;
use crate::engine::ram::{Mapping, Placed};
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::Arc;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Accessed and dirty, set beforehand so that the CPU does not write to the tables.
const USED: u64 = 3 << 5;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Software bit: the leaf stands for RAM, present or not.
const IS_RAM: u64 = 1 << 9;
const LARGE_PAGES: u64 = 512;

/// Hands out table pages of the pool, zero as the memory file is new; none are given back.
pub struct Pool {
    next: u64,
    end: u64,
}

impl Pool {
    /// A pool from [`layout::POOL`] to `end`, offsets in the memory file.
    pub fn new(end: u64) -> Self {
        Self { next: layout::POOL, end }
    }

    /// A zeroed page.
    pub fn page(&mut self) -> Result<u64> {
        if self.next >= self.end {
            return Err(EngineError::OutOfTables);
        }
        let page = self.next;
        self.next += 0x1000;
        Ok(page)
    }
}

/// One address space.
pub struct AddressSpace {
    memory: Arc<Mapping>,
    /// Address of the root table.
    pub root: u64,
}

fn leaf_bits(access: Access) -> u64 {
    let present = if access.read { PRESENT | USER | USED } else { 0 };
    let write = if access.write { WRITE } else { 0 };
    let execute = if access.execute { 0 } else { NO_EXECUTE };
    IS_RAM | present | write | execute
}

impl AddressSpace {
    /// A space without any RAM.
    pub fn new(memory: Arc<Mapping>, pool: &mut Pool) -> Result<Self> {
        Ok(Self { memory, root: pool.page()? })
    }

    /// Offset of the entry for `gfn` in the table at `table` of a level (0: 4 KiB leaves).
    fn slot(table: u64, gfn: u64, level: u32) -> u64 {
        table + (gfn >> (9 * level) & 0x1ff) * 8
    }

    fn entry(&self, at: u64) -> u64 {
        self.memory.u64(at).load(Relaxed)
    }

    fn set_entry(&self, at: u64, value: u64) {
        self.memory.u64(at).store(value, SeqCst);
    }

    /// Offset of the 2 MiB level entry for `gfn`, whose upper tables are made if missing.
    fn directory_slot(&self, pool: &mut Pool, gfn: u64) -> Result<u64> {
        let mut table = self.root;
        for level in [3, 2] {
            let at = Self::slot(table, gfn, level);
            if self.entry(at) == 0 {
                self.set_entry(at, pool.page()? | PRESENT | WRITE | USER | USED);
            }
            table = self.entry(at) & ADDRESS;
        }
        Ok(Self::slot(table, gfn, 1))
    }

    /// Offset of the 2 MiB level entry, without making anything.
    fn find_directory(&self, gfn: u64) -> Option<u64> {
        let mut table = self.root;
        if gfn >> 36 != 0 {
            return None;
        }
        for level in [3, 2] {
            let entry = self.entry(Self::slot(table, gfn, level));
            if entry == 0 {
                return None;
            }
            table = entry & ADDRESS;
        }
        Some(Self::slot(table, gfn, 1))
    }

    /// Offset of the 4 KiB leaf of `gfn`; a large page is split first.
    fn small_slot(&self, pool: &mut Pool, gfn: u64) -> Result<u64> {
        let directory = self.directory_slot(pool, gfn)?;
        let entry = self.entry(directory);
        if entry == 0 || entry & LARGE != 0 {
            let table = pool.page()?;
            if entry != 0 {
                let (address, bits) = (entry & ADDRESS, entry & !(ADDRESS | LARGE));
                for index in 0..LARGE_PAGES {
                    self.set_entry(table + index * 8, (address + index * 0x1000) | bits);
                }
            }
            self.set_entry(directory, table | PRESENT | WRITE | USER | USED);
            return Ok(Self::slot(table, gfn, 0));
        }
        Ok(Self::slot(entry & ADDRESS, gfn, 0))
    }

    /// Maps a slot of RAM.
    pub fn map_slot(&self, pool: &mut Pool, placed: &Placed, access: Access) -> Result<()> {
        let first = placed.slot.gpa >> 12;
        let frames = first..first + (placed.slot.size >> 12);
        let target = |gfn: u64| machine_address(placed.offset + ((gfn - first) << 12));
        self.map(pool, frames, target, leaf_bits(access))
    }

    /// Maps frames that are not RAM to themselves.
    pub fn map_devices(&self, pool: &mut Pool, frames: Range<u64>, access: Access) -> Result<()> {
        self.map(pool, frames, |gfn| gfn << 12, leaf_bits(access) & !IS_RAM)
    }

    fn map(&self, pool: &mut Pool, frames: Range<u64>, target: impl Fn(u64) -> u64, bits: u64) -> Result<()> {
        let Range { start: mut gfn, end } = frames;
        while gfn < end {
            let target = target(gfn);
            if gfn.is_multiple_of(LARGE_PAGES) && end - gfn >= LARGE_PAGES && target.is_multiple_of(LARGE_PAGES << 12) {
                let at = self.directory_slot(pool, gfn)?;
                self.set_entry(at, target | bits | LARGE);
                gfn += LARGE_PAGES;
            } else {
                let at = self.small_slot(pool, gfn)?;
                self.set_entry(at, target | bits);
                gfn += 1;
            }
        }
        Ok(())
    }

    /// The leaf entry of a page, `None` if the page is not RAM.
    fn leaf(&self, gfn: u64) -> Option<u64> {
        let entry = self.entry(self.find_directory(gfn)?);
        let leaf = match entry {
            0 => 0,
            large if large & LARGE != 0 => large,
            table => self.entry(Self::slot(table & ADDRESS, gfn, 0)),
        };
        Some(leaf).filter(|leaf| leaf & IS_RAM != 0)
    }

    /// Rights on a page, `None` if it is not RAM.
    pub fn access(&self, gfn: u64) -> Option<Access> {
        let leaf = self.leaf(gfn)?;
        let execute = leaf & NO_EXECUTE == 0;
        Some(Access { read: leaf & PRESENT != 0, write: leaf & WRITE != 0, execute, user_execute: execute })
    }

    /// Sets the rights of pages that are all known to be RAM.
    pub fn protect(&self, pool: &mut Pool, first: u64, count: u64, access: Access) -> Result<()> {
        let bits = leaf_bits(access);
        let end = first + count;
        let mut gfn = first;
        while gfn < end {
            let directory = self.directory_slot(pool, gfn)?;
            let entry = self.entry(directory);
            if entry & LARGE != 0 && gfn.is_multiple_of(LARGE_PAGES) && end - gfn >= LARGE_PAGES {
                self.set_entry(directory, entry & ADDRESS | bits | LARGE);
                gfn += LARGE_PAGES;
                continue;
            }
            // Same rights as the large page already has: no need to split it.
            let same = LARGE | IS_RAM | PRESENT | WRITE | NO_EXECUTE;
            if entry & same == (bits | LARGE) & same {
                gfn = (gfn | (LARGE_PAGES - 1)) + 1;
                continue;
            }
            let at = self.small_slot(pool, gfn)?;
            self.set_entry(at, self.entry(at) & ADDRESS | bits);
            gfn += 1;
        }
        Ok(())
    }
}
