//! What a run is told.

use std::fmt;
use std::time::Duration;

/// Where VTL1 runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// As host code, over the hypervisor model.
    Hosted,
    /// As the image, on a software CPU.
    Machine,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hosted => "hosted",
            Self::Machine => "machine",
        })
    }
}

/// Something that breaks a rule on purpose, from outside of VTL1, so that it can be seen that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A frame of VTL1's is opened to VTL0.
    Permission,
    /// A pinned register of VTL0's is changed.
    Register,
    /// A processor does not come back.
    Hang,
}

/// A damage, and the step from which on it is done as soon as it makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sabotage {
    /// What.
    pub damage: Damage,
    /// When.
    pub step: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where VTL1 runs.
    pub layer: Layer,
    /// Processors of VTL0, 1 to 16.
    pub vps: u32,
    /// How long; the life that is under way is then cut short.
    pub time: Duration,
    /// How many steps at most, of all lives together.
    pub steps: Option<u64>,
    /// What everything is drawn from.
    pub seed: u64,
    /// One thread plays all processors: the run can then be repeated exactly. One processor is always played so.
    pub lockstep: bool,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// How long a step may take before it counts as hanging.
    pub patience: Duration,
    /// The heap of this process in use, where it is counted: for the hosted layer's check that nothing is lost.
    pub heap: Option<fn() -> usize>,
}

impl Options {
    /// Two processors for ten seconds.
    #[must_use]
    pub fn new(layer: Layer) -> Self {
        Self {
            layer,
            vps: 2,
            time: Duration::from_secs(10),
            steps: None,
            seed: 1,
            lockstep: false,
            sabotage: None,
            patience: Duration::from_secs(90),
            heap: None,
        }
    }

    /// Whether one thread plays all processors.
    #[must_use]
    pub fn is_lockstep(&self) -> bool {
        self.lockstep || self.vps == 1
    }
}
