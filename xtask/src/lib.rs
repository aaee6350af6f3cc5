//! The commands of `cargo xtask`, as a library so that tests can call them.
//!
//! Everything runs on the host; nothing here is part of the boot image.

pub mod abi;
mod book;
mod ci;
pub mod cli;
mod debian;
mod doctor;
pub mod explain;
mod fuzz;
pub mod image;
mod install;
mod kernels;
mod lint;
mod linux;
mod map;
mod new_call;
mod process;
mod report;
mod repro;
mod run;
mod sizes;
mod stress;
mod suite;
mod toolchain;
mod validate_capture;
pub mod verify;
pub mod workspace;
