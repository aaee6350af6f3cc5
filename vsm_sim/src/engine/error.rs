//! What can go wrong in an engine. An error here is a failure of the simulator or of its user, never something the guest did: that is an exit.

use core::fmt;

/// Why an engine call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// The emulator program is not installed or could not be started.
    CannotStart {
        /// Program that was tried.
        program: String,
        /// What the operating system said.
        reason: String,
    },
    /// The emulator ended; what it wrote to its standard error.
    Died {
        /// The emulator's last words.
        stderr: String,
    },
    /// A host system call failed.
    System {
        /// The call and what it was for.
        call: &'static str,
        /// What the operating system said.
        reason: String,
    },
    /// A configuration that the engine cannot build.
    Config(String),
    /// An access to guest-physical memory that is not RAM, or that leaves its slot.
    NotRam {
        /// First guest-physical address of the access.
        gpa: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The pool of nested page table pages is used up.
    OutOfTables,
    /// There is no such VP, or it is already being driven.
    BadVp {
        /// VP index.
        vp: u32,
        /// Which of the two.
        reason: &'static str,
    },
    /// There is no such context or address space (0 and 1 exist).
    BadContext(usize),
    /// The guest ran for longer than the watchdog allows.
    Watchdog {
        /// VP index.
        vp: u32,
        /// Where it was when it was stopped.
        rip: u64,
        /// The limit in milliseconds of host time.
        millis: u64,
    },
    /// The emulated CPU does not answer any more.
    Stuck {
        /// VP index.
        vp: u32,
        /// What was asked of it.
        what: &'static str,
    },
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotStart { program, reason } => {
                write!(
                    f,
                    "cannot start {program}: {reason}; it is in the Debian package qemu-system-x86: apt-get install --no-install-recommends qemu-system-x86"
                )
            }
            Self::Died { stderr } => write!(
                f,
                "the emulator ended; its standard error: {}",
                if stderr.is_empty() { "(empty)" } else { stderr }
            ),
            Self::System { call, reason } => write!(f, "{call}: {reason}"),
            Self::Config(text) => write!(f, "engine configuration: {text}"),
            Self::NotRam { gpa, len } => write!(f, "guest-physical access to {gpa:#x}, {len:#x} bytes: not (only) RAM"),
            Self::OutOfTables => write!(f, "no nested page table page left"),
            Self::BadVp { vp, reason } => write!(f, "VP {vp}: {reason}"),
            Self::BadContext(context) => write!(f, "context {context}: only 0 and 1 exist"),
            Self::Watchdog { vp, rip, millis } => {
                write!(f, "VP {vp} ran for more than {millis} ms without an exit; stopped at RIP {rip:#x}")
            }
            Self::Stuck { vp, what } => write!(f, "the emulated CPU of VP {vp} did not answer: {what}"),
        }
    }
}

impl std::error::Error for EngineError {}

impl EngineError {
    /// The error of the host system call that just failed.
    pub(crate) fn system(call: &'static str) -> Self {
        Self::System { call, reason: std::io::Error::last_os_error().to_string() }
    }
}

/// Result of engine calls.
pub type Result<T, E = EngineError> = core::result::Result<T, E>;
