//! The frame registry: who owns each frame VTL0 can see, and what VTL0 may do with it.
//!
//! Every permission change, and every check whether VTL1 may write into VTL0 memory, goes through here. The
//! registry is plain data: it trusts nothing but what the hypervisor answers to the hypercalls that it makes itself
//! through [`Hardware`](crate::hardware::Hardware), and it holds no `unsafe`.
//!
//! * [`FrameRegistry`] partitions the guest-physical space into intervals of frames with one owner and one
//!   permission. Memory and time grow with the number of distinct intervals, not with RAM.
//! * [`Transaction`] is the only way to change it: stage, then commit; dropping it takes everything back.
//!
//! Allocation happens while staging, and is fallible there. Committing and rolling back allocate nothing, so that
//! neither can get stuck half-way for want of memory.

mod drive;
mod list;
mod narrow;
mod permission;
mod registry;
mod spans;
#[cfg(test)]
pub(crate) mod tests;
mod transaction;
mod view;

pub use narrow::Refused;
pub use permission::{MemAttr, Permission};
pub use registry::{FrameRegistry, FrameState};
pub use transaction::Transaction;
pub use view::FrozenView;
