//! VTL0's memory read in place: frames that a transaction has frozen, as one run of bytes.
//!
//! Nothing is copied that whole frozen pages hold. A page that holds other things as well must not be frozen, for its
//! other bytes belong to something else; such a page is copied, and the copy takes its place in the run.
//! What is trusted: the hypervisor, that what it has made read-only for VTL0 stays as it is.

use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use crate::error::VsmError;
use crate::hardware::{Hardware, MappedView, ViewPiece};

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
