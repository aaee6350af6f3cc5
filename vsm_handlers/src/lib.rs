//! The handlers of the VSM calls, one file per family, and the table of all of them.
//!
//! A handler decides; it touches no hardware but through the platform it is given, keeps no state of its own, and
//! trusts VTL0 in nothing. See `table` for how a call reaches it.
//!
//! | file | calls |
//! |---|---|
//! | `boot`, with `arrival` and `end_of_boot` | EnableAPsVtl, BootAPs, SignalEndOfBoot |
//! | `registers` | LockRegs |
//! | `memory` | ProtectMemory |
//! | `ringbuffer` | AllocateRingbufferMemory |
//! | `kdata` | LoadKData |
//! | `module` | ValidateModule, FreeModuleInit, UnloadModule |
//! | `keys` | CopySecondaryKey |
//! | `kexec` | KexecValidate |
//! | `patch` | PatchText |
//! | `optee` | OpteeMessage |
//! | `query` | Query |
//! | [`intercept`] | none: what VTL0 is stopped at |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arrival;
mod boot;
mod end_of_boot;
mod frozen;
pub mod intercept;
mod kdata;
mod kexec;
mod keys;
mod memory;
mod module;
mod objects;
mod optee;
mod patch;
mod query;
mod registers;
mod ringbuffer;
mod table;
mod unlisted;

pub use intercept::handle_intercept;
pub use registers::before_return;
pub use table::{ABI, ABI_HASH, ABI_VERSION, GATE, ROWS, VSM_TABLE, VsmTable};
pub use unlisted::{Unlisted, unlisted, unlisted_answer, unlisted_in};
