//! A VTL0 that plays Linux: what its loader and its HEKI driver put into memory, and in which order they call.
//!
//! One library for the hosted tests and for the machine. It is written from the LVBS contract, never from VTL1's
//! code: where the two disagree a test must fail.
//!
//! | module | purpose |
//! |---|---|
//! | [`memory_map`] | where RAM is, and where VTL0 puts what |
//! | [`loader`] | both generations of the loader: special pages, ELF image, initial context |
//! | [`bytes`] | accesses to RAM of any length |
//! | [`lists`] | HEKI lists and CPU masks |
//! | [`kdata`] | what VTL0 says about its kernel: certificates, symbols, patch sites; made up |
//! | [`captures`] | the same of real kernels, as captured |
//! | [`modules`] | what a module's loader puts into memory, and its HEKI list |
//! | [`made_up`] | a small module made here, not captured |
//! | [`signed`] | two small modules and a small kernel that were signed once |
//! | [`signer`] | signs modules, with OpenSSL |
//! | [`kexec`] | what kexec's loader puts into memory, and its HEKI list |
//! | [`authenticode`] | a small kernel's file, and its signature |
//! | [`patcher`] | the steps of a text poke |
//! | [`optee`] | how Linux looks for OP-TEE |
//! | [`log_reader`] | follows VTL1's log in the ring |
//! | [`ranges`] | the protections that VTL0 asks for at boot |
//! | [`records`] | the records of patch sites that HEKI keeps for modules |

pub mod authenticode;
pub mod bytes;
pub mod captures;
pub mod kdata;
pub mod kexec;
pub mod lists;
pub mod loader;
pub mod log_reader;
pub mod made_up;
pub mod memory_map;
pub mod modules;
pub mod optee;
pub mod patcher;
pub mod ranges;
pub mod records;
pub mod signed;
pub mod signer;
