//! The machine: hypervisor model and engine together. It boots the unmodified image.
//!
//! The engine carries out instructions and stops where only a hypervisor has the answer; the model has the answer; this
//! module carries the one to the other. It decides nothing about VSM itself.
//!
//! | module | purpose |
//! |---|---|
//! | [`processor`] | one VP: runs it, switches VTLs, until VTL0's script has something to say |
//! | [`exits`] | what each stop of the engine means |
//! | [`msrs`] | architectural MSRs |
//! | [`registers`] | the model's register files and the engine's registers |
//! | [`overlay`] | the hypercall page's contents |
//! | [`console`] | COM2 |
//! | [`devices`] | VTL0 as a guest with the machine's devices |
//! | [`watch`] | being told what a processor does |
//! | [`guest`] | the script's side: VTL0's page tables, descriptor tables and code |
//! | [`driver`] | what VTL0's kernel does with VTL1: enable, call, probe |
//! | [`start`] | how it brings the other processors there |

pub mod console;
pub mod devices;
pub mod driver;
pub mod exits;
pub mod guest;
pub mod msrs;
pub mod overlay;
pub mod processor;
pub mod registers;
pub mod start;
pub mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hv::cpuid::Privileges;
use litebox_platform_lvbs::hv::{CrInterceptControl, MapFlags};

use crate::engine::qemu::{self, Mode, QemuEngine};
use crate::engine::{Access, Engine, GuestRam, Slot};
use crate::hv::{Clock, Effect, GuestMemory, NotRam, Partition, PartitionConfig, ReferenceTime};
use crate::vtl0::memory_map::MemoryMap;
use console::Console;
use overlay::Overlays;

pub use driver::Vtl0;
pub use processor::{Processor, Stop};

/// The engine's number of VTL0's context and address space.
pub const VTL0: usize = 0;
/// The engine's number of VTL1's context and address space.
pub const VTL1: usize = 1;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// What VTL0 is.
    pub mode: Mode,
    /// RAM, and VTL1's place in it. A guest ([`Mode::Guest`]) takes that place itself; only the total counts then.
    pub map: MemoryMap,
    /// Virtual processors.
    pub vps: u32,
    /// Count instructions (one host thread for all processors then).
    pub count_instructions: bool,
    /// One host thread for all processors: needed where one of them runs code that another one changes.
    pub one_thread: bool,
    /// Print console lines as they come.
    pub echo: bool,
    /// What the memory is filled with at the start where VTL0's loader doesn't write; `None` for zeros.
    pub dirt: Option<u8>,
    /// What the partition may do; `None` for all that the LVBS contract §2.1 asks for.
    pub privileges: Option<Privileges>,
    /// What the guest does not see in CPUID, in either VTL.
    pub hidden: Vec<HiddenBits>,
    /// How long a processor may run without stopping, which counts as an error: also while it waits for another one.
    pub watchdog: Duration,
}

/// Bits that one CPUID leaf shows as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiddenBits {
    /// EAX of the CPUID instruction; every sub-leaf is meant.
    pub leaf: u32,
    /// The bits of EAX, EBX, ECX and EDX.
    pub bits: [u32; 4],
}

impl MachineConfig {
    /// A machine over `map` with `vps` processors.
    #[must_use]
    pub fn new(map: MemoryMap, vps: u32) -> Self {
        Self {
            mode: Mode::Script,
            map,
            vps,
            count_instructions: false,
            one_thread: false,
            echo: false,
            dirt: None,
            privileges: None,
            hidden: Vec::new(),
            watchdog: Duration::from_secs(20),
        }
    }
}

/// The engine's RAM as the model sees it.
#[derive(Clone)]
pub struct Ram(Arc<GuestRam>);

impl GuestMemory for Ram {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
        self.0.read(gpa, into).map_err(|_| NotRam(gpa))
    }

    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam> {
        self.0.write(gpa, from).map_err(|_| NotRam(gpa))
    }
}

/// A machine.
pub struct Machine {
    config: MachineConfig,
    engine: QemuEngine,
    ram: Ram,
    partition: Partition,
    console: Mutex<Console>,
    /// Who is told of each line of it.
    reader: Mutex<Option<Box<dyn Fn(&str) + Send>>>,
    overlays: Mutex<Overlays>,
    /// Held by who carries out effects: when it is free, what the model had decided before is in force.
    carrying_out: Mutex<()>,
}

