//! Return to VTL0, and the next entry to VTL1.
//!
//! The VTLs of a processor share its general-purpose registers (but RSP), CR2, DR0 to DR3 and DR6, the vector
//! registers and XCR0; the hypervisor swaps the rest (TLFS "VTL state"). VTL0's driver relies on finding them
//! unchanged after a call (LVBS contract §3), and code that was interrupted relies on all of them. So:
//!
//! * general-purpose registers and CR2 are saved at entry and restored before return; RAX and RCX travel through the
//!   VP assist page, because the VTL return itself needs them;
//! * x87 and SSE registers go through FXSAVE and FXRSTOR, *not* XSAVE: what XSAVE covers depends on XCR0, which
//!   VTL0 may change at any time, and FXSAVE does not. The image is compiled without AVX, so that it never touches
//!   what FXSAVE leaves out (the upper halves of YMM, ZMM, opmasks, AMX);
//! * debug registers and XCR0 are never written by VTL1.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::vp::{GpRegisters, VpState, offset, page};
use crate::hv::{EntryReason, VpAssistPage};

/// Why VTL1 was entered (TLFS "VTL entry reason").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// VTL0 made a VTL call.
    Call,
    /// An interrupt or intercept for VTL1 arrived while VTL0 ran.
    Interrupt,
    /// A reason the TLFS does not define for us.
    Other(u32),
}

const RAX: usize = offset::gpr(offset_of!(GpRegisters, rax));
const RCX: usize = offset::gpr(offset_of!(GpRegisters, rcx));

/// Saves VTL0's shared registers to the processor's [`VpState`] and gives VTL1 an MXCSR of its own.
///
/// First thing to run after every VTL entry; changes RAX.
///
/// # Safety
/// GS and the stack are the calling processor's own, as VTL1 set them up.
// SAFETY: the body is all of the function: it changes RAX, MXCSR and the VP state only, and returns by itself.
#[unsafe(naked)]
pub unsafe extern "C" fn vtl1_save_vtl0_registers() {
    naked_asm!(
        "mov gs:[{rax}], rax",
        "mov gs:[{rax} + 8], rcx",
        "mov gs:[{rax} + 16], rdx",
        "mov gs:[{rax} + 24], rbx",
        "mov gs:[{rax} + 32], rbp",
        "mov gs:[{rax} + 40], rsi",
        "mov gs:[{rax} + 48], rdi",
        "mov gs:[{rax} + 56], r8",
        "mov gs:[{rax} + 64], r9",
        "mov gs:[{rax} + 72], r10",
        "mov gs:[{rax} + 80], r11",
        "mov gs:[{rax} + 88], r12",
        "mov gs:[{rax} + 96], r13",
        "mov gs:[{rax} + 104], r14",
        "mov gs:[{rax} + 112], r15",
        "mov rax, cr2",
        "mov gs:[{cr2}], rax",
        "fxsave64 gs:[{fx}]",
        "ldmxcsr gs:[{mxcsr}]",
        "ret",
        rax = const RAX,
        cr2 = const offset::CR2,
        fx = const offset::FX,
        mxcsr = const offset::MXCSR,
    );
}

/// Gives the shared registers back to VTL0, returns to it, and comes back at the next VTL entry.
///
/// # Safety
/// GS and the stack are the calling processor's own, and nothing of it is borrowed or locked across the call.
// SAFETY: the body is all of the function: it keeps what the C calling convention preserves, and returns by itself.
#[unsafe(naked)]
unsafe extern "C" fn switch() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        // A write of CR2 is slow on some hypervisors, and it rarely has changed.
        "mov rax, cr2",
        "mov rcx, gs:[{cr2}]",
        "cmp rax, rcx",
        "je 2f",
        "mov cr2, rcx",
        "2:",
        "fxrstor64 gs:[{fx}]",
        "mov rdx, gs:[{rax} + 16]",
        "mov rbx, gs:[{rax} + 24]",
        "mov rbp, gs:[{rax} + 32]",
        "mov rsi, gs:[{rax} + 40]",
        "mov rdi, gs:[{rax} + 48]",
        "mov r8, gs:[{rax} + 56]",
        "mov r9, gs:[{rax} + 64]",
        "mov r10, gs:[{rax} + 72]",
        "mov r11, gs:[{rax} + 80]",
        "mov r12, gs:[{rax} + 88]",
        "mov r13, gs:[{rax} + 96]",
        "mov r14, gs:[{rax} + 104]",
        "mov r15, gs:[{rax} + 112]",
        // A normal return: RAX and RCX come from the VP assist page (TLFS "VTL return").
        "xor ecx, ecx",
        "call gs:[{vtl_return}]",
        // VTL0 ran; this is the next entry.
        "call {save}",
        // A pending SynIC interrupt is taken here; its handler does nothing.
        "sti",
        "nop",
        "cli",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        rax = const RAX,
        cr2 = const offset::CR2,
        fx = const offset::FX,
        vtl_return = const offset::VTL_RETURN,
        save = sym vtl1_save_vtl0_registers,
    );
}

/// Returns to VTL0 with the registers in the calling processor's [`VpState`]; comes back at the next entry, with VTL0's
/// registers there and the reason of the entry.
///
/// No lock may be held: VTL0 decides when, and whether, this comes back.
pub fn return_to_vtl0(vp: &VpState) -> Entry {
    let assist = vp.page(page::ASSIST) as *mut VpAssistPage;
    let registers = vp.vtl0.get();
    // SAFETY: the assist page is mapped for the processor's lifetime and shared with the hypervisor only, which touches
    // it during the switch. `switch` keeps to the C ABI; the hypercall page was set up before the first switch
    // (`hyperv::initialise`).
    unsafe {
        (&raw mut (*assist).vtl_return_rax).write_volatile(registers.rax);
        (&raw mut (*assist).vtl_return_rcx).write_volatile(registers.rcx);
        switch();
        let entry = match (&raw const (*assist).entry_reason).read_volatile() {
            EntryReason::VTL_CALL => Entry::Call,
            EntryReason::INTERRUPT => Entry::Interrupt,
            EntryReason(other) => Entry::Other(other),
        };
        vp.in_call.set(entry == Entry::Call);
        entry
    }
}

const _: () = assert!(RCX == RAX + 8 && offset_of!(GpRegisters, r15) == 112);
