//! The execution engine: something that runs real x86-64 code of several VPs over one guest RAM and comes back whenever the code does what only a
//! hypervisor can answer.
//!
//! The traits speak of registers, exits and rights on pages; how an engine does it is its own matter. There is one, [`qemu::QemuEngine`]. Every VP has
//! two *contexts* (0 for VTL0, 1 for VTL1) with a private register state each and one shared state, and the machine has two *address spaces* of the same
//! numbers over the same RAM, each with its own rights. An engine trusts its user and nothing that the guest does.

mod decode;
mod error;
mod exit;
pub mod qemu;
mod ram;
pub mod state;
mod walk;

pub use error::{EngineError, Result};
pub use exit::{Access, Event, EventKind, Exit, Intercepts, MemoryFault, Reason, Table};
pub use ram::{GuestRam, Slot};
pub use state::{PrivateState, Segment, SharedState, TableRegister};
pub use walk::Translation;

use std::sync::Arc;

/// The number of contexts of a VP, and of address spaces.
pub const CONTEXTS: usize = 2;

/// An instruction in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The bytes found at RIP; only the first `len` belong to the instruction.
    pub bytes: [u8; 15],
    /// Number of bytes that could be read.
    pub available: u8,
    /// Length of the instruction, 0 if the bytes are not a whole valid one.
    pub len: u8,
}

/// An access to a device of the machine, in place of a guest that has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceAccess {
    /// Reads a port.
    In {
        /// I/O port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
    },
    /// Writes a port.
    Out {
        /// I/O port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// What is written.
        value: u32,
    },
    /// Stores 32 bits.
    Store {
        /// Machine address.
        address: u32,
        /// What is stored.
        value: u32,
    },
}

/// A machine: RAM, address spaces and VPs.
pub trait Engine: Send + Sync {
    /// The guest's RAM.
    fn ram(&self) -> &Arc<GuestRam>;

    /// Number of VPs.
    fn vps(&self) -> u32;

    /// Sets the rights of `space` on `count` pages of 4 KiB from `first_gfn`. All of them must be RAM, else nothing changes. When the call returns, no
    /// VP uses the old rights any more.
    fn protect(&self, space: usize, first_gfn: u64, count: u64, access: Access) -> Result<()>;

    /// When the call returns, no VP uses a translation of linear addresses that it had before.
    fn flush(&self) -> Result<()>;

    /// The rights of `space` on a page; `None` if it is not RAM.
    fn access(&self, space: usize, gfn: u64) -> Result<Option<Access>>;

    /// The handle that drives a VP; at most one at a time.
    fn vcpu(&self, vp: u32) -> Result<Box<dyn Vcpu>>;

    /// Stops a VP: its present `run`, or if there is none the next one, ends with [`Reason::Kicked`].
    fn kick(&self, vp: u32) -> Result<()>;

    /// Whether [`Vcpu::instructions`] counts.
    fn instruction_counts(&self) -> bool;

    /// What CPUID really gives on this CPU, before any hypervisor policy. Bits that depend on CR4 or on the VP (OSXSAVE, APIC id) are the engine's.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
}

/// The handle that drives one VP. Contexts are 0 and 1; any other number is a bug of the caller and panics.
pub trait Vcpu: Send {
    /// Index of the VP.
    fn vp(&self) -> u32;

    /// Private state of a context.
    fn state(&self, context: usize) -> PrivateState;

    /// Replaces the private state of a context.
    fn set_state(&mut self, context: usize, state: &PrivateState);

    /// The state both contexts share.
    fn shared(&self) -> SharedState;

    /// Replaces the shared state.
    fn set_shared(&mut self, state: &SharedState);

    /// Runs a context until something stops it.
    fn run(&mut self, context: usize) -> Result<Exit>;

    /// Delivers an event before the next instruction of the context; a second call before `run` replaces the first.
    fn inject(&mut self, context: usize, event: Event);

    /// Whether an event is waiting: injected, or cut short by an exit during its delivery.
    fn event_pending(&self, context: usize) -> bool;

    /// Raises or lowers the interrupt line with a vector: it is taken as soon as RFLAGS.IF allows. Task priority is the caller's business.
    fn set_interrupt(&mut self, context: usize, vector: Option<u8>);

    /// The vector last taken by `set_interrupt`'s line since the last call of this; taking it lowers the line.
    fn take_interrupt(&mut self, context: usize) -> Option<u8>;

    /// Sets what stops a context.
    fn set_intercepts(&mut self, context: usize, intercepts: &Intercepts);

    /// Skips an instruction of `len` bytes that the caller carried out: RIP moves, the interrupt shadow ends, the instruction counts as one.
    fn advance(&mut self, context: usize, len: u8);

    /// Whether the context's user code has rights of execution of its own (mode-based execute control). Only context 0 can.
    fn set_user_execution(&mut self, context: usize, on: bool);

    /// What CPUID gives on this VP at this moment, with its present XCR0.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u32; 4]>;

    /// Carries out an access to a device of the machine; what was read.
    fn device(&mut self, access: DeviceAccess) -> Result<u32>;

    /// The value that the MOV or XCHG to memory at RIP would store; `None` for other instructions.
    fn stored_value(&self, context: usize) -> Option<u64>;

    /// Walks the context's page tables. `None`: not mapped, or the tables leave RAM.
    fn translate(&self, context: usize, gva: u64) -> Option<Translation>;

    /// The instruction at RIP.
    fn instruction(&self, context: usize) -> Instruction;

    /// Instructions carried out by a context so far, those skipped with `advance` included; 0 without [`Engine::instruction_counts`]. Exact as long as
    /// one VP runs at a time: VPs that run in parallel share one clock and may count each other's instructions.
    fn instructions(&self, context: usize) -> u64;

    /// Makes every `run` end after one instruction with [`Reason::Step`]. RFLAGS.TF of the context is used for it.
    fn set_single_step(&mut self, context: usize, on: bool);
}
