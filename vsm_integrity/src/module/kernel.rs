//! What VTL1 knows of the kernel that loads a module.

use core::fmt;

use crate::generation::KernelGeneration;
use crate::kernel_info::ArchInfo;

/// Text that VTL0 can no longer write: the kernel's, and that of modules that were accepted before.
pub trait SealedText {
    /// Fills `into` with the bytes from `va` on, each fetched once; `false` when one of them is not sealed text.
    ///
    /// Sealed is what the frame registry says: a frame that is executable and that VTL0 may not write. Bytes of any other
    /// frame must not be looked at, and not be returned.
    fn read(&self, va: u64, into: &mut [u8]) -> bool;
}

/// No text: whatever depends on it is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSealedText;

impl SealedText for NoSealedText {
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
}

/// What VTL1 knows of the kernel that loads a module, its symbols excepted.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// What its alternatives call.
    pub arch: ArchInfo<'a>,
    /// Which layouts and rules are in force.
    pub generation: KernelGeneration,
    /// Its text, and other modules'.
    pub text: &'a dyn SealedText,
}

impl fmt::Debug for Kernel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("arch", &self.arch).field("generation", &self.generation).finish_non_exhaustive()
    }
}
