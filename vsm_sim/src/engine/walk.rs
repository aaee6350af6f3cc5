//! A guest page walk in software, for long mode (4 or 5 levels) and for paging switched off. It sets no accessed or dirty bits and knows nothing of
//! nested rights. The tables are the guest's: every address in them is checked against RAM.

use super::ram::GuestRam;
use super::state::{PrivateState, efer};

/// Result of a walk: the address and the rights that all levels leave, before CR0.WP, SMEP and SMAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Guest-physical address.
    pub gpa: u64,
    /// Every level has R/W.
    pub writable: bool,
    /// No level has NX (always true without EFER.NXE).
    pub executable: bool,
    /// Every level has U/S.
    pub user: bool,
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;

/// Translates a linear address with a context's control registers.
pub fn translate(ram: &GuestRam, state: &PrivateState, gva: u64) -> Option<Translation> {
    if state.cr0 & CR0_PG == 0 {
        return Some(Translation { gpa: gva & 0xffff_ffff, writable: true, executable: true, user: true });
    }
    if state.efer & efer::LMA == 0 {
        return None;
    }
    let levels: u32 = if state.cr4 & CR4_LA57 == 0 { 4 } else { 5 };
    let unused = 64 - (12 + 9 * levels);
    if ((gva << unused).cast_signed() >> unused).cast_unsigned() != gva {
        return None;
    }
    let (mut writable, mut executable, mut user) = (true, true, true);
    let mut table = state.cr3 & ADDRESS;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = ram.read_u64(table + (gva >> shift & 0x1ff) * 8).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        writable &= entry & WRITE != 0;
        user &= entry & USER != 0;
        executable &= entry & NO_EXECUTE == 0 || state.efer & efer::NXE == 0;
        if level == 0 || (matches!(level, 1 | 2) && entry & LARGE != 0) {
            let offset = (1 << shift) - 1;
            return Some(Translation { gpa: entry & ADDRESS & !offset | gva & offset, writable, executable, user });
        }
        table = entry & ADDRESS;
    }
    None
}
