//! A Linux as VTL0: boots a bzImage as a guest with the machine's devices, beside VTL1, and tells what happens.
//!
//! Nothing here knows a driver: which kernel boots, how it comes to enable VTL1 and what it calls is its own affair, and
//! where VTL1's memory lies is not known before it says so. The kernel and all it does are not trusted; a guest that
//! hangs is stopped from outside.
//!
//! | module | purpose |
//! |---|---|
//! | [`bzimage`] | puts kernel, initial RAM disk and boot parameters into memory |
//! | [`processors`] | a thread for each processor: start, stop, end |
//! | [`calls`] | VSM calls, intercepts and exits, for the observer and the figures |
//! | [`serial`] | COM1 |

pub mod bzimage;
pub mod calls;
pub mod processors;
pub mod serial;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::engine::qemu::Mode;
use crate::machine::{Machine, MachineConfig};
use crate::vtl0::memory_map::MemoryMap;
pub use serial::Input;
use serial::Serial;

/// What to boot, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel, a bzImage.
    pub kernel: Vec<u8>,
    /// The initial RAM disk; may be empty.
    pub initrd: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
    /// Processors, 1 to 16.
    pub vps: u32,
    /// Bytes of memory; some of it is the firmware's and the engine's.
    pub memory: u64,
    /// Count instructions exactly; all processors share one host thread then.
    pub count: bool,
    /// One host thread for all processors: needed where one runs text that another patches
    /// ([`crate::engine::qemu::Config::one_thread`]).
    pub one_thread: bool,
    /// Tell the observer every step of the hypervisor.
    pub trace: bool,
    /// A guest without a line and without an exit for so long is stopped.
    pub watchdog: Duration,
    /// The whole run may take so long.
    pub limit: Duration,
}

impl Options {
    /// One processor, 1 GiB, not counting; stopped after a minute of silence or ten minutes.
    #[must_use]
    pub fn new(kernel: Vec<u8>, initrd: Vec<u8>, command_line: impl Into<String>) -> Self {
        Self {
            kernel,
            initrd,
            command_line: command_line.into(),
            vps: 1,
            memory: 1 << 30,
            count: false,
            one_thread: false,
            trace: false,
            watchdog: Duration::from_secs(60),
            limit: Duration::from_secs(600),
        }
    }
}

