//! Who a frame belongs to, and who may take it over.
//!
//! What is trusted: the caller names itself truthfully (a handler passes the owner its own call stands for).

use core::fmt;

/// The owner of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Ordinary VTL0 memory: whoever needs it may claim it.
    Nobody,
    /// VTL1 itself; never handed out.
    Vtl1,
    /// VTL0's kernel as ProtectMemory sealed it during boot.
    BootProtected,
    /// A validated kernel module.
    Module {
        /// The token VTL0 knows the module by.
        token: u32,
    },
    /// A validated kexec image.
    Kexec {
        /// Whether it is the crash image, which has a slot of its own.
        crash: bool,
    },
    /// The log ring that VTL1 writes and VTL0 reads.
    RingBuffer,
    /// The code that VTL0 jumps through when it starts another kernel.
    Trampoline,
}

impl Owner {
    /// Whether `claimant` may change or write a frame of this owner: only its own, or one that nobody owns.
    /// VTL1's frames are never up for a claim, not even by VTL1.
    #[must_use]
    pub fn yields_to(self, claimant: Self) -> bool {
        match self {
            Self::Nobody => claimant != Self::Vtl1,
            Self::Vtl1 => false,
            owner => owner == claimant,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Vtl1 => f.write_str("VTL1"),
            Self::BootProtected => f.write_str("the boot-protected kernel"),
            Self::Module { token } => write!(f, "module {token}"),
            Self::Kexec { crash: false } => f.write_str("the kexec image"),
            Self::Kexec { crash: true } => f.write_str("the crash kexec image"),
            Self::RingBuffer => f.write_str("the log ring"),
            Self::Trampoline => f.write_str("the kexec trampoline"),
        }
    }
}
