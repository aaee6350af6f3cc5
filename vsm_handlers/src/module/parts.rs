//! What a ValidateModule list may be about: the seven kinds of a module's memory, its file, its patch sites, and
//! its pages of thunks.
//!
//! Nothing that VTL0 says is trusted: what a part may have of ranges and bytes is bounded here.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE};
use litebox_platform_lvbs::heki::CheckedRange;
use litebox_platform_lvbs::owner::ModuleMemoryKind;
use litebox_platform_lvbs::vtl0::modules::MODULE_VALIDATION_MAX_SIZE;

use crate::objects::ObjectKind;

/// The most ranges of a list: a file of 64 MiB and as much memory, scattered page by page, and some.
const MAX_RANGES: u64 = 1 << 16;

/// What a range is part of (LVBS contract §5.1: Linux `enum mod_mem_type`, then two of HEKI's, then VTL1's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Memory(ModuleMemoryKind),
    File,
    Patches,
    Thunks,
}

impl Part {
    /// The kind of memory; none for what is no memory of the module.
    pub(super) fn memory(self) -> Option<ModuleMemoryKind> {
        if let Self::Memory(kind) = self { Some(kind) } else { None }
    }

    /// The frames of a part that is made of whole pages.
    pub(super) fn frames(self, range: &CheckedRange) -> Result<FrameRange, VsmError> {
        range.frames().map_err(|_| self.refuse(range.va(), "a module's memory must be made of whole pages"))
    }
}

impl ObjectKind for Part {
    const WHAT: &'static str = "part of a module";
    const MAX_RANGES: (u64, &'static str) = (MAX_RANGES, "a module's list must not have more than 65536 ranges");
    const ALL: &'static [Self] = &[
        Self::Memory(ModuleMemoryKind::Text),
        Self::Memory(ModuleMemoryKind::Data),
        Self::Memory(ModuleMemoryKind::RoData),
        Self::Memory(ModuleMemoryKind::RoAfterInit),
        Self::Memory(ModuleMemoryKind::InitText),
        Self::Memory(ModuleMemoryKind::InitData),
        Self::Memory(ModuleMemoryKind::InitRoData),
        Self::File,
        Self::Patches,
        Self::Thunks,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::File => "module file",
            Self::Patches => "module patch sites",
            Self::Thunks => "module thunk pages",
            Self::Memory(kind) => kind.name(),
        }
    }

    fn max_bytes(self) -> u64 {
        match self {
            // Some 80,000 sites. Few modules have a thousand; but VTL0 sends the sites of modules that were refused before
            // along with those of the next one (LVBS contract §11.5). And pages of 640 thunks for at most 262,144 sites.
            Self::Patches | Self::Thunks => 512 * PAGE_SIZE,
            _ => MODULE_VALIDATION_MAX_SIZE,
        }
    }

    fn may_have_gaps(self) -> bool {
        self == Self::Thunks
    }

    /// Each record of patch sites is allocated by itself (LVBS contract §11.5).
    fn is_pieces(self) -> bool {
        self == Self::Patches
    }
}
