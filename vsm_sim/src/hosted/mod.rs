//! The hosted platform: VTL1's logic as host code over the hypervisor model.
//!
//! A [`HostedMachine`] has its own memory, partition and platform, so that tests run side by side. The handlers cannot
//! tell it from the image: their hypercalls go through a page of VTL1's region and the model's ABI, their accesses to
//! VTL0 memory through copies of at most a page. Tests may let VTL0 change memory between any two of those copies.
//!
//! | module | purpose |
//! |---|---|
//! | [`memory`] | sparse guest memory, access counts, the racing VTL0 |
//! | `fetches` | the witness against double fetches, and against reads past `access`, in every call |
//! | [`hardware`] | the platform's `Hardware` over the model |
//! | [`ring`] | the log ring's mapping |
//! | [`view`] | VTL0's frozen memory, read in place |
//! | [`logging`] | VTL1's log lines, machine by machine |
//! | `interrupts` | what VTL0 was stopped at, answered |
//! | [`machine`] | putting it together, booting it, making VSM calls |

mod fetches;
pub mod hardware;
mod interrupts;
pub mod logging;
pub mod machine;
pub mod memory;
pub mod ring;
pub mod view;

pub use hardware::HostedHardware;
pub use machine::{HostedConfig, HostedMachine};
pub use memory::{HostedMemory, RacePoint};
