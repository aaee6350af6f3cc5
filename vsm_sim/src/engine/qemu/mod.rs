//! The QEMU engine: one emulator process per machine (TCG, emulated SVM), one emulated CPU per VP, driven through shared memory.
//!
//! | file | purpose |
//! |---|---|
//! | `stub`, `pvh`, `layout` | the code that runs outside guests; the file QEMU gets it in; where everything lies |
//! | `config` | what machine to build |
//! | `process` | starting and ending the emulator |
//! | `lines` | calling a CPU |
//! | `machine` | requests to CPUs |
//! | `spaces` | the address spaces |
//! | `npt`, `vmcb` | the two kinds of hardware structures |
//! | `devices`, `waiter` | a guest with the machine's devices; where its CPUs wait |
//! | `vcpu`, `exits` | driving one VP, and what its exits mean |
//! | `calibrate` | what an entry costs in instructions |
//!
//! Known faults of QEMU 7.2 that a user meets: a reserved bit in a guest page table gives a page fault code without P; LSTAR accepts non-canonical
//! values; CR0.PG without PE is not refused; XSETBV cannot be intercepted; no SHA extensions and no INVPCID; task priority does not hold interrupts back;
//! an interrupt that arrives in the moment of an entry or exit can get lost (see `machine`, which asks again); code changed by another VP can get lost unless
//! all VPs share a thread ([`Config::one_thread`]).
//!
//! Limits of this engine: user and kernel execution are told apart by two trees of tables (`stub`), and what both may execute user code always may; a
//! page that may be executed but not read is closed; string I/O is reported but not taken apart; the time-stamp counter and TSC_AUX are not per context.

mod calibrate;
mod config;
pub mod devices;
mod exits;
mod layout;
mod lines;
mod machine;
mod npt;
mod process;
mod pvh;
mod spaces;
mod stub;
mod vcpu;
mod vmcb;
mod waiter;

use super::error::Result;
use super::exit::Access;
use super::ram::GuestRam;
use super::{Engine, Vcpu};
use machine::Machine;
use std::sync::Arc;

pub use config::{Config, Mode, PROGRAM};

/// A machine in an emulator process of its own. The process ends when this and all its [`Vcpu`]s are dropped, or when this process dies.
pub struct QemuEngine {
    machine: Arc<Machine>,
}

impl QemuEngine {
    /// Starts the emulator and waits until all CPUs serve requests.
    pub fn start(config: &Config) -> Result<Self> {
        let mut machine = Machine::start(config)?;
        if config.count_instructions {
            machine.entry_cost = calibrate::entry_cost(&machine)?;
        }
        if config.mode == Mode::Guest {
            machine.clock = Some(machine.measure_clock()?);
        }
        Ok(Self { machine: Arc::new(machine) })
    }
}

impl Engine for QemuEngine {
    fn ram(&self) -> &Arc<GuestRam> {
        &self.machine.ram
    }

    fn vps(&self) -> u32 {
        self.machine.cpus
    }

    fn protect(&self, space: usize, first_gfn: u64, count: u64, access: Access) -> Result<()> {
        self.machine.protect(space, first_gfn, count, access)
    }

    fn flush(&self) -> Result<()> {
        self.machine.synchronise()
    }

    fn access(&self, space: usize, gfn: u64) -> Result<Option<Access>> {
        self.machine.access(space, gfn)
    }

    fn vcpu(&self, vp: u32) -> Result<Box<dyn Vcpu>> {
        Ok(Box::new(vcpu::QemuVcpu::new(&self.machine, vp)?))
    }

    fn kick(&self, vp: u32) -> Result<()> {
        self.machine.kick(vp)
    }

    fn instruction_counts(&self) -> bool {
        self.machine.counts
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.machine.cpuid(leaf, subleaf)
    }
}
