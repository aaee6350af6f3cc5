//! The unmodified image in the simulator's machine: what it must do from its first instruction on, seen from VTL0 and
//! from outside.
//!
//! Nothing here looks into the image's source: the rules are the LVBS contract's, the TLFS's and the design's. Every
//! test starts a machine of its own, and so has a name that begins with `machine_`.
//!
//! | module | what is shown |
//! |---|---|
//! | [`boot`] | it boots from every loader, place, size and state of memory that VTL0 may give it |
//! | [`bad_start`] | what cannot work ends in a printed reason |
//! | [`registers`] | VTL0 finds its registers as it left them, after calls, intercepts and interrupts |
//! | [`pending`] | the same, with an interrupt at a chosen moment: between two calls, together with one |
//! | [`isolation`] | VTL0 cannot reach VTL1's memory |
//! | [`messages`] | intercept messages that wait behind each other, and those that VTL1 has not asked for |
//! | [`after_failure`] | processors that come to a broken VTL1 for the first time; a boot that fails half-way |
//! | [`failure`] | a broken VTL1 says so, and no processor hangs |
//! | [`processors`] | several processors, one after the other and at once |
//! | [`signal`] | BootAPs: processors that come, and one that never does |
//! | [`story`] | a VTL0 that never gives it a kernel to protect |
//! | [`waiting`] | a wait for a processor on which VTL1 fails ends |
//! | [`address_space`] | VTL1's own page tables and control registers |
//! | [`locked`] | writes of locked registers by real instructions |
//! | [`kdata`] | LoadKData |
//! | [`modules`], [`kexec`] | modules and kexec images are accepted, are closed to real stores, and go |
//! | [`patch`] | PatchText on two processors at once |
//! | [`real_kernel`] | what a real LVBS kernel sends |
//! | [`ring`] | the log ring, the limits of the log and the end of boot |
//! | [`stress`] | stress on the machine |
//! | [`attack`] | a processor that stores while another one makes a call |
//! | [`linux`], [`pokes`] | a VTL0 that loads modules and kexec images, and one that patches text |
//! | [`log_ring`] | a log ring in VTL0's memory |
//! | [`stock`] | a distribution's kernel as VTL0 |
//! | [`state`] | the register state of a processor, filled and taken by a snippet |
//! | [`image`], [`setup`] | the image, and a machine that has booted it |

mod address_space;
mod after_failure;
mod attack;
mod bad_start;
mod boot;
mod failure;
mod image;
mod isolation;
mod kdata;
mod kexec;
mod linux;
mod locked;
mod log_ring;
mod messages;
mod modules;
mod patch;
mod pending;
mod pokes;
mod processors;
mod real_kernel;
mod registers;
mod ring;
mod setup;
mod signal;
mod state;
mod stock;
mod story;
mod stress;
mod waiting;
