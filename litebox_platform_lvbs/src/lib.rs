//! Types and hardware primitives of the VTL1 kernel.
//!
//! This crate knows *what things are* (VSM function ids, HEKI lists, TLFS registers and hypercalls, checked
//! addresses, errors) and *how the hardware is driven* (hypercalls, the VTL switch, page tables, interrupts,
//! heap, windows onto VTL0 memory). It takes no decision about a VSM call: that is `vsm_handlers`.
//!
//! | module | purpose | builds for |
//! |---|---|---|
//! | [`vsm`] | the declaration of the calls, handler trait, typed parameters, gate | image, host |
//! | [`error`] | the one error type and its conversion to a Linux errno | image, host |
//! | [`address`] | checked physical addresses and frame ranges | image, host |
//! | [`hv`] | Hyper-V's interface as the TLFS defines it | image, host |
//! | [`heki`] | the lists VTL0's HEKI driver sends | image, host |
//! | [`frames`] | the frame registry: who owns a frame, what VTL0 may do with it | image, host |
//! | [`vtl0`] | what VTL1 knows of VTL0, and typed pointers into its memory | image, host |
//! | [`loader`] | what VTL0's loader says at the first entry | image, host |
//! | [`optee`] | OP-TEE's registers and numbers | image, host |
//! | [`logging`] | the log: lines, the ring that VTL0 reads, limits | image, host |
//! | [`hardware`] | the seam between the above and the machine (or the simulator's model) | image, host |
//! | [`sha_extensions`] | SHA-256 by the processor | image, host |
//! | [`sort`] | sorting on a small stack | image, host |
//! | [`sync`] | locks that do not outlive VTL1's failure | image, host |
//! | [`platform`](mod@platform) | one VTL1 kernel's state | image, host |
//! | `arch` | x86-64 bare metal | image only |
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod address;
#[cfg(target_os = "none")]
pub mod arch;
pub mod error;
pub mod frames;
pub mod hardware;
pub mod heki;
pub mod hv;
pub mod loader;
pub mod logging;
pub mod optee;
pub mod platform;
pub mod sha_extensions;
pub mod sort;
pub mod sync;
pub mod vsm;
pub mod vtl0;

pub use error::{Errno, VsmError};
pub use platform::Platform;
