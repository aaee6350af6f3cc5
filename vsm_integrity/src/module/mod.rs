//! A kernel module in memory, explained byte by byte from its signed file.
//!
//! VTL0 loads a module as Linux does, and then asks VTL1 to make its code executable. Before that, every byte of code and
//! read-only data must follow from the file, from the addresses of the ranges, and from what VTL1 itself knows of the
//! kernel: nothing that VTL0 wrote is believed, and no target of a branch is its choice.
//!
//! | module | purpose |
//! |---|---|
//! | [`memory`] | the ranges as VTL0 handed them over |
//! | [`layout`] | where Linux put each section |
//! | [`symbols`] | what symbols stand for, and who may use them |
//! | [`relocate`] | what relocations write |
//! | [`sites`] | where the file allows code to be rewritten |
//! | [`plan`] | all of that together |
//! | [`explain`] | the comparison with memory |
//! | [`kernel`] | what VTL1 knows of the kernel, its sealed text included |
//! | [`habits`] | what is decided once for all sites |
//! | [`exports`], [`patch_sites`], [`static_calls`] | what an accepted module adds: symbols, functions, sites of text patches |
//!
//! The bytes are looked at where they are, so VTL1 freezes them first. A caller makes a [`ModuleMemory`] of the ranges and
//! a [`Plan`] of the file, calls [`Plan::explain`], and then asks for [`Plan::exports`], [`Plan::jump_labels`],
//! [`Plan::static_calls`] and [`Plan::functions`].

mod clusters;
pub mod error;
pub mod explain;
pub mod exports;
pub mod habits;
pub mod kernel;
mod kind;
pub mod layout;
pub mod memory;
pub mod modinfo;
mod pairs;
pub mod patch_sites;
pub mod plan;
pub mod relocate;
mod rewrites;
mod sites;
mod sizes;
mod sorted;
pub mod static_calls;
pub mod statistics;
pub mod symbols;
mod walk;
mod x86;

pub use error::{ModuleError, Refusal};
pub use explain::Explained;
pub use habits::Habits;
pub use kernel::{Kernel, NoSealedText, SealedText};
pub use kind::Kind;
pub use memory::{ModuleMemory, Range};
pub use plan::Plan;
pub use static_calls::{Instruction, Shape, StaticCall};
pub use statistics::{Reason, Statistics};
pub use symbols::{Export, Resolver};
