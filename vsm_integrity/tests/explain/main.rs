//! Modules made by hand, for every form of code that a kernel can make of them: what must be accepted, and next to it
//! what must not.
//!
//! | module | purpose |
//! |---|---|
//! | [`object`] | writes relocatable objects |
//! | [`world`] | plays the kernel that loads one: layout, relocation, exports |

mod alternatives;
mod call_depth;
mod elf_files;
mod object;
mod pairs;
mod per_cpu;
mod retpolines;
mod returns;
mod small_sites;
mod static_calls;
mod symbols;
mod tables;
mod world;
