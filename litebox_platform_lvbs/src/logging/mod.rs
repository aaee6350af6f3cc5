//! VTL1's log: its lines, the ring that VTL0 reads them from, and how much of it VTL0 can provoke.
//!
//! Pure data structures: where a line goes (COM2, the ring) is for `arch` or the simulator to carry out. The ring's
//! format is written down in the book's chapter on the log.
//!
//! | module | purpose |
//! |---|---|
//! | [`line`] | one line: level and text, bounded and printable |
//! | [`ring`] | the record stream in memory that VTL0 reads |
//! | [`limit`] | bounding the lines that VTL0 can cause |

pub mod limit;
pub mod line;
pub mod ring;
#[cfg(test)]
mod tests;

pub use limit::{LogKind, LogLimits, Logged};
pub use line::{Level, Line, MAX_TEXT};
pub use ring::{LogRing, MAX_RECORD, RingMemory};
