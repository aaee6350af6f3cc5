//! What machine to build, and with which emulator.

use crate::engine::ram::Slot;
use std::time::Duration;

/// Debian's name of the program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A machine to build.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of VPs, 1 to 16.
    pub vps: u32,
    /// RAM: any number of slots that do not overlap. Memory costs host RAM only where it is touched.
    pub slots: Vec<Slot>,
    /// Count instructions. All VPs then share one host thread.
    pub count_instructions: bool,
    /// Let all VPs share one host thread. With several, QEMU 7.2 can go on with the old translation of code that another
    /// VP has changed, which Linux's text patching does not survive.
    pub one_thread: bool,
    /// Host time that one `run` may take before it fails with [`EngineError::Watchdog`](crate::engine::EngineError::Watchdog).
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
