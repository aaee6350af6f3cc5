//! The log as a stream of records in memory that VTL1 writes and VTL0 only reads.
//!
//! There is no header and no write index: the records alone are enough for a reader, at any time and after any number
//! of wraps. The stream's byte number `p`, counted from the ring's start of life, lies at offset `p mod size`. A record
//! says at which `p` it starts, so that an old one, a torn one, or a piece of text cannot be taken for it:
//!
//! ```text
//! 0x1E  position  ' '  number  ' '  level  ' '  text  ' '  CRC  '\n'
//!       16 hex         8 hex        1 letter    0..   8 hex
//! ```
//!
//! Behind the newest record there is the end mark, 0x1D and the position again and `'\n'`; the next record replaces it.
//! Neither mark occurs anywhere else. The CRC is CRC-32/ISO-HDLC of everything between the mark and its own blank.
//!
//! What is trusted: nothing is ever read back from the ring, so that VTL1 depends on nothing in it.

use alloc::boxed::Box;
use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, Table};

use super::line::{Line, MAX_TEXT};

/// Bytes of the longest record.
pub const MAX_RECORD: usize = HEADER + MAX_TEXT + CRC_FIELD;
const _: () = assert!(MAX_RECORD == 512);
/// First byte of a record.
const RECORD_MARK: u8 = 0x1E;
/// First byte of what follows the newest record.
const END_MARK: u8 = 0x1D;
/// Mark, position, number, level, and the blanks between and behind them.
const HEADER: usize = 1 + POSITION + 1 + 8 + 1 + 1 + 1;
const POSITION: usize = 16;
/// Blank, CRC, newline.
const CRC_FIELD: usize = 1 + 8 + 1;
/// Mark, position, newline.
const END: usize = 1 + POSITION + 1;

static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

/// Memory that VTL1 has mapped for its ring. Dropping it removes the mapping.
///
/// Writes do not map, unmap or make a hypercall. They cannot fail: writes to memory that has gone are lost.
pub trait RingMemory: Send {
    /// Copies `bytes` to `offset` in the ring. The caller stays within the ring's size.
    fn write(&mut self, offset: usize, bytes: &[u8]);

    /// Stores one byte, which no reader sees before it sees everything written before.
    fn publish(&mut self, offset: usize, byte: u8);
}

/// The writer.
pub struct LogRing {
    memory: Box<dyn RingMemory>,
    size: usize,
    /// Where the next record starts.
    position: u64,
    /// Its number.
    number: u32,
}

impl LogRing {
    /// A ring over `size` bytes, at least a page. The memory is wiped: what was in it might look like a log.
    #[must_use]
    pub fn new(mut memory: Box<dyn RingMemory>, size: usize) -> Self {
        static ZEROS: [u8; 4096] = [0; 4096];
        let mut at = 0;
        while at < size {
            let part = ZEROS.len().min(size - at);
            memory.write(at, ZEROS.get(..part).unwrap_or_default());
            at += part;
        }
        let mut ring = Self { memory, size, position: 0, number: 0 };
        let end = end_mark(0);
        ring.put(1, end.get(1..).unwrap_or_default());
        ring.memory.publish(0, END_MARK);
        ring
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Records written so far (modulo 2^32).
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.number
    }

    /// Writes `line` behind the newest one, over the oldest.
    pub fn append(&mut self, line: &Line) {
        let (record, len) = encode(self.position, self.number, line);
        let record = record.get(..len).unwrap_or_default();
        // Lossless: a record is at most MAX_RECORD bytes.
        let next = self.position.saturating_add(len as u64);
        // The order is the format: as long as the old end mark stands, there is nothing new for a reader. The digits
        // that follow it are those of the new record as well.
        self.put(next, &end_mark(next));
        self.put(self.position.saturating_add(1), record.get(1..).unwrap_or_default());
        let at = self.offset(self.position);
        self.memory.publish(at, RECORD_MARK);
        self.position = next;
        self.number = self.number.wrapping_add(1);
    }

    fn offset(&self, position: u64) -> usize {
        // Lossless: less than the size, which is a usize.
        usize::try_from(position % self.size as u64).unwrap_or_default()
    }

    /// Writes bytes of the stream, around the ring's end if need be.
    fn put(&mut self, position: u64, bytes: &[u8]) {
        let at = self.offset(position);
        let (here, around) = bytes.split_at(bytes.len().min(self.size - at));
        self.memory.write(at, here);
        if !around.is_empty() {
            self.memory.write(0, around);
        }
    }
}

impl fmt::Debug for LogRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, position, number, .. } = self;
        write!(f, "LogRing {{ size: {size}, position: {position:#x}, number: {number} }}")
    }
}

/// A record's bytes and their number.
fn encode(position: u64, number: u32, line: &Line) -> ([u8; MAX_RECORD], usize) {
    let mut record = Buffer { bytes: [0; MAX_RECORD], len: 0 };
    record.push(&[RECORD_MARK]);
    record.push(&hex::<16>(position));
    record.push(b" ");
    record.push(&hex::<8>(u64::from(number)));
    record.push(&[b' ', line.level().letter(), b' ']);
    record.push(line.text());
    let crc = CRC.checksum(record.bytes.get(1..record.len).unwrap_or_default());
    record.push(b" ");
    record.push(&hex::<8>(u64::from(crc)));
    record.push(b"\n");
    (record.bytes, record.len)
}

fn end_mark(position: u64) -> [u8; END] {
    let mut mark = [END_MARK; END];
    if let Some((last, digits)) = mark.split_last_mut().and_then(|(last, rest)| Some((last, rest.get_mut(1..)?))) {
        digits.copy_from_slice(&hex::<POSITION>(position));
        *last = b'\n';
    }
    mark
}

/// The lowest `N` hexadecimal digits of `value`.
fn hex<const N: usize>(mut value: u64) -> [u8; N] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; N];
    for digit in digits.iter_mut().rev() {
        // In bounds, and lossless: less than 16.
        *digit = DIGITS[(value & 0xf) as usize];
        value >>= 4;
    }
    digits
}

struct Buffer {
    bytes: [u8; MAX_RECORD],
    len: usize,
}

impl Buffer {
    /// Appends; every record fits, because a line's text is at most [`MAX_TEXT`] long.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        }
    }
}
