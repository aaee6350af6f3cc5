//! The software CPU by itself: what stops a guest, what is counted, several processors, and whether it does what a CPU does.
//!
//! All of them start the emulator, so the modules' names begin with `engine_`.

mod common;
mod engine_conformance;
mod engine_counts;
mod engine_exits;
mod engine_guest;
mod engine_vps;
mod guest;
