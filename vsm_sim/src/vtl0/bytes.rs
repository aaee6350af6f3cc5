//! VTL0's own accesses to RAM, of any length.

use anyhow::{Result, anyhow};

use crate::hv::GuestMemory;

const PAGE: u64 = 4096;

/// Writes `bytes` at `gpa`, page by page.
pub fn write(memory: &dyn GuestMemory, gpa: u64, bytes: &[u8]) -> Result<()> {
    for_each_page(gpa, bytes.len(), |at, range| memory.write(at, &bytes[range]).is_ok())
}

/// Reads `into.len()` bytes at `gpa`, page by page.
pub fn read(memory: &dyn GuestMemory, gpa: u64, into: &mut [u8]) -> Result<()> {
    for_each_page(gpa, into.len(), |at, range| memory.read(at, &mut into[range]).is_ok())
}

/// Writes a little-endian 64-bit word.
pub fn write_u64(memory: &dyn GuestMemory, gpa: u64, value: u64) -> Result<()> {
    write(memory, gpa, &value.to_le_bytes())
}

/// Reads a little-endian 64-bit word.
pub fn read_u64(memory: &dyn GuestMemory, gpa: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    read(memory, gpa, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn for_each_page(gpa: u64, len: usize, mut access: impl FnMut(u64, std::ops::Range<usize>) -> bool) -> Result<()> {
    let mut done = 0;
    while done < len {
        let at = gpa + done as u64;
        let room = usize::try_from(PAGE - at % PAGE)?;
        let end = len.min(done + room);
        if !access(at, done..end) {
            return Err(anyhow!("{at:#x} is not RAM"));
        }
        done = end;
    }
    Ok(())
}
