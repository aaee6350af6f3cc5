//! VTL0's frozen memory, as VTL1 sees it in place: on a host, a copy made when it is mapped.
//!
//! The registry allows views of frames only that VTL0 cannot write, which is asked of the model once more; so a copy
//! cannot be told from the memory. Tests can make mappings fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::Gfn;
use litebox_platform_lvbs::hardware::{MappedView, ViewPiece};
use litebox_platform_lvbs::hv::MapFlags;

use super::memory::HostedMemory;
use crate::hv::{GuestMemory, Partition};

/// How many mappings may still succeed.
#[derive(Debug)]
pub struct ViewPlace {
    left: AtomicU64,
}

impl Default for ViewPlace {
    fn default() -> Self {
        Self { left: AtomicU64::new(u64::MAX) }
    }
}

impl ViewPlace {
    /// Lets the next `count` mappings succeed and those after them fail.
    pub fn fail_after(&self, count: u64) {
        self.left.store(count, Ordering::Relaxed);
    }

    /// # Panics
    /// When VTL0 can write a frame: nothing in it may be looked at in place.
    pub(super) fn map(
        &self,
        pieces: &[ViewPiece<'_>],
        memory: &Arc<HostedMemory>,
        partition: &Partition,
    ) -> Result<Box<dyn MappedView>, VsmError> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(VsmError::OutOfMemory("a view"));
        }
        self.left.store(left - u64::from(left != u64::MAX), Ordering::Relaxed);
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                ViewPiece::Copied(page) => bytes.extend_from_slice(&page.0),
                ViewPiece::Frozen(frames) => {
                    for gfn in frames.start()..frames.end() {
                        let rights = partition.protection(gfn);
                        assert!(!rights.contains(MapFlags::WRITE), "frame {gfn:#x} is looked at and not frozen");
                        let mut page = [0; 4096];
                        let fault = VsmError::Vtl0MemoryFault(Gfn::new(gfn)?.start());
                        memory.read(gfn << 12, &mut page).map_err(|_| fault)?;
                        bytes.extend_from_slice(&page);
                    }
                }
            }
        }
        Ok(Box::new(View(bytes)))
    }
}

struct View(Vec<u8>);

impl MappedView for View {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}
