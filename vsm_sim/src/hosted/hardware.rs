//! The platform's `Hardware` over the hypervisor model.
//!
//! The calling processor is the one whose VSM call the current thread serves; see [`as_vp`].

use std::cell::Cell;
use std::sync::Arc;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::{FrameRange, PhysAddr};
use litebox_platform_lvbs::hardware::{Hardware, HypercallOutcome, MappedView, MemoryFault, ViewPiece};
use litebox_platform_lvbs::hv::{
    HvStatus, HypercallControl, InitialVpContext, MapFlags, SegmentRegister, TableRegister, Vtl, msr,
};
use litebox_platform_lvbs::logging::RingMemory;
use litebox_platform_lvbs::sha_extensions;
use vsm_integrity::signature::CompressSha256;

use super::fetches;
use super::memory::{HostedMemory, RacePoint};
use super::ring::RingPlace;
use super::view::ViewPlace;
use crate::hv::{GuestMemory, Partition};

const PAGE: u64 = 4096;
/// Pages VTL1 has for each processor: hypercall input and output, VP assist page, message page.
pub(super) const PAGES_PER_VP: u64 = 4;

thread_local! {
    /// The processor the thread plays.
    static CURRENT_VP: Cell<u32> = const { Cell::new(0) };
}

/// Runs `work` as processor `vp`.
pub fn as_vp<R>(vp: u32, work: impl FnOnce() -> R) -> R {
    let before = CURRENT_VP.replace(vp);
    let result = work();
    CURRENT_VP.set(before);
    result
}

/// Where VTL1 keeps a page for each processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vtl1Layout {
    pub(super) region: FrameRange,
}

impl Vtl1Layout {
    fn page(self, vp: u32, index: u64) -> u64 {
        // After the first page, which holds the hypercall page.
        (self.region.start() + 1 + u64::from(vp) * PAGES_PER_VP + index) * PAGE
    }

    /// VTL1's hypercall page.
    pub(super) fn hypercall_page(self) -> u64 {
        self.region.start() * PAGE
    }

    fn hypercall_input(self, vp: u32) -> u64 {
        self.page(vp, 0)
    }

    fn hypercall_output(self, vp: u32) -> u64 {
        self.page(vp, 1)
    }

    /// The processor's VP assist page.
    pub(super) fn assist_page(self, vp: u32) -> u64 {
        self.page(vp, 2)
    }

    /// The processor's message page.
    pub(super) fn message_page(self, vp: u32) -> u64 {
        self.page(vp, 3)
    }

    /// Frames used, for `vps` processors.
    pub(super) fn frames(vps: u32) -> u64 {
        1 + u64::from(vps) * PAGES_PER_VP
    }
}

/// The machine under a hosted VTL1. The memory refuses what crosses a page, as the seam demands.
pub struct HostedHardware {
    pub(super) memory: Arc<HostedMemory>,
    pub(super) partition: Arc<Partition>,
    pub(super) layout: Vtl1Layout,
    pub(super) ring: Arc<RingPlace>,
    pub(super) views: Arc<ViewPlace>,
}

impl Hardware for HostedHardware {
    fn hypercall(&self, control: HypercallControl, input: &[u8], output: &mut [u8]) -> HypercallOutcome {
        let vp = CURRENT_VP.get();
        let (from, to) = (self.layout.hypercall_input(vp), self.layout.hypercall_output(vp));
        // The seam's rule: input and output are at most a page each.
        if self.memory.write(from, input).is_err() || output.len() > 4096 {
            return HypercallOutcome { status: HvStatus::INVALID_ALIGNMENT, reps_done: 0 };
        }
        let result = self.partition.hypercall(vp, Vtl::Vtl1, control.raw(), from, to, &*self.memory);
        if self.memory.read(to, output).is_err() {
            return HypercallOutcome { status: HvStatus::INVALID_ALIGNMENT, reps_done: 0 };
        }
        self.memory.race_at(RacePoint::AfterHypercall(control.code().0));
        HypercallOutcome { status: result.status(), reps_done: result.reps_done() }
    }

    fn reference_time(&self) -> Option<u64> {
        self.partition.msr_read(CURRENT_VP.get(), Vtl::Vtl1, msr::TIME_REF_COUNT).ok()
    }

    fn offers_virtualization(&self) -> bool {
        self.partition.offers_virtualization()
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let (gpa, len) = (from.as_u64(), into.len());
        fetches::check_is_vtl0s(gpa, self.layout.region);
        self.memory.race_at(RacePoint::BeforeRead { gpa, len });
        if self.memory.faults() {
            return Err(MemoryFault(from));
        }
        self.memory.read(gpa, into).map_err(|_| MemoryFault(from))?;
        self.memory.note_fetch(gpa, len);
        fetches::note(gpa, len, self.partition.protection(gpa >> 12).contains(MapFlags::WRITE));
        self.memory.race_at(RacePoint::AfterRead { gpa, len });
        Ok(())
    }

    fn write_vtl0(&self, to: PhysAddr, from: &[u8]) -> Result<(), MemoryFault> {
        let gpa = to.as_u64();
        fetches::check_is_vtl0s(gpa, self.layout.region);
        self.memory.race_at(RacePoint::BeforeWrite { gpa, len: from.len() });
        if self.memory.faults() {
            return Err(MemoryFault(to));
        }
        self.memory.write(gpa, from).map_err(|_| MemoryFault(to))
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        if vp >= self.partition.config().vps {
            return Err(VsmError::NoSuchProcessor(vp));
        }
        Ok(context(self.layout.region.start() * PAGE, vp))
    }

    fn sha256_compress(&self) -> Option<CompressSha256> {
        sha_extensions::sha256()
    }

    fn map_view(&self, pieces: &[ViewPiece<'_>]) -> Result<Box<dyn MappedView>, VsmError> {
        self.views.map(pieces, &self.memory, &self.partition)
    }

    fn map_ring(&self, frames: FrameRange) -> Result<Box<dyn RingMemory>, VsmError> {
        self.ring.map(frames, &self.memory)
    }
}

/// A context a processor could start VTL1 with, in long mode (LVBS contract §2.5).
pub(super) fn context(base: u64, vp: u32) -> InitialVpContext {
    let data = SegmentRegister { selector: 0x10, attributes: 0xc093, ..SegmentRegister::default() };
    InitialVpContext {
        rip: base + 0x20_0000,
        rsp: base + 0xe000 + u64::from(vp),
        rflags: 2,
        cs: SegmentRegister { selector: 8, attributes: 0xa09b, ..SegmentRegister::default() },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        tr: SegmentRegister { base: base + PAGE, limit: 103, selector: 0x18, attributes: 0x8b },
        gdtr: TableRegister { limit: 39, base, ..TableRegister::default() },
        efer: 0xd01,
        cr0: 0x8001_0033,
        cr3: base + 2 * PAGE,
        cr4: 0xb0,
        pat: 0x0007_0406_0007_0406,
        ..InitialVpContext::default()
    }
}
