//! Types and hardware primitives of the VTL1 kernel.
//!
//! This crate knows *what things are* (VSM function ids, HEKI lists, TLFS registers and hypercalls, checked
//! addresses, errors) and *how the hardware is driven* (hypercalls, the VTL switch, page tables, interrupts,
//! heap, windows onto VTL0 memory). It takes no decision about a VSM call: that is `vsm_handlers`.
//!
//! The modules stand on floors: each imports from those below it only (`xtask/tests/house/floors.rs` holds it).
//!
//! | floor | module | purpose | builds for |
//! |---|---|---|---|
//! | 10 | `arch` | x86-64 bare metal | image |
//! | 10 | [`heki`] | the lists VTL0's HEKI driver sends | image, host |
//! | 9 | [`vsm`] | the declaration of the calls, handler trait, typed parameters, gate, table | image, host |
//! | 9 | [`access`] | the only way to VTL0's memory | image, host |
//! | 8 | [`platform`](mod@platform) | one VTL1 kernel's state | image, host |
//! | 7 | [`vtl0`] | what VTL1 knows of VTL0's kernel | image, host |
//! | 6 | [`frames`] | the frame registry: who owns a frame, what VTL0 may do with it | image, host |
//! | 5 | [`hardware`] | the seam between the above and the machine (or the simulator's model); typed hypercalls | image, host |
//! | 5 | [`phase`] | the one irrevocable step of a VTL0 life | image, host |
//! | 5 | [`secret`] | bytes that are set once, shown to no log, zeroized | image, host |
//! | 4 | [`error`] | the one error type and its conversion to a Linux errno | image, host |
//! | 3 | [`owner`], [`token`] | who a frame belongs to; what VTL0 knows a module by | image, host |
//! | 3 | [`hv`] | Hyper-V's interface as the TLFS defines it | image, host |
//! | 3 | [`optee`] | OP-TEE's registers and numbers | image, host |
//! | 2 | [`loader`] | what VTL0's loader says at the first entry | image, host |
//! | 2 | [`sync`] | locks that do not outlive VTL1's failure | image, host |
//! | 2 | [`logging`] | the log: lines, the ring that VTL0 reads, limits | image, host |
//! | 1 | [`failure`] | whether VTL1 has failed | image, host |
//! | 1 | [`reserved_heap`] | an allocator with a part that only one processor may use | image, host |
//! | 1 | [`address`] | checked physical addresses and frame ranges | image, host |
//! | 1 | [`sha_extensions`] | SHA-256 by the processor | image, host |
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod access;
pub mod address;
#[cfg(target_os = "none")]
pub mod arch;
pub mod error;
pub mod failure;
pub mod frames;
pub mod hardware;
pub mod heki;
pub mod hv;
pub mod loader;
pub mod logging;
pub mod optee;
pub mod owner;
pub mod phase;
pub mod platform;
pub mod reserved_heap;
pub mod secret;
pub mod sha_extensions;
pub mod sync;
pub mod token;
pub mod vsm;
pub mod vtl0;

pub use error::{Errno, VsmError};
pub use platform::Platform;
