//! Follows VTL1's log in the ring. VTL0 needs nothing but the memory it gave: no header, no index, no call.
//!
//! Written from the book's chapter on the log, not from VTL1's writer. The reader polls; it gets every line that was
//! still there when it looked, in order, knows how many it has missed, and takes nothing for a line that is none: a
//! record counts only at the place that its own position names, with the right check sum. What is trusted: VTL1, which
//! alone can write the ring.

use crc::{CRC_32_ISO_HDLC, Crc};

/// First byte of a record.
const RECORD_MARK: u8 = 0x1E;
/// First byte behind the newest record.
const END_MARK: u8 = 0x1D;
/// No record is longer, in bytes.
const MAX_RECORD: usize = 512;
/// Mark and position.
const MARKED_POSITION: usize = 17;
/// Bytes that are looked at together when the ring is searched.
const CHUNK: usize = 1 << 16;
/// How often a poll searches the ring before it leaves the rest to the next poll: a writer may be faster for a while.
const MAX_SEARCHES: u32 = 4;

/// A line of VTL1's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its number, counted from 0 at the first line of the ring (modulo 2^32).
    pub number: u32,
    /// The letter of its level: P, E, W, I, D or T.
    pub level: char,
    /// What it says.
    pub text: String,
}

impl LogLine {
    /// As VTL1's console shows it.
    #[must_use]
    pub fn on_console(&self) -> String {
        let level = match self.level {
            'P' => "panic: ",
            'E' => "error: ",
            'W' => "warning: ",
            'D' => "debug: ",
            'T' => "trace: ",
            _ => "",
        };
        format!("vtl1: {level}{}", self.text)
    }
}

/// What a poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// How many lines were overwritten before they were read; they lie before, or between, the lines found.
    pub lost: u32,
    /// The lines, in order.
    pub lines: Vec<LogLine>,
}

/// The reader's place in the log.
#[derive(Clone, Debug)]
pub struct LogReader {
    size: usize,
    /// Where the next record starts, in bytes from the start of the log.
    position: u64,
    /// Its number.
    number: u32,
}

/// A record found at its place.
struct Found {
    len: usize,
    line: LogLine,
}

impl LogReader {
    /// A reader of a ring of `size` bytes that has read nothing yet.
    #[must_use]
    pub const fn new(size: usize) -> Self {
        Self { size, position: 0, number: 0 }
    }

    /// Reads what is new. `read` copies bytes out of the ring, from an offset; the reader stays within the size.
    pub fn poll(&mut self, read: &mut dyn FnMut(usize, &mut [u8])) -> Poll {
        let mut poll = Poll::default();
        let mut searches = 0;
        loop {
            let mut bytes = [0; MAX_RECORD];
            self.copy(self.position, &mut bytes, read);
            // An older copy of the end of a record beside a newer one of its start is no record; another look has both.
            let found = parse(&bytes, self.position).or_else(|| {
                self.copy(self.position, &mut bytes, read);
                parse(&bytes, self.position)
            });
            if let Some(Found { len, line }) = found {
                poll.lost = poll.lost.wrapping_add(line.number.wrapping_sub(self.number));
                self.number = line.number.wrapping_add(1);
                self.position += len as u64;
                poll.lines.push(line);
                continue;
            }
            if bytes[0] == END_MARK && position_of(&bytes) == Some(self.position) {
                return poll;
            }
            // The writer has come round, or has not started: what is the oldest that is left?
            searches += 1;
            match self.search(read) {
                Some(position) if searches <= MAX_SEARCHES => self.position = position,
                _ => return poll,
            }
        }
    }

    fn copy(&self, position: u64, into: &mut [u8], read: &mut dyn FnMut(usize, &mut [u8])) {
        let at = self.offset(position);
        let here = into.len().min(self.size - at);
        let (first, rest) = into.split_at_mut(here);
        read(at, first);
        if !rest.is_empty() {
            read(0, rest);
        }
    }

    fn offset(&self, position: u64) -> usize {
        usize::try_from(position % self.size as u64).unwrap_or_default()
    }

    /// Position of the oldest record in the ring that has not been read.
    fn search(&self, read: &mut dyn FnMut(usize, &mut [u8])) -> Option<u64> {
        let mut oldest: Option<u64> = None;
        for start in (0..self.size).step_by(CHUNK) {
            // A record that starts in the chunk may end behind it, or around the end of the ring.
            let mut chunk = vec![0; CHUNK.min(self.size - start) + MAX_RECORD];
            self.copy(start as u64, &mut chunk, read);
            for at in 0..chunk.len() - MAX_RECORD {
                let bytes = &chunk[at..at + MAX_RECORD];
                if bytes[0] != RECORD_MARK {
                    continue;
                }
                let Some(position) = position_of(bytes) else { continue };
                let is_new = position >= self.position && oldest.is_none_or(|oldest| position < oldest);
                if is_new && self.offset(position) == start + at && parse(bytes, position).is_some() {
                    oldest = Some(position);
                }
            }
        }
        oldest
    }
}

/// The position that stands behind a mark.
fn position_of(bytes: &[u8]) -> Option<u64> {
    hex(bytes.get(1..MARKED_POSITION)?)
}

/// The record at `position`, if that is what the bytes start with.
fn parse(bytes: &[u8], position: u64) -> Option<Found> {
    if *bytes.first()? != RECORD_MARK || position_of(bytes)? != position {
        return None;
    }
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (body, sum) = bytes.get(1..end)?.split_at_checked(end.checked_sub(1 + 9)?)?;
    let sum = u64::from(u32::try_from(hex(sum.strip_prefix(b" ")?)?).ok()?);
    if u64::from(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(body)) != sum {
        return None;
    }
    let number = u32::try_from(hex(body.get(17..25)?)?).ok()?;
    let level = char::from(*body.get(26)?);
    let text = String::from_utf8(body.get(28..)?.to_vec()).ok()?;
    Some(Found { len: end + 1, line: LogLine { number, level, text } })
}

/// A number in lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}
