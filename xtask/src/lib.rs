//! The commands of `cargo xtask`, as a library so that tests can call them.
//!
//! Everything runs on the host; nothing here is part of the boot image.

pub mod abi;
pub mod book;
pub mod ci;
pub mod doctor;
pub mod explain;
pub mod fuzz;
pub mod image;
pub mod install;
pub mod kernels;
pub mod lint;
pub mod map;
pub mod new_call;
pub mod process;
pub mod repro;
pub mod run;
pub mod sizes;
pub mod stress;
pub mod suite;
pub mod toolchain;
pub mod validate_capture;
pub mod verify;
pub mod walkthrough;
pub mod workspace;
