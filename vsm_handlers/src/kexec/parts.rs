//! What a KexecValidate list may be about: Linux's description of an image, the kernel's file, and pages.
//!
//! Nothing that VTL0 says is trusted: what a part may have of ranges and bytes is bounded here.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE};
use vsm_integrity::kexec::kimage;

use crate::objects::{ObjectKind, Objects};

/// The most ranges of a list: an image of 256 MiB in scattered pages.
const MAX_RANGES: u64 = 1 << 16;
/// The most bytes of a kernel's file. Distributions' have 8 to 16 MiB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What a range is part of (LVBS contract §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `struct kimage`, in a page of its own.
    Description,
    /// The kernel's file, as it was read.
    Kernel,
    /// Pages that the image is made of, and those that VTL0 needs to start it.
    Pages,
}

impl ObjectKind for Part {
    const WHAT: &'static str = "part of a kexec image";
    const MAX_RANGES: (u64, &'static str) = (MAX_RANGES, "a kexec image's list must not have more than 65536 ranges");
    const ALL: &'static [Self] = &[Self::Description, Self::Kernel, Self::Pages];

    fn name(self) -> &'static str {
        match self {
            Self::Description => "kexec image",
            Self::Kernel => "kexec kernel",
            Self::Pages => "kexec pages",
        }
    }

    fn max_bytes(self) -> u64 {
        match self {
            Self::Description => PAGE_SIZE,
            Self::Kernel => MAX_FILE_BYTES,
            // With what links them and what starts the image.
            Self::Pages => kimage::MAX_BYTES + (4 << 20),
        }
    }

    fn is_page_set(self) -> bool {
        self == Self::Pages
    }
}

/// The page that the description is in, and how many bytes of it are the description.
pub(super) fn description(objects: &Objects<Part>) -> Result<(FrameRange, usize), VsmError> {
    let refuse = |at, rule| Part::Description.refuse(at, rule);
    let mut ranges = objects.ranges(Part::Description);
    let range = ranges.next().ok_or(refuse(0, "the description of the image must be on the list"))?;
    if ranges.next().is_some() || !range.start().is_multiple_of(PAGE_SIZE) || range.byte_count() > PAGE_SIZE {
        return Err(refuse(range.va(), "the description of the image must have a page of its own"));
    }
    let frames = FrameRange::from_bytes(range.start(), range.start() + PAGE_SIZE)?;
    let size = usize::try_from(range.byte_count()).map_err(|_| refuse(range.va(), "longer than memory"))?;
    Ok((frames, size))
}
