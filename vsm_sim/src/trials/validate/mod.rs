//! Captures of real modules in real kernels' memory, and what VTL1's code says about them.
//!
//! | module | purpose |
//! |---|---|
//! | [`set`] | a capture set: one boot of one kernel, with what VTL1 would know of it |
//! | [`captured`] | a module of a set: the signed file and its memory |
//! | [`transitions`] | what the kernel poked into a module's text right afterwards |
//! | [`accept`] | explains every module, in the order in which they were loaded |
//! | [`mutate`] | changes memory and files, and sees all of it refused |
//!
//! Nothing is tuned to a set: any kernel's can be given.

pub mod accept;
pub mod captured;
pub mod mutate;
pub mod set;
pub mod transitions;
