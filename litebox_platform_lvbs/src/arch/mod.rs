//! x86-64 bare metal: everything the image needs below the [`Hardware`](crate::hardware::Hardware) seam.
//!
//! | module | purpose |
//! |---|---|
//! | [`layout`] | the virtual address space |
//! | [`cpu`] | required features, control registers |
//! | `pages`, [`paging`] | pages from the heap, page tables |
//! | [`heap`] | the allocator over the reserve |
//! | [`vp`], [`start`] | a processor's area and state; how it starts VTL1 |
//! | [`segments`] | GDT and TSS |
//! | [`exceptions`] | IDT, faults, copies that may fault |
//! | [`serial`], [`logger`] | the console on COM2 |
//! | [`hypercall`], [`hyperv`] | hypercalls, Hyper-V's set-up |
//! | [`messages`] | intercept messages |
//! | [`vtl_switch`] | return to VTL0, entry to VTL1 |
//! | [`vtl0_memory`] | windows onto VTL0's memory |
//! | [`view_memory`] | VTL0's frozen memory, read in place |
//! | [`ring_memory`] | the log ring's mapping |
//! | [`bare_metal`] | the above as [`Hardware`](crate::hardware::Hardware) |
//! | [`kernel`] | the image's one kernel |
//! | [`panic`] | when VTL1 itself is broken |

pub mod bare_metal;
pub mod cpu;
pub mod exceptions;
pub mod heap;
pub mod hypercall;
pub mod hyperv;
pub mod kernel;
pub mod layout;
pub mod logger;
pub mod messages;
mod pages;
pub mod paging;
pub mod panic;
pub mod ring_memory;
pub mod segments;
pub mod serial;
pub mod start;
pub mod view_memory;
pub mod vp;
pub mod vtl0_memory;
pub mod vtl_switch;

pub use kernel::platform;
