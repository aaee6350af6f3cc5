//! What came of a run, step by step.

use std::fmt;
use std::sync::Arc;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::MapFlags;

use crate::machine::Machine;

/// One step: what VTL0 did, what must come of it, what did.
#[derive(Clone, Debug)]
pub struct Step {
    /// The processor.
    pub vp: u32,
    /// What VTL0 did.
    pub what: String,
    /// Its parameters.
    pub parameters: String,
    /// What must come of it.
    pub expected: String,
    /// What did.
    pub result: String,
    /// Instructions VTL1 executed.
    pub instructions: u64,
    /// Hypercalls VTL1 made.
    pub hypercalls: u64,
}

impl Step {
    /// Whether the step came out as it must.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.expected == self.result
    }
}

/// How things stood after a step.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Lines that VTL1 had printed.
    pub lines: usize,
    /// VTL0's rights to all of RAM, where they had changed: first frame, first frame after, rights.
    pub rights: Option<Vec<(u64, u64, MapFlags)>>,
}

/// All steps of a run.
pub struct Report {
    machine: Arc<Machine>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// One for each step, if they are kept ([`super::Options::moments`]).
    pub moments: Vec<Moment>,
}

impl Report {
    /// An empty report on a run of `machine`.
    #[must_use]
    pub fn new(machine: Arc<Machine>) -> Self {
        Self { machine, steps: Vec::new(), moments: Vec::new() }
    }

    /// Keeps how things stand.
    pub(super) fn keep_moment(&mut self) {
        let rights = self.machine.partition().effective_protections();
        let before = self.moments.iter().rev().find_map(|moment| moment.rights.as_ref());
        let rights = (before != Some(&rights)).then_some(rights);
        self.moments.push(Moment { lines: self.machine.console_lines().len(), rights });
    }

    /// Every reason why the run is not as it must be; empty for a good one.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let wrong = self
            .steps
            .iter()
            .filter(|step| !step.is_right())
            .map(|step| format!("VP {}: {}: expected {}, got {}", step.vp, step.what, step.expected, step.result));
        let reports = self.machine.partition().reports();
        let undefined = reports.iter().map(|report| {
            format!("VP {} {} did what the TLFS does not define: {}", report.vp, report.vtl, report.what)
        });
        wrong.chain(undefined).collect()
    }

    /// What VTL1 has printed.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        self.machine.console_lines()
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// A result as it is shown: a number, or an errno's name.
#[must_use]
pub fn show_result(value: i64) -> String {
    Errno::from_result(value).map_or_else(|| value.to_string(), |errno| format!("-{}", errno.name()))
}
