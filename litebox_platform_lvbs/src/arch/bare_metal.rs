//! The real machine behind the [`Hardware`] seam.

use alloc::boxed::Box;
use core::arch::x86_64::__cpuid;

use vsm_integrity::signature::CompressSha256;

use super::vp::{VpState, page};
use super::{heap, hypercall, hyperv, kernel, ring_memory, start, view_memory, vtl0_memory};
use crate::address::{FrameRange, PhysAddr};
use crate::error::VsmError;
use crate::hardware::{Hardware, HeapReserve, HypercallOutcome, MappedView, MemoryFault, ViewPiece};
use crate::hv::{HvStatus, HypercallControl, InitialVpContext};
use crate::logging::RingMemory;
use crate::sha_extensions;

/// Hypercalls, VTL0 memory and processor contexts of the machine the image runs on.
#[derive(Clone, Copy, Debug)]
pub struct BareMetal;

impl Hardware for BareMetal {
    fn hypercall(&self, control: HypercallControl, input: &[u8], output: &mut [u8]) -> HypercallOutcome {
        const PAGE: usize = 4096;
        if input.len() > PAGE || output.len() > PAGE {
            return HypercallOutcome { status: HvStatus::INVALID_HYPERCALL_INPUT, reps_done: 0 };
        }
        let vp = VpState::current();
        // SAFETY: both pages stay mapped, and only this function uses them, on this processor only. The only code that
        // may interrupt it and makes hypercalls is the panic path, which never returns. The lengths are checked. Boot
        // enabled the hypercall page before it handed out this object.
        let result = unsafe {
            core::ptr::copy_nonoverlapping(input.as_ptr(), vp.page(page::HYPERCALL_INPUT) as *mut u8, input.len());
            let result = hypercall::hypercall(control, vp.shared.input, vp.shared.output);
            core::ptr::copy_nonoverlapping(
                vp.page(page::HYPERCALL_OUTPUT) as *const u8,
                output.as_mut_ptr(),
                output.len(),
            );
            result
        };
        HypercallOutcome { status: result.status(), reps_done: result.reps_done() }
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        vtl0_memory::read(from, into)
    }

    fn write_vtl0(&self, to: PhysAddr, from: &[u8]) -> Result<(), MemoryFault> {
        vtl0_memory::write(to, from)
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        kernel::platform().processor(vp)?;
        start::ensure_area(vp)?;
        Ok(start::context(vp))
    }

    fn reference_time(&self) -> Option<u64> {
        hyperv::reference_time()
    }

    fn offers_virtualization(&self) -> bool {
        // Intel SDM vol. 2, CPUID leaf 1: ECX bit 5, VMX; AMD APM vol. 3, leaf 8000_0001h: ECX bit 2, SVM.
        __cpuid(1).ecx & 1 << 5 != 0 || __cpuid(0x8000_0001).ecx & 1 << 2 != 0
    }

    fn heap_reserve(&self) -> HeapReserve {
        heap::reserve()
    }

    fn sha256_compress(&self) -> Option<CompressSha256> {
        sha_extensions::sha256()
    }

    fn map_view(&self, pieces: &[ViewPiece<'_>]) -> Result<Box<dyn MappedView>, VsmError> {
        view_memory::map(pieces).map(|mapping| mapping as Box<dyn MappedView>)
    }

    fn map_ring(&self, frames: FrameRange) -> Result<Box<dyn RingMemory>, VsmError> {
        ring_memory::map(frames)
    }
}
