//! What a LoadKData list may be about.
//!
//! Nothing that VTL0 says is trusted: what an object may have of ranges and bytes is bounded here.

use litebox_platform_lvbs::address::PAGE_SIZE;

use crate::objects::ObjectKind;

/// The most ranges of a LoadKData list. A kernel's rodata of 64 MiB, scattered page by page, would have as many.
const MAX_RANGES: u64 = 1 << 14;

/// What a range is part of (Linux `enum heki_kdata_type`, LVBS contract §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    SystemCertificates,
    RevocationCertificates,
    BlockedHashes,
    KernelInfo,
    KernelData,
    PatchInfo,
    KexecTrampoline,
}

impl ObjectKind for Kind {
    const WHAT: &'static str = "kind of kernel data";
    const MAX_RANGES: (u64, &'static str) = (MAX_RANGES, "a list of kernel data must not have more than 16384 ranges");
    const ALL: &'static [Self] = &[
        Self::SystemCertificates,
        Self::RevocationCertificates,
        Self::BlockedHashes,
        Self::KernelInfo,
        Self::KernelData,
        Self::PatchInfo,
        Self::KexecTrampoline,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::SystemCertificates => "system certificates",
            Self::RevocationCertificates => "revocation certificates",
            Self::BlockedHashes => "blocked hashes",
            Self::KernelInfo => "kernel information",
            Self::KernelData => "kernel data",
            Self::PatchInfo => "patch information",
            Self::KexecTrampoline => "kexec trampoline",
        }
    }

    /// Well above what any kernel has, and little enough for VTL1's heap where the
    /// object is copied as a whole.
    fn max_bytes(self) -> u64 {
        match self {
            Self::SystemCertificates | Self::RevocationCertificates => 256 << 10,
            Self::KernelInfo => PAGE_SIZE,
            // Never copied as a whole; of the hashes the first 532 KiB are, which is as many as VTL1 keeps.
            Self::KernelData | Self::BlockedHashes => MAX_RANGES * PAGE_SIZE,
            // Some 43,000 sites; a distribution's kernel has 6,000.
            Self::PatchInfo => 1 << 20,
            Self::KexecTrampoline => 16 * PAGE_SIZE,
        }
    }

    fn may_have_gaps(self) -> bool {
        matches!(self, Self::KernelData | Self::KexecTrampoline)
    }
}
