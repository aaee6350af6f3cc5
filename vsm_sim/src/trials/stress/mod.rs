//! `cargo xtask stress`: whatever VTL0 can do, at random, on all its processors at once; and what must hold meanwhile.
//!
//! A run is made of lives: a machine is booted, VTL0 does so many steps on its processors, each a call, an instruction that is
//! intercepted, or a change of memory that VTL1 may be reading; then the next one begins. Everything is drawn from a seed.
//! The rules are those of the boundary; they are checked after every step, and more of them whenever all processors rest.
//!
//! | module | purpose |
//! |---|---|
//! | [`options`] | what a run is told |
//! | [`input`] | random bytes, taken apart |
//! | [`layout`] | which frames are for what |
//! | [`memory`] | memory as VTL0 gets at it |
//! | [`lists`], [`generators`], [`modules`], [`kexec`] | what VTL0 sends; the fuzz targets send the same |
//! | [`kinds`] | everything that is done in a step, a line each |
//! | [`attempts`] | instructions, and what must come of them |
//! | [`rules`] | what must hold of registry and hypervisor |
//! | [`cpu`] | the seam to the two kinds of machine |
//! | [`hosted`], [`real`] | the two |
//! | [`life`], [`player`] | what the processors of a life share, and one of them |
//! | [`drive`] | lives one after the other, and the watchdog |
//! | [`trace`], [`figures`] | what happened last, and how often what did |

pub mod attempts;
pub mod cpu;
pub mod drive;
pub mod figures;
pub mod generators;
pub mod hosted;
pub mod input;
pub mod kexec;
pub mod kinds;
pub mod layout;
pub mod life;
pub mod lists;
pub mod memory;
pub mod modules;
pub mod options;
pub mod player;
pub mod real;
pub mod rules;
pub mod trace;

pub use drive::{Failure, Outcome, run};
pub use figures::Figures;
pub use options::{Damage, Layer, Options, Sabotage};
