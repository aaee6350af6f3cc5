//! A hypervisor that does everything it is asked for at once and counts how often, over a VTL0 memory that holds nothing
//! but a HEKI list.
//!
//! It keeps no protections, because the benchmarks are about VTL1's code. What is trusted: VTL1 names frames and sizes
//! correctly, which the tests check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::hardware::{Hardware, HypercallOutcome, MemoryFault};
use litebox_platform_lvbs::hv::{HvStatus, HypercallControl, InitialVpContext};
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::{Platform, VsmError};
use vsm_sim::vtl0::lists::Range;
use zerocopy::IntoBytes;

/// Where the list lies: beyond everything it protects.
pub const LIST: u64 = 1 << 40;
const RANGES_PER_PAGE: usize = 127;

/// The hypervisor; clones share the list and the count.
#[derive(Clone, Default)]
pub struct Counting {
    pages: Arc<Vec<[u8; 4096]>>,
    hypercalls: Arc<AtomicU64>,
}

impl Counting {
    /// A VTL0 with `ranges` as a list at [`LIST`].
    pub fn with_list(ranges: &[Range]) -> Self {
        let chunks = ranges.chunks(RANGES_PER_PAGE);
        let last = chunks.len() - 1;
        let page = |(index, chunk): (usize, &[Range])| {
            let next = if index < last { LIST + (index as u64 + 1) * PAGE_SIZE } else { 0 };
            let mut words = [0; 512];
            words[1] = next;
            words[2] = chunk.len() as u64;
            for (place, range) in words[3..].chunks_exact_mut(4).zip(chunk) {
                place.copy_from_slice(&[range.va, range.pa, range.epa, range.attributes]);
            }
            let mut page = [0; 4096];
            page.copy_from_slice(words.as_bytes());
            page
        };
        Self { pages: Arc::new(chunks.enumerate().map(page).collect()), hypercalls: Arc::default() }
    }

    /// Hypercalls so far.
    pub fn hypercalls(&self) -> u64 {
        self.hypercalls.load(Ordering::Relaxed)
    }

    /// A kernel on this machine, whose VTL1 is the second MiB.
    pub fn kernel(&self) -> Platform {
        let vtl1_region = FrameRange::from_gfns(0x100, 0x200).expect("the range ascends");
        let config = PlatformConfig { vtl1_region, possible_cpus: 2, boot_vp: 0, loader: Generation::G2 };
        Platform::new(Box::new(self.clone()), config).expect("the heap of a host holds a kernel's state")
    }
}

impl Hardware for Counting {
    fn hypercall(&self, control: HypercallControl, _: &[u8], _: &mut [u8]) -> HypercallOutcome {
        self.hypercalls.fetch_add(1, Ordering::Relaxed);
        // The rep count of the control word, 12 bits.
        HypercallOutcome { status: HvStatus::SUCCESS, reps_done: (control.raw() >> 32 & 0xfff) as u16 }
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let index = from.as_u64().checked_sub(LIST).map(|offset| offset / PAGE_SIZE);
        let page = index.and_then(|index| self.pages.get(usize::try_from(index).ok()?));
        let offset = usize::try_from(from.page_offset()).map_err(|_| MemoryFault(from))?;
        let bytes = page.and_then(|page| page.get(offset..)?.get(..into.len())).ok_or(MemoryFault(from))?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn write_vtl0(&self, to: PhysAddr, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(to))
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        Err(VsmError::NoSuchProcessor(vp))
    }
}
