//! The simulator: everything a VTL1 image needs to run, without Hyper-V.
//!
//! | module | purpose |
//! |---|---|
//! | [`hv`] | the hypervisor model: one partition, its VTLs, protections, intercepts; pure Rust |
//! | [`hosted`] | VTL1's handlers as host code over that model |
//! | [`vtl0`] | a VTL0 that plays Linux: loader, lists, ranges |
//! | [`engine`] | a software CPU that runs real instructions (QEMU in a process of its own) |
//! | [`machine`] | the model and the engine together: boots the unmodified image |
//! | [`linux`] | a real Linux as VTL0 of such a machine |
//! | [`map`] | a picture of the frame registry during a boot |
//! | [`random`] | the one random generator |
//! | [`trials`] | experiments on all of it: `run`, `stress`, `validate` |
//!
//! The simulator depends on the platform crate's types and never the other way round.

pub mod engine;
pub mod hosted;
pub mod hv;
pub mod linux;
pub mod machine;
pub mod map;
pub mod random;
pub mod trials;
pub mod vtl0;
