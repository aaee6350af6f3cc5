//! The kexec images that VTL1 has accepted: one that is started on command, and one that is started after a crash.
//!
//! The frame registry knows their frames: those of [`Owner::Kexec`]. What is here is for the log and for queries; all of it
//! has been checked.

use crate::address::FrameRange;
use crate::owner::Owner;

/// An accepted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KexecMemoryMetadata {
    /// How many frames VTL0 can no longer write for it.
    pub frames: u64,
    /// How many segments it has.
    pub segments: usize,
    /// Where the verified kernel runs.
    pub kernel: FrameRange,
}

/// The two slots. To change one, hold the frame registry's lock as well.
#[derive(Debug, Default)]
pub struct KexecImages {
    normal: Option<KexecMemoryMetadata>,
    crash: Option<KexecMemoryMetadata>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KexecSlot {
    /// Started on command.
    Normal,
    /// Started after a crash.
    Crash,
}

impl KexecSlot {
    /// The owner of the image's frames.
    #[must_use]
    pub const fn owner(self) -> Owner {
        Owner::Kexec { crash: matches!(self, Self::Crash) }
    }
}

impl KexecImages {
    /// The image in a slot.
    #[must_use]
    pub const fn get(&self, slot: KexecSlot) -> Option<KexecMemoryMetadata> {
        match slot {
            KexecSlot::Normal => self.normal,
            KexecSlot::Crash => self.crash,
        }
    }

    /// Puts an image into a slot or empties it; returns what was there before.
    pub const fn replace(
        &mut self,
        slot: KexecSlot,
        image: Option<KexecMemoryMetadata>,
    ) -> Option<KexecMemoryMetadata> {
        let place = match slot {
            KexecSlot::Normal => &mut self.normal,
            KexecSlot::Crash => &mut self.crash,
        };
        core::mem::replace(place, image)
    }
}
