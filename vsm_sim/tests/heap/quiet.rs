//! A machine that allocates nothing that counts while VTL1 works.

use std::sync::Arc;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::hardware::{Hardware, HeapReserve, HypercallOutcome, MappedView, MemoryFault, ViewPiece};
use litebox_platform_lvbs::hv::{HvStatus, HypercallControl, InitialVpContext};
use vsm_sim::hosted::HostedMemory;
use vsm_sim::hv::GuestMemory;

use crate::counting;

/// Memory, and a hypervisor that agrees to everything.
pub struct Quiet(pub Arc<HostedMemory>);

impl Hardware for Quiet {
    fn hypercall(&self, control: HypercallControl, _: &[u8], _: &mut [u8]) -> HypercallOutcome {
        let reps = u16::try_from(control.raw() >> 32 & 0xfff).unwrap();
        HypercallOutcome { status: HvStatus::SUCCESS, reps_done: reps }
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        counting::apart(0, || self.0.read(from.as_u64(), into)).map_err(|_| MemoryFault(from))
    }

    fn write_vtl0(&self, to: PhysAddr, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(to))
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        Err(VsmError::NoSuchProcessor(vp))
    }

    fn heap_reserve(&self) -> HeapReserve {
        counting::spare(true);
        HeapReserve::new(|| counting::spare(false))
    }

    fn map_view(&self, pieces: &[ViewPiece<'_>]) -> Result<Box<dyn MappedView>, VsmError> {
        // In VTL1 it is mapped where it lies; only what says where is on the heap, and counts.
        Ok(counting::apart(size_of::<View>(), || {
            let mut bytes = Vec::new();
            for piece in pieces {
                match piece {
                    ViewPiece::Copied(page) => bytes.extend_from_slice(&page.0),
                    ViewPiece::Frozen(frames) => {
                        for gfn in frames.start()..frames.end() {
                            let mut page = [0; 4096];
                            self.0.read(gfn << 12, &mut page).unwrap();
                            bytes.extend_from_slice(&page);
                        }
                    }
                }
            }
            let view: Box<dyn MappedView> = Box::new(View(bytes));
            view
        }))
    }
}

struct View(Vec<u8>);

impl MappedView for View {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for View {
    fn drop(&mut self) {
        counting::apart(0, || self.0 = Vec::new());
    }
}
