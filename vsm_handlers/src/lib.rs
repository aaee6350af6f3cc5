//! The handlers of the VSM calls, one file per family, and the table of all of them.
//!
//! A handler decides; it touches no hardware but through the platform it is given, keeps no state of its own, and
//! trusts VTL0 in nothing. [`dispatch`](fn@dispatch) brings a call to it, through the `table`.
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
//! | `optee` | OpteeMessage, SetPlatformRootKey |
//! | `query` | Query |
//! | [`intercept`] | none: what VTL0 is stopped at |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(not(target_os = "none"))]
mod answer_check;
mod arrival;
mod boot;
mod dispatch;
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
mod sealed;
mod table;

#[cfg(not(target_os = "none"))]
pub use answer_check::AnswerCheck;
pub use dispatch::{Answer, dispatch};
pub use intercept::handle_intercept;
pub use registers::before_return;
pub use table::{ABI, ABI_HASH, ABI_VERSION, GATE, ROWS, VSM_TABLE, VsmTable};
