//! The seam between VTL1's logic and the machine under it.
//!
//! On the image the implementation is `arch`'s bare metal; on a host it is the simulator's hypervisor model. Both
//! sides of the seam speak the TLFS hypercall ABI, so that a handler cannot tell which one it runs on.

pub mod calls;
mod view;

pub use view::{AlignedPage, MappedView, ViewPiece};

use alloc::boxed::Box;

use vsm_integrity::signature::CompressSha256;

use crate::address::{FrameRange, PhysAddr};
use crate::error::VsmError;
use crate::hv::{HvStatus, HypercallControl, InitialVpContext};
use crate::logging::RingMemory;

/// VTL0's memory at the address could not be accessed: it is no RAM, or the access faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFault(pub PhysAddr);

/// What a hypercall answered (TLFS "Hypercall Result Value").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypercallOutcome {
    /// The status code.
    pub status: HvStatus,
    /// Number of list elements completed, counted from the list's first element; 0 for a simple hypercall.
    pub reps_done: u16,
}

/// The right to the last of the heap, given back when this is dropped.
#[must_use]
pub struct HeapReserve(fn());

impl HeapReserve {
    /// The right that `release` takes away.
    pub fn new(release: fn()) -> Self {
        Self(release)
    }
}

impl Drop for HeapReserve {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The primitives VTL1's logic needs from the machine. All of them act for the calling virtual processor.
pub trait Hardware: Send + Sync {
    /// Issues a hypercall. `input` (at most one page) and `output` (at most one page) go through the calling
    /// VP's hypercall pages; nothing is retried.
    fn hypercall(&self, control: HypercallControl, input: &[u8], output: &mut [u8]) -> HypercallOutcome;

    /// Copies VTL0 memory into VTL1, byte for byte, once. The bytes must not cross a page.
    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault>;

    /// Copies VTL1 bytes to VTL0 memory with VTL1's rights. The bytes must not cross a page.
    fn write_vtl0(&self, to: PhysAddr, from: &[u8]) -> Result<(), MemoryFault>;

    /// Prepares VTL1's per-processor state for `vp` and returns the context the processor starts VTL1 with.
    /// Idempotent: a second call for the same VP returns the same context.
    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError>;

    /// Time since the partition was made, in units of 100 ns, by a clock that VTL0 cannot set (TLFS "Partition Reference
    /// Counter"); `None` on a machine without one.
    fn reference_time(&self) -> Option<u64> {
        None
    }

    /// Whether the processors offer VTL0 virtualization (VMX or SVM), so that it may run virtual machines of its own.
    fn offers_virtualization(&self) -> bool {
        false
    }

    /// Lets the calling processor use the last of the heap until the guard is dropped: for arithmetic whose allocations
    /// panic when they fail. Called under the keys' lock, so that one processor at a time has it.
    fn heap_reserve(&self) -> HeapReserve {
        HeapReserve::new(|| ())
    }

    /// The SHA-256 block function of a processor that has instructions for it.
    fn sha256_compress(&self) -> Option<CompressSha256> {
        None
    }

    /// Maps frames of VTL0 and pages of VTL1's own, one after another, for VTL1 to read, until the view is
    /// dropped. Called by the frame registry only, with frames that VTL0 cannot write meanwhile. Reading them does not fault:
    /// the hypervisor has changed their permissions, which it does for memory only.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`] for page tables or addresses; [`VsmError::FrameOwned`] or
    /// [`VsmError::Vtl0MemoryFault`] for frames that cannot be VTL0's; [`VsmError::NotImplemented`] on a machine without a
    /// place for views. Nothing is mapped then.
    fn map_view(&self, pieces: &[ViewPiece<'_>]) -> Result<Box<dyn MappedView>, VsmError> {
        let _ = pieces;
        Err(VsmError::NotImplemented)
    }

    /// Maps `frames` for VTL1's log, writable and not executable, until the mapping is dropped. Called once at most: a
    /// machine has addresses for one ring.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`]; [`VsmError::NotImplemented`] on a machine without a place for a ring. Nothing is
    /// mapped then.
    fn map_ring(&self, frames: FrameRange) -> Result<Box<dyn RingMemory>, VsmError> {
        let _ = frames;
        Err(VsmError::NotImplemented)
    }
}
