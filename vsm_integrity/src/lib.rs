//! Parsers of what VTL0 hands over: bytes in, verdict out.
//!
//! Every byte is hostile. Nothing here panics, loops without end, or allocates more than what its documentation
//! says; no hypercall is made and no VTL0 memory is touched, so that all of it can be fuzzed on a host.
//!
//! | module | parses |
//! |---|---|
//! | [`der`] | concatenated DER certificates |
//! | [`blocklist`] | the records of the blacklist keyring |
//! | [`kernel_info`] | where the kernel's export tables are, and what its alternatives call |
//! | [`ksymtab`] | the export tables themselves, through a view of virtual memory |
//! | [`patch_info`] | the sites of jump labels |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blocklist;
mod bytes;
pub mod der;
mod error;
pub mod kernel_info;
pub mod ksymtab;
pub mod patch_info;

pub use error::ParseError;
