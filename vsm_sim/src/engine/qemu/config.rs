//! What the engine is told: processors, memory, and how they run.

use std::time::Duration;

use crate::engine::ram::Slot;

/// Debian's name of the program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// What runs in context 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Code that the host puts there: no device belongs to anybody, every port, HLT and most MSRs stop.
    #[default]
    Script,
    /// A guest that has the machine's devices, interrupts and most MSRs (see [`super::devices`]), and RAM where the
    /// machine has it ([`super::devices::ram`]).
    Guest,
}

/// What machine to build.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of VPs, 1 to 16.
    pub vps: u32,
    /// What runs in context 0.
    pub mode: Mode,
    /// RAM: any number of slots that do not overlap. Memory costs host RAM only where it is touched.
    pub slots: Vec<Slot>,
    /// Count instructions. All VPs then share one host thread.
    pub count_instructions: bool,
    /// Let all VPs share one host thread. With several, QEMU 7.2 can go on with the old translation of code that another
    /// VP has changed, which Linux's text patching does not survive.
    pub one_thread: bool,
    /// Host time that one `run` may take before it fails with [`EngineError::Watchdog`](crate::engine::error::EngineError::Watchdog).
    pub watchdog: Duration,
    /// The emulator program.
    pub program: String,
}

impl Config {
    /// `vps` VPs, one slot of `ram` bytes at 0, no counting, a thread for each VP, 20 s.
    pub fn new(vps: u32, ram: u64) -> Self {
        let slots = vec![Slot { gpa: 0, size: ram }];
        Self {
            vps,
            mode: Mode::Script,
            slots,
            count_instructions: false,
            one_thread: false,
            watchdog: Duration::from_secs(20),
            program: PROGRAM.to_owned(),
        }
    }

    /// Whether one host thread runs all VPs.
    pub(super) fn shares_thread(&self) -> bool {
        self.vps == 1 || self.count_instructions || self.one_thread
    }
}
