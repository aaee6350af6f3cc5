//! Parsers of what VTL0 hands over: bytes in, verdict out.
//!
//! Every byte is hostile. Nothing here panics, loops without end, or allocates more than what its documentation
//! says; no hypercall is made and no VTL0 memory is touched, so that all of it can be fuzzed on a host.
//!
//! | module | parses |
//! |---|---|
//! | [`der`] | concatenated DER certificates |
//! | [`blocklist`] | the records of the blacklist keyring |
//! | [`keys`] | who may sign, and whether a signed message holds |
//! | [`elf`] | relocatable objects, such as kernel modules |
//! | [`module`] | a module in memory, explained from its signed file |
//! | [`kexec`] | what kexec would start, and which bytes of a signed file that is |
//! | [`kernel_info`] | where the kernel's export tables are, and what its alternatives call |
//! | [`generation`] | nothing: says which layouts and rules of Linux are in force |
//! | [`ksymtab`] | the export tables themselves, through a view of virtual memory |
//! | [`pe`] | signed kernel images |
//! | [`signature`] | module signatures: trailer, PKCS#7, certificates, digests |
//! | [`patch_info`] | the sites of jump labels |
//!
//! [`heap`] makes vectors grow with an error where there is no room, [`addresses`] tells the halves of the address space.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addresses;
pub mod blocklist;
mod bytes;
pub mod der;
pub mod elf;
mod error;
pub mod generation;
pub mod heap;
pub mod kernel_info;
pub mod kexec;
pub mod keys;
pub mod ksymtab;
pub mod module;
pub mod patch_info;
pub mod pe;
pub mod signature;

pub use error::ParseError;
