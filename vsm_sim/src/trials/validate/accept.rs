//! Explains every module of a set, in the order in which they were loaded.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vsm_integrity::module::{Export, Habits, Kind, ModuleError, Plan, Statistics};

use super::captured::Captured;
use super::set::{Exports, SealedTexts, Set};

/// Counts heap, where the allocator can.
pub trait Meter {
    /// Starts to look for a new peak.
    fn reset(&self);
    /// The most bytes in use since then, beyond what was in use at that time.
    fn peak(&self) -> Option<usize>;
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn reset(&self) {}

    fn peak(&self) -> Option<usize> {
        None
    }
}

/// What came of a module.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Bytes of the signed file.
    pub file: usize,
    /// What explained its memory, or why it was refused.
    pub result: Result<Statistics, String>,
    /// How long the explanation took.
    pub time: Duration,
    /// The most heap that was in use for it, in bytes.
    pub peak: Option<usize>,
}

/// A set that is gone through, module by module.
pub struct Acceptance<'s> {
    set: &'s Set,
    exports: Exports,
    texts: SealedTexts,
    habits: Habits,
    next: usize,
}

impl<'s> Acceptance<'s> {
    /// Before the first module.
    ///
    /// # Errors
    /// When the set is not what it should be.
    pub fn new(set: &'s Set) -> Result<Self> {
        Ok(Self { set, exports: set.kernel_exports()?, texts: set.kernel_text()?, habits: Habits::default(), next: 0 })
    }

    /// The next module and what came of it; `None` after the last one. What it exports serves those after it.
    ///
    /// # Errors
    /// When the set is not what it should be, or the capture contradicts itself.
    pub fn step(&mut self, meter: &impl Meter) -> Result<Option<(Captured, Outcome)>> {
        if self.next >= self.set.len() {
            return Ok(None);
        }
        let captured = self.set.module(self.next)?;
        self.next += 1;
        let outcome = self.accept(&captured, meter)?;
        Ok(Some((captured, outcome)))
    }

    fn accept(&mut self, captured: &Captured, meter: &impl Meter) -> Result<Outcome> {
        let kernel = self.set.kernel(&self.exports, &self.texts)?;
        let mut outcome = Outcome {
            name: captured.name.clone(),
            file: captured.file.len(),
            result: Err(String::new()),
            time: Duration::ZERO,
            peak: None,
        };
        meter.reset();
        let start = Instant::now();
        let explained = captured.memory().and_then(|memory| {
            let plan = Plan::new(&captured.file, &memory, kernel, &self.exports)?;
            let explained = plan.explain(&memory, &self.habits)?;
            Ok((plan, explained))
        });
        outcome.time = start.elapsed();
        outcome.peak = meter.peak();
        let (plan, explained) = match explained {
            Ok(done) => done,
            Err(error) => {
                outcome.result = Err(error.to_string());
                return Ok(outcome);
            }
        };
        let per_cpu = explained.per_cpu.map(|(base, _)| base).or_else(|| captured.per_cpu());
        outcome.result = captured
            .compare(&plan, per_cpu)
            .and_then(|()| captured.compare_thunk_pages(&plan, &explained.thunk_pages, self.set.files()))
            .map(|()| explained.statistics)
            .map_err(|error| format!("{error:#}"));
        plan.exports(per_cpu, |export| {
            let (value, gpl, namespace) = (export.value, export.gpl, export.namespace);
            self.exports.add(export.name, &Export { value, gpl, namespace });
            Ok::<_, ModuleError>(())
        })
        .with_context(|| captured.name.clone())?;
        self.habits = explained.habits;
        for range in captured.ranges.iter().filter(|range| range.kind == Kind::Text) {
            self.texts.add(range.va, range.bytes.clone());
        }
        Ok(outcome)
    }

    /// The habits so far.
    pub fn habits(&self) -> &Habits {
        &self.habits
    }

    /// The sealed text so far.
    pub fn texts(&self) -> &SealedTexts {
        &self.texts
    }

    /// The exports so far.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }
}
