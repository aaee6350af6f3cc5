//! Who a frame belongs to, and who may take it over.
//!
//! What is trusted: the caller's name (a handler passes the owner that its own call stands for).

use core::fmt;

use crate::token::Token;
pub use vsm_integrity::module::Kind as ModuleMemoryKind;

/// The owner of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Ordinary VTL0 memory: any owner but VTL1 may claim it.
    Nobody,
    /// VTL1 itself; never handed out.
    Vtl1,
    /// VTL0's kernel as ProtectMemory sealed it during boot; but its text is [`Self::KernelText`].
    BootProtected,
    /// Text of VTL0's kernel, sealed by ProtectMemory as executable and not writable. Patches may touch it, at the sites
    /// that are recorded, and nothing else may write it.
    KernelText,
    /// A validated kernel module.
    Module {
        /// The token VTL0 knows the module by.
        token: Token,
        /// Which of its memory this is.
        kind: ModuleMemoryKind,
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
    /// Whether `claimant` may change or write a frame of this owner: only its own, or one without an owner.
    /// VTL1's frames can never be claimed, not even by VTL1.
    ///
    /// One exception: the trampoline is part of the kernel that ProtectMemory seals, and VTL0 may make that call before
    /// LoadKData or after it (LVBS contract §5.2). So the trampoline may be taken out of the boot-protected kernel and its
    /// text. Only LoadKData does this, during boot, and gives VTL0 no permission that a boot-protected frame cannot have.
    #[must_use]
    pub fn yields_to(self, claimant: Self) -> bool {
        match self {
            Self::Nobody => claimant != Self::Vtl1,
            Self::Vtl1 => false,
            // ProtectMemory may be called again during boot, and then stands for both.
            Self::BootProtected => matches!(claimant, Self::BootProtected | Self::Trampoline),
            Self::KernelText => matches!(claimant, Self::KernelText | Self::BootProtected | Self::Trampoline),
            Self::Module { token, .. } => matches!(claimant, Self::Module { token: other, .. } if other == token),
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
            Self::KernelText => f.write_str("the kernel's text"),
            Self::Module { token, kind } => write!(f, "module {token} ({})", kind.name()),
            Self::Kexec { crash: false } => f.write_str("the kexec image"),
            Self::Kexec { crash: true } => f.write_str("the crash kexec image"),
            Self::RingBuffer => f.write_str("the log ring"),
            Self::Trampoline => f.write_str("the kexec trampoline"),
        }
    }
}
