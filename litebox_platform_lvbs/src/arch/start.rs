//! How a processor starts VTL1: its area, and the context with which the hypervisor lets it enter.

use alloc::vec::Vec;

use x86_64::registers::control::{Cr0, Cr4, Efer};
use x86_64::registers::model_specific::Msr;

use super::exceptions::idt_location;
use super::vp::{self, page};
use super::{paging, segments, vtl_switch};
use crate::error::VsmError;
use crate::hv::{InitialVpContext, SegmentRegister, TableRegister};
use crate::sync::Mutex;

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
pub(super) fn context(vp: u32) -> InitialVpContext {
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