impl Machine {
    /// Starts the engine with all processors stopped in VTL0.
    pub fn new(config: MachineConfig) -> Result<Arc<Self>> {
        let slots = match config.mode {
            Mode::Script => config.map.slots().iter().map(|slot| Slot { gpa: slot.gpa, size: slot.size }).collect(),
            Mode::Guest => qemu::devices::ram(config.map.total),
        };
        let engine = QemuEngine::start(&qemu::Config {
            mode: config.mode,
            slots: slots.clone(),
            count_instructions: config.count_instructions,
            one_thread: config.one_thread,
            watchdog: config.watchdog,
            ..qemu::Config::new(config.vps, 0)
        })
        .context("cannot start the engine")?;
        let ram = Ram(Arc::clone(engine.ram()));
        if let Some(dirt) = config.dirt {
            engine.ram().fill(config.map.region_start, config.map.region_size, dirt)?;
        }
        let frames = slots
            .iter()
            .map(|slot| FrameRange::from_bytes(slot.gpa, slot.gpa + slot.size).context("RAM is not made of frames"))
            .collect::<Result<Vec<_>>>()?;
        let mut partition = PartitionConfig::new(frames, config.vps);
        partition.privileges = config.privileges.unwrap_or(partition.privileges);
        if let Some(clock) = engine.clock() {
            // QEMU's timer of the local APIC counts nanoseconds.
            partition.clock = Some(Clock { tsc: clock.frequency, apic: 1_000_000_000, reading: clock.at });
            partition.privileges |= Privileges::ACCESS_PARTITION_REFERENCE_TSC
                | Privileges::ACCESS_FREQUENCY_REGS
                | Privileges::ACCESS_TSC_INVARIANT_CONTROLS;
        }
        let partition = Partition::new(partition);
        // The engine does not stop at XSETBV.
        partition.deny_cr_intercepts(CrInterceptControl::XCR0_WRITE);
        match config.mode {
            Mode::Script => guest::build(&ram)?,
            Mode::Guest => partition.set_reference_time(ReferenceTime::Host),
        }
        Ok(Arc::new(Self {
            config,
            engine,
            ram,
            partition,
            console: Mutex::default(),
            reader: Mutex::default(),
            overlays: Mutex::default(),
            carrying_out: Mutex::default(),
        }))
    }

    /// What the machine is made of.
    #[must_use]
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Its RAM, past all protections.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// The hypervisor model.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &QemuEngine {
        &self.engine
    }

    /// What was written to COM2 so far, by line.
    #[must_use]
    pub fn console_lines(&self) -> Vec<String> {
        self.console().lines()
    }

    /// Who is told of each line on COM2 from now on.
    pub fn read_console(&self, reader: Box<dyn Fn(&str) + Send>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    fn console(&self) -> MutexGuard<'_, Console> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overlays(&self) -> MutexGuard<'_, Overlays> {
        self.overlays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn console_write(&self, port: u16, value: u8) {
        let Some(line) = self.console().write(port, value) else { return };
        if self.config.echo {
            println!("{line}");
        }
        if let Some(reader) = &*self.reader.lock().unwrap_or_else(PoisonError::into_inner) {
            reader(&line);
        }
    }

    /// Carries out what the model has decided: protections and overlay pages. Another processor may be at it with what it
    /// has taken; then this waits, for who has made a hypercall relies on what it asked for.
    fn apply_effects(&self) -> Result<()> {
        let _carrying_out = self.carrying_out.lock().unwrap_or_else(PoisonError::into_inner);
        for effect in self.partition.take_effects() {
            match effect {
                Effect::Protection { start, end, flags } => {
                    self.engine.protect(VTL0, start, end - start, access(flags))?;
                }
                Effect::DefaultProtection(flags) => {
                    // What was set frame by frame stays; the model repeats it behind this.
                    for slot in self.engine.ram().slots() {
                        self.engine.protect(VTL0, slot.gpa >> 12, slot.size >> 12, access(flags))?;
                    }
                }
                // Of every processor: the engine tells them no more apart.
                Effect::Flush => self.engine.flush()?,
                Effect::HypercallPage { vtl, gfn } => {
                    let offsets = self.partition.config().code_page_offsets;
                    self.overlays().place(vtl, gfn, offsets, &self.ram)?;
                }
                Effect::ReferenceTscPage { vtl, gfn } => {
                    let clock = self.partition.reference_tsc_page().context("there is no clock")?;
                    self.overlays().place_clock(vtl, gfn, &clock, &self.ram)?;
                }
            }
        }
        Ok(())
    }
}

/// VTL0's rights in the engine's terms.
pub(crate) fn access(flags: MapFlags) -> Access {
    Access {
        read: flags.contains(MapFlags::READ),
        write: flags.contains(MapFlags::WRITE),
        execute: flags.contains(MapFlags::KERNEL_EXECUTE),
        user_execute: flags.contains(MapFlags::USER_EXECUTE),
    }
}
