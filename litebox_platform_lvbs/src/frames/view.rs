//! VTL0's memory read in place: frames that a transaction has frozen, as one run of bytes.
//!
//! Nothing is copied that whole frozen pages hold. A page that holds other things as well must not be frozen, for its
//! other bytes are somebody else's; such a page is copied, and the copy takes its place in the run.
//! What is trusted: the hypervisor, that what it has made read-only for VTL0 stays as it is.

use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use crate::address::{FrameRange, PAGE_SIZE};
use crate::error::VsmError;
use crate::hardware::Hardware;

/// Size of a page, in bytes.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);

/// A page of VTL1's own, placed as the processor's page tables need it.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct AlignedPage(pub [u8; PAGE]);

impl AlignedPage {
    /// A page of zeros.
    pub const ZEROED: Self = Self([0; PAGE]);
}

impl fmt::Debug for AlignedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AlignedPage").finish_non_exhaustive()
    }
}

/// A part of a view.
#[derive(Clone, Copy, Debug)]
pub enum ViewPiece<'a> {
    /// Frames of VTL0.
    Frozen(FrameRange),
    /// VTL1's copy of a page.
    Copied(&'a AlignedPage),
}

impl ViewPiece<'_> {
    /// The frames of VTL0, if it is of those.
    #[must_use]
    pub fn frames(&self) -> Option<FrameRange> {
        match self {
            Self::Frozen(frames) => Some(*frames),
            Self::Copied(_) => None,
        }
    }

    /// How many pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.frames().map_or(1, FrameRange::count)
    }
}

/// What [`Hardware::map_view`] has mapped.
pub trait MappedView: Send {
    /// The bytes of all pieces.
    fn bytes(&self) -> &[u8];
}

/// Bytes of VTL0 that cannot change while this lives.
pub struct FrozenView<'a> {
    mapped: Box<dyn MappedView>,
    /// The transaction that has frozen the frames, and the copies.
    frozen: PhantomData<&'a ()>,
}

impl<'a> FrozenView<'a> {
    pub(super) fn new(hardware: &dyn Hardware, pieces: &'a [ViewPiece<'a>]) -> Result<Self, VsmError> {
        Ok(Self { mapped: hardware.map_view(pieces)?, frozen: PhantomData })
    }
}

impl Deref for FrozenView<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapped.bytes()
    }
}

impl fmt::Debug for FrozenView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrozenView of {} bytes", self.len())
    }
}
