//! A run of bytes that [`Hardware::map_view`](super::Hardware::map_view) makes of frames and pages.
//!
//! What is trusted: that the frames are frozen, which the frame registry sees to.

use core::fmt;

use crate::address::{FrameRange, PAGE_SIZE};

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

/// What [`Hardware::map_view`](super::Hardware::map_view) has mapped.
pub trait MappedView: Send {
    /// The bytes of all pieces.
    fn bytes(&self) -> &[u8];
}
