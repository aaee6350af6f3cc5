//! The machine under VTL1 when it is the real one.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid;

use spin::Once;
use vsm_integrity::signature::CompressSha256;
use x86_64::registers::control::{Cr0, Cr4, Efer};
use x86_64::registers::model_specific::Msr;

use super::exceptions::idt_location;
use super::vp::{self, VpState, page};
use super::{heap, hypercall, hyperv, paging, ring_memory, segments, view_memory, vtl_switch, vtl0_memory};
use crate::address::{FrameRange, PhysAddr};
use crate::error::VsmError;
use crate::hardware::{Hardware, HypercallOutcome, MemoryFault};
use crate::hardware::{MappedView, ViewPiece};
use crate::hv::{HvStatus, HypercallControl, InitialVpContext, SegmentRegister, TableRegister};
use crate::logging::RingMemory;
use crate::platform::Platform;
use crate::sha_extensions;
use crate::sync::Mutex;

static PLATFORM: Once<Platform> = Once::new();

/// The image's one kernel.
///
/// # Panics
/// When boot has not put it together yet.
pub fn platform() -> &'static Platform {
    PLATFORM.get().expect("the platform is set up before anything asks for it")
}

/// The image's one kernel, if boot has put it together: for the log, which is there before.
pub(super) fn platform_if_ready() -> Option<&'static Platform> {
    PLATFORM.get()
}

/// Makes `platform` the image's kernel. Called once, by boot.
pub fn set_platform(platform: Platform) -> &'static Platform {
    PLATFORM.call_once(|| platform)
}

/// Processors whose area exists.
static AREAS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Makes `vp`'s area unless it exists.
///
/// # Errors
/// [`VsmError::OutOfMemory`].
pub fn ensure_area(vp: u32) -> Result<(), VsmError> {
    let mut areas = AREAS.lock();
    if !areas.contains(&vp) {
        areas.try_reserve(1).map_err(|_| VsmError::OutOfMemory("the list of processors"))?;
        vp::create_area(vp)?;
        segments::prepare(vp);
        areas.push(vp);
    }
    Ok(())
}

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
        // SAFETY: both pages are mapped for the processor's lifetime, used by nobody but this function on this
        // processor. What may interrupt it and makes hypercalls is the panic path alone, which never comes back; the
        // lengths are checked. The
        // hypercall page was enabled by boot before this object was handed out.
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
        platform().processor(vp)?;
        ensure_area(vp)?;
        Ok(context(vp))
    }

    fn reference_time(&self) -> Option<u64> {
        hyperv::reference_time()
    }

    fn offers_virtualization(&self) -> bool {
        // Intel SDM vol. 2, CPUID leaf 1: ECX bit 5, VMX; AMD APM vol. 3, leaf 8000_0001h: ECX bit 2, SVM.
        __cpuid(1).ecx & 1 << 5 != 0 || __cpuid(0x8000_0001).ecx & 1 << 2 != 0
    }

    fn hold_heap_reserve(&self, hold: bool) {
        heap::hold_reserve(hold);
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

/// Entry point of a processor that starts VTL1 with [`context`]: GS and the stack are its own from the first
/// instruction on.
///
/// # Safety
/// Only as the first code of a processor that starts with [`context`]; it never returns.
// SAFETY: the body is all of the function: it needs no prologue, and never returns.
#[unsafe(naked)]
unsafe extern "C" fn application_processor_entry() {
    core::arch::naked_asm!(
        "call {save}",
        "xor ebp, ebp",
        "call vtl1_application_processor_main",
        "ud2",
        save = sym vtl_switch::vtl1_save_vtl0_registers,
    );
}

/// What `vp` starts VTL1 with: VTL1's final tables and control registers, and the processor's own stack and segments.
fn context(vp: u32) -> InitialVpContext {
    // Attributes as the AR bytes of a descriptor (Intel SDM vol. 3 §3.4.5).
    let flat = |selector, attributes, base| SegmentRegister { base, limit: 0xffff_ffff, selector, attributes };
    let data = flat(segments::DATA, 0xC093, 0);
    let tables = segments::locate(vp);
    let (idt, idt_limit) = idt_location();
    InitialVpContext {
        rip: application_processor_entry as *const () as u64,
        rsp: vp::stack_top(vp),
        rflags: 0x2,
        cs: flat(segments::CODE, 0xA09B, 0),
        ds: data,
        es: data,
        fs: data,
        gs: flat(segments::DATA, 0xC093, vp::area_page(vp, page::STATE)),
        ss: data,
        tr: SegmentRegister { base: tables.tss, limit: 103, selector: segments::TSS, attributes: 0x008B },
        ldtr: SegmentRegister::default(),
        idtr: TableRegister { pad: [0; 3], limit: idt_limit, base: idt },
        gdtr: TableRegister { pad: [0; 3], limit: tables.gdt_limit, base: tables.gdt },
        efer: Efer::read_raw(),
        cr0: Cr0::read_raw(),
        cr3: paging::top_table(),
        cr4: Cr4::read_raw(),
        pat: pat(),
    }
}

fn pat() -> u64 {
    // SAFETY: reading IA32_PAT has no effect; every x86-64 processor has it.
    unsafe { Msr::new(crate::hv::msr::PAT).read() }
}
