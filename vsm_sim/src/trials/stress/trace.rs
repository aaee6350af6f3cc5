//! What happened last: a ring for each processor, and one sum over everything for a run that is repeated.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use litebox_platform_lvbs::vsm::VsmFunction;

use super::cpu::Outcome;
use crate::trials::run::report::show_result;

/// Records kept for each processor.
const KEPT: usize = 48;

/// What came of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is under way.
    Pending,
    /// A call returned this.
    Value(i64),
    /// An instruction did this.
    Outcome(Outcome),
    /// It went as it always does.
    Done,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("(under way)"),
            Self::Value(value) => f.write_str(&show_result(*value)),
            Self::Outcome(outcome) => write!(f, "{outcome}"),
            Self::Done => f.write_str("done"),
        }
    }
}

/// Something that VTL0 did.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The step it belongs to.
    pub step: u64,
    /// The processor.
    pub vp: u32,
    /// What it was.
    pub what: &'static str,
    /// The registers that say it more exactly.
    pub words: [u64; 4],
    /// What came of it.
    pub answer: Answer,
    /// Counts records in the order in which they began.
    order: u64,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, vp, what, words: [id, a1, a2, a3], answer, .. } = self;
        write!(f, "step {step:>6}  VP {vp}  {what:<28} {id:#x} ({a1:#x}, {a2:#x}, {a3:#x})  {answer}")
    }
}

/// The records of a life.
#[derive(Debug, Default)]
pub struct Trace {
    rings: Vec<Mutex<VecDeque<Record>>>,
    order: AtomicU64,
    sum: AtomicU64,
}

impl Trace {
    /// Of `vps` processors.
    #[must_use]
    pub fn new(vps: u32) -> Self {
        Self {
            rings: (0..vps).map(|_| Mutex::default()).collect(),
            sum: 0xcbf2_9ce4_8422_2325.into(),
            ..Self::default()
        }
    }

    fn with_ring<R>(&self, vp: u32, work: impl FnOnce(&mut VecDeque<Record>) -> R) -> Option<R> {
        let ring = usize::try_from(vp).ok().and_then(|vp| self.rings.get(vp))?;
        Some(work(&mut ring.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Something begins.
    pub fn begin(&self, step: u64, vp: u32, what: &'static str, words: [u64; 4]) {
        let order = self.order.fetch_add(1, Ordering::Relaxed);
        self.with_ring(vp, |ring| {
            if ring.len() == KEPT {
                ring.pop_front();
            }
            ring.push_back(Record { step, vp, what, words, answer: Answer::Pending, order });
        });
    }

    /// What began last on `vp` has come to this.
    pub fn end(&self, vp: u32, answer: Answer) {
        let record = self.with_ring(vp, |ring| {
            let last = ring.back_mut()?;
            last.answer = answer;
            Some(*last)
        });
        if let Some(record) = record.flatten() {
            self.add(&record);
        }
    }

    /// FNV-1a over what a record says.
    fn add(&self, record: &Record) {
        let answer = match record.answer {
            Answer::Pending => 0,
            Answer::Value(value) => value.cast_unsigned(),
            Answer::Outcome(Outcome::Done) => 1 << 32,
            Answer::Outcome(Outcome::Fault) => 2 << 32,
            Answer::Done => 3 << 32,
        };
        let words = [record.step, record.vp.into(), answer].into_iter().chain(record.words);
        let bytes = record.what.bytes().chain(words.flat_map(u64::to_le_bytes));
        let sum = bytes
            .fold(self.sum.load(Ordering::Relaxed), |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.sum.store(sum, Ordering::Relaxed);
    }

    /// A sum over all records so far: the same in two runs that did the same one after the other. Where several threads
    /// record at once it means nothing.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// The newest records of all processors, in the order in which they began.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        for vp in 0..u32::try_from(self.rings.len()).unwrap_or_default() {
            self.with_ring(vp, |ring| all.extend(ring.iter()));
        }
        all.sort_by_key(|record| record.order);
        all.split_off(all.len().saturating_sub(count))
    }
}

/// A call's name.
#[must_use]
pub fn name_of(id: u64) -> &'static str {
    VsmFunction::from_id(id).map_or("unknown id", VsmFunction::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_all_processors_come_in_their_order() {
        let trace = Trace::new(2);
        for step in 0..100 {
            trace.begin(step, u32::from(step % 3 == 0), "it", [step; 4]);
            if step != 99 {
                trace.end(u32::from(step % 3 == 0), Answer::Value(0));
            }
        }
        let last = trace.last(5);
        assert_eq!(last.iter().map(|record| record.step).collect::<Vec<_>>(), [95, 96, 97, 98, 99]);
        assert_eq!(last[4].answer, Answer::Pending);
    }

    #[test]
    fn the_sum_tells_any_two_histories_apart() {
        let history = |step, what, word, answer| {
            let trace = Trace::new(1);
            trace.begin(step, 0, what, [word; 4]);
            trace.end(0, answer);
            trace.sum()
        };
        let first = history(1, "it", 1, Answer::Value(0));
        assert_eq!(first, history(1, "it", 1, Answer::Value(0)));
        assert_ne!(first, history(2, "it", 1, Answer::Value(0)));
        assert_ne!(first, history(1, "other", 1, Answer::Value(0)));
        assert_ne!(first, history(1, "it", 2, Answer::Value(0)));
        assert_ne!(first, history(1, "it", 1, Answer::Value(-1)));
        assert_ne!(first, history(1, "it", 1, Answer::Outcome(Outcome::Fault)));
    }
}
