//! A model of the part of Hyper-V that VSM needs: one partition, its VTLs, and what the hypervisor does for them.
//!
//! Pure Rust over an abstract guest memory; the machine (real instructions) and the hosted platform (handlers as
//! host code) drive the same model. It knows what the TLFS says and nothing of the kernel under test. Whatever the TLFS
//! does not define is refused with a TLFS status or a fault *and* kept as a [`Report`], so that a test can insist
//! that a kernel stays within the specification.
//!
//! | module | purpose |
//! |---|---|
//! | [`abilities`] | what differs between hypervisors |
//! | [`clock`] | the reference TSC page |
//! | [`memory`] | guest memory as the model needs it |
//! | [`partition`] | the partition: construction, inspection, what the machine has to carry out |
//! | [`protections`] | VTL0's rights, frame by frame |
//! | [`registers`] | register files, and how the machine keeps them up to date |
//! | [`request`] | hypercalls, decoded and checked for form |
//! | [`hypercalls`] | hypercalls, carried out |
//! | [`vp_registers`] | HvCallGetVpRegisters and HvCallSetVpRegisters |
//! | [`flush`] | flushes of VTL1's translations on sets of processors |
//! | [`synthetic_msrs`] | synthetic MSRs and CPUID leaves |
//! | [`synic`] | message queues and interrupt requests |
//! | [`vtl_switch`] | VTL call, VTL return, interrupt entry |
//! | [`intercepts`] | secure intercepts |
//! | [`injection`] | making hypercalls fail on purpose |
//! | [`trace`] | events for people and tests |

pub mod abilities;
pub mod clock;
pub mod flush;
pub mod hypercalls;
pub mod injection;
pub mod intercepts;
pub mod memory;
pub mod partition;
pub mod protections;
pub mod registers;
pub mod request;
pub mod synic;
pub mod synthetic_msrs;
pub mod trace;
pub mod vp_registers;
pub mod vtl_switch;

pub use abilities::Refusal;
pub use clock::Clock;
pub use injection::Injection;
pub use intercepts::{Access, Instruction, MemoryAccess, Mode, Verdict};
pub use memory::{GuestMemory, NotRam};
pub use partition::{Effect, Partition, PartitionConfig, ReferenceTime, Report};
pub use protections::ProtectionMap;
pub use registers::RegisterFile;
pub use trace::{Trace, TraceEvent};
pub use vtl_switch::VtlReturn;

/// An exception the hypervisor raises in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #UD.
    InvalidOpcode,
    /// #GP(0).
    GeneralProtection,
}
