//! How often what was done, what came of it, and how long it took.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cpu::Outcome;
use super::trace::Answer;
use crate::trials::run::report::show_result;

/// One kind of thing that VTL0 did.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// How often.
    pub count: u64,
    /// How long all of them took together.
    pub time: Duration,
    /// The longest of them.
    pub longest: Duration,
    /// What came of them, and how often. Tokens are one answer.
    pub answers: BTreeMap<String, u64>,
}

/// All kinds.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// VSM calls, by name.
    pub calls: BTreeMap<&'static str, Row>,
    /// Instructions that VTL1 may have to answer for, by kind.
    pub attempts: BTreeMap<&'static str, Row>,
    /// Kexec images that VTL1 accepted.
    pub images: u64,
    /// Steps.
    pub steps: u64,
    /// Machines that were booted.
    pub lives: u64,
    /// Boots that came to their end.
    pub ended_boots: u64,
    /// Wall-clock time.
    pub time: Duration,
}

impl Figures {
    /// Counts something that took `time`.
    pub fn count(&mut self, what: &'static str, answer: Answer, time: Duration) {
        let (rows, answer) = match answer {
            Answer::Value(value) => {
                (&mut self.calls, if value > 0 { "a token".to_owned() } else { show_result(value) })
            }
            Answer::Outcome(Outcome::Done) => (&mut self.attempts, "allowed".to_owned()),
            Answer::Outcome(Outcome::Fault) => (&mut self.attempts, "#GP".to_owned()),
            Answer::Pending | Answer::Done => return,
        };
        let row = rows.entry(what).or_default();
        row.count += 1;
        row.time += time;
        row.longest = row.longest.max(time);
        *row.answers.entry(answer).or_default() += 1;
    }

    /// Adds `others`; the wall-clock time stays.
    pub fn add(&mut self, others: &Self) {
        for (mine, theirs) in [(&mut self.calls, &others.calls), (&mut self.attempts, &others.attempts)] {
            for (what, row) in theirs {
                let mine = mine.entry(what).or_default();
                mine.count += row.count;
                mine.time += row.time;
                mine.longest = mine.longest.max(row.longest);
                for (answer, count) in &row.answers {
                    *mine.answers.entry(answer.clone()).or_default() += count;
                }
            }
        }
        self.images += others.images;
        self.steps += others.steps;
        self.lives += others.lives;
        self.ended_boots += others.ended_boots;
    }

    /// How many calls.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.calls.values().map(|row| row.count).sum()
    }

    /// How many of them succeeded.
    #[must_use]
    pub fn success_count(&self) -> u64 {
        let success =
            |row: &Row| row.answers.iter().filter(|(answer, _)| !answer.starts_with('-')).map(|(_, n)| n).sum::<u64>();
        self.calls.values().map(success).sum()
    }

    /// How many instructions.
    #[must_use]
    pub fn attempt_count(&self) -> u64 {
        self.attempts.values().map(|row| row.count).sum()
    }

    /// What all calls together came to, and how often; the most frequent first.
    #[must_use]
    pub fn answers(&self) -> Vec<(String, u64)> {
        let mut all: BTreeMap<&String, u64> = BTreeMap::new();
        for (answer, count) in self.calls.values().flat_map(|row| &row.answers) {
            *all.entry(answer).or_default() += count;
        }
        let mut all: Vec<_> = all.into_iter().map(|(answer, count)| (answer.clone(), count)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }
}