/// Something that happens in a run.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Bytes on COM1, as they come.
    Vtl0Bytes(&'a [u8]),
    /// A whole line on COM1, without its end.
    Vtl0Line(&'a str),
    /// A line of VTL1, on COM2.
    Vtl1Line(&'a str),
    /// A VTL call of VTL0 has returned.
    Call {
        /// The processor.
        vp: u32,
        /// RDI: the VSM call's id; 0 for a processor's first entry.
        id: u64,
        /// RSI, RDX, R8.
        arguments: [u64; 3],
        /// R8 at the return.
        answer: i64,
        /// From the call to the return, time of the host.
        nanoseconds: u64,
        /// What VTL1 has carried out; 0 without counting.
        instructions: u64,
        /// Hypercalls that VTL1 made for it.
        hypercalls: u32,
    },
    /// VTL0 was stopped at something, and VTL1 has decided.
    Intercept {
        /// The processor.
        vp: u32,
        /// What VTL0 was stopped at, and what VTL1 did.
        what: &'a str,
    },
    /// A processor was started, or has gone to rest with interrupts off.
    Processor {
        /// The processor.
        vp: u32,
        /// Which of the two.
        started: bool,
    },
    /// The guest did what the TLFS does not define.
    Report(&'a str),
    /// A step of the hypervisor, with [`Options::trace`].
    Trace(&'a str),
}

/// Who is told of events, in order, with the time since VTL0 was entered. Called by several threads.
pub type Observer = Arc<dyn Fn(Duration, Event<'_>) + Send + Sync>;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// VTL0 has switched the machine off.
    PowerOff,
    /// VTL0 has reset the machine.
    Reboot,
    /// All processors have halted with interrupts off.
    Halted,
    /// Neither a line nor an exit for [`Options::watchdog`].
    Watchdog,
    /// [`Options::limit`] has passed.
    Limit,
    /// VTL1 has halted or ended in a triple fault.
    Vtl1Failed {
        /// The processor.
        vp: u32,
    },
    /// A triple fault of VTL0, by which Linux resets too (`reboot=t`).
    TripleFault {
        /// The processor.
        vp: u32,
    },
    /// The simulator failed, or the guest did what it does not model.
    Error(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "VTL0 has switched the machine off"),
            Self::Reboot => write!(f, "VTL0 has reset the machine"),
            Self::Halted => write!(f, "all processors have halted"),
            Self::Watchdog => write!(f, "stopped: no line and no exit for too long"),
            Self::Limit => write!(f, "stopped: the run took too long"),
            Self::Vtl1Failed { vp } => write!(f, "VTL1 has failed on VP {vp}"),
            Self::TripleFault { vp } => write!(f, "a triple fault of VTL0 on VP {vp}"),
            Self::Error(text) => write!(f, "{text}"),
        }
    }
}

/// What a run was.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// From the entry to the end.
    pub seconds: f64,
    /// Processor time of the emulator and of this process meanwhile.
    pub processor_seconds: f64,
    /// How often the processors stopped, by VTL and cause.
    pub exits: BTreeMap<String, u64>,
    /// VTL calls.
    pub calls: u64,
    /// Entries into guests, waits of halted processors, and changes between the tables of kernel and user code, that the
    /// emulator's side saw to by itself among them.
    pub turns: [u64; 3],
    /// Instructions of VTL0 and VTL1; 0 without counting.
    pub instructions: [u64; 2],
    /// What the guest did beyond the TLFS.
    pub reports: Vec<String>,
}

/// A machine with a kernel in memory that has not run yet.
pub struct Linux {
    machine: Arc<Machine>,
    options: Options,
    entry: bzimage::Entry,
    serial: Serial,
}

impl Linux {
    /// Starts the engine and loads the kernel.
    pub fn new(options: Options) -> Result<Self> {
        ensure!(options.vps > 0, "a machine has at least one processor");
        let machine = Machine::new(MachineConfig {
            mode: Mode::Guest,
            count_instructions: options.count,
            one_thread: options.one_thread,
            // An idle guest does not stop for long: who runs it watches it.
            watchdog: options.limit.saturating_mul(2),
            ..MachineConfig::new(MemoryMap::without_region(options.memory), options.vps)
        })?;
        let entry = bzimage::load(machine.ram(), &options).context("the kernel cannot be loaded")?;
        let serial = Serial::new(machine.engine().take_console().context("the machine has no COM1")?)?;
        Ok(Self { machine, options, entry, serial })
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// What is written here arrives at COM1.
    pub fn input(&self) -> Result<Input> {
        self.serial.input()
    }

    /// Runs to the end.
    pub fn run(self, observer: Observer) -> Result<Outcome> {
        let used = processor_time(&self.machine);
        let began = Instant::now();
        let run = processors::Run::new(Arc::clone(&self.machine), began, observer, self.options.trace);
        let reading = self.serial.read(Arc::clone(&run))?;
        let driven = processors::drive(&run, &self.entry, &self.options);
        let seconds = began.elapsed().as_secs_f64();
        reading.finish();
        let (end, figures) = driven?;
        let vps = self.options.vps;
        let turns = (0..vps).map(|vp| self.machine.engine().turns(vp));
        let turns = turns.fold([0; 3], |sum: [u64; 3], one| core::array::from_fn(|index| sum[index] + one[index]));
        let reports = self.machine.partition().reports();
        Ok(Outcome {
            end,
            seconds,
            processor_seconds: (processor_time(&self.machine) - used).max(0.0),
            exits: figures.exits,
            calls: figures.calls,
            turns,
            instructions: figures.instructions,
            reports: reports
                .into_iter()
                .map(|report| format!("VP {} {}: {}", report.vp, report.vtl, report.what))
                .collect(),
        })
    }
}

/// Boots what `options` say, to the end.
pub fn boot(options: Options, observer: Observer) -> Result<Outcome> {
    Linux::new(options)?.run(observer)
}

/// Processor time of the emulator and of this process so far, in seconds.
fn processor_time(machine: &Machine) -> f64 {
    /// The unit of the times in `/proc`: USER_HZ is 100 on every x86 Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let of = |process: String| {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th word behind it.
        let words = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>()
    };
    let emulator = of(machine.engine().process_id().to_string());
    (of("self".into()) + emulator) / TICKS_PER_SECOND
}
