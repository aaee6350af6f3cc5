//! IDT, exception entries, and fix-ups for instructions that may fault.
//!
//! VTL1 runs with interrupts disabled but for one window after each VTL entry, in which the SynIC interrupt is
//! acknowledged by doing nothing (the message itself is polled). VTL1 asks for no other interrupt; one that comes all the
//! same is acknowledged, counted, logged with a limit, and ignored. An exception is either raised by an instruction of ours
//! that is allowed to fault and has a fix-up, or ends in a panic that says where.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use log::warn;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::kernel::platform_if_ready;
use super::vp::VpState;
use super::{hyperv, layout, segments};
use crate::logging::LogKind;

/// Vector of the SynIC interrupt (any value from 16 up; TLFS "SINT registers").
pub const SINT_VECTOR: u8 = 0xF3;

/// Written once by [`prepare`], read-only after the switch to the final tables.
// SAFETY: the linker script loads the section like other data; it is written before it becomes read-only.
#[unsafe(link_section = ".ro_after_init")]
static mut IDT: InterruptDescriptorTable = InterruptDescriptorTable::new();

/// NMIs seen; only counted, because the code that the NMI interrupted may hold the logger's lock.
pub static NMI_COUNT: AtomicU64 = AtomicU64::new(0);

// One 16-byte entry per vector. Vectors without an error code push a zero in its place, then the vector.
global_asm!(
    ".balign 16",
    "vtl1_exception_entries:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if !((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))",
    "pushq $0",
    ".endif",
    "pushq $vector",
    "jmp vtl1_exception_common",
    ".set vector, vector + 1",
    ".endr",
    options(att_syntax),
);

// XMM registers are saved too: the faulting instruction's surroundings did not expect a call.
global_asm!(
    "vtl1_exception_common:",
    "cld",
    "push rax", "push rcx", "push rdx", "push rbx", "push rbp", "push rsi", "push rdi",
    "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "sub rsp, 512",
    "and rsp, -16",
    "fxsave64 [rsp]",
    "call {handler}",
    "fxrstor64 [rsp]",
    "mov rsp, rbx",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
    "pop rdi", "pop rsi", "pop rbp", "pop rbx", "pop rdx", "pop rcx", "pop rax",
    "add rsp, 16",
    "iretq",
    // The SynIC interrupt is auto-EOI: nothing to do.
    ".balign 16",
    "vtl1_sint_entry:",
    "iretq",
    handler = sym vtl1_exception,
);

// SAFETY: both symbols are defined by the assembly above, with these sizes; only their addresses are used.
unsafe extern "C" {
    static vtl1_exception_entries: [[u8; 16]; 256];
    static vtl1_sint_entry: u8;
}

/// What the entry code leaves on the stack.
#[repr(C)]
#[derive(Debug)]
struct ExceptionFrame {
    gprs: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const VECTOR_NMI: u64 = 2;
const VECTOR_GP: u64 = 13;
const VECTOR_PF: u64 = 14;
/// The first vector that is no exception (Intel SDM vol. 3 §6.2).
const FIRST_INTERRUPT: u8 = 32;

extern "C" fn vtl1_exception(frame: &mut ExceptionFrame) {
    match frame.vector {
        VECTOR_NMI => {
            NMI_COUNT.fetch_add(1, Ordering::Relaxed);
            return;
        }
        VECTOR_GP | VECTOR_PF => {
            if let Some(fixup) = fixup_of(frame.rip) {
                frame.rip = fixup;
                return;
            }
        }
        vector if vector >= u64::from(FIRST_INTERRUPT) => return unexpected_interrupt(vector),
        _ => {}
    }
    panic!(
        "exception {} ({}) in VTL1: error {:#x} rip {:#x} rsp {:#x} cr2 {:#x} rflags {:#x}",
        frame.vector,
        name(frame.vector),
        frame.error,
        frame.rip,
        frame.rsp,
        Cr2::read_raw(),
        frame.rflags
    );
}

/// Ignores an interrupt that VTL1 did not ask for. It can only have come in the window after a VTL entry, where the processor
/// holds no lock, so that it may be logged here.
fn unexpected_interrupt(vector: u64) {
    // Of the same or a higher priority than the SynIC's it would keep that one away.
    hyperv::end_of_interrupt();
    let vp = VpState::current().index;
    if let Some(platform) = platform_if_ready()
        && let Some(logged) = platform.count_event(vp, LogKind::OddInterrupt)
    {
        warn!("VP {vp}: an interrupt with vector {vector:#x}, which VTL1 did not ask for, is ignored{logged}");
    }
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XM",
        20 => "#VE",
        21 => "#CP",
        _ => "reserved",
    }
}

/// An entry of the exception table: each field is an offset from its own address.
#[repr(C)]
struct Fixup {
    fault: i32,
    resume: i32,
}

/// Where to continue when the instruction at `rip` faults.
fn fixup_of(rip: u64) -> Option<u64> {
    let mut at = layout::ex_table_start();
    while at < layout::ex_table_end() {
        let entry = at as *const Fixup;
        // SAFETY: the linker script's symbols delimit an array of these entries in constant memory.
        let (fault, resume) = unsafe { ((*entry).fault, (*entry).resume) };
        if at.wrapping_add_signed(i64::from(fault)) == rip {
            return Some((at + 4).wrapping_add_signed(i64::from(resume)));
        }
        at += size_of::<Fixup>() as u64;
    }
    None
}

/// Copies `len` bytes, stopping at the first one that faults.
///
/// # Errors
/// The number of bytes that were not copied, when an access raised #PF or #GP.
///
/// # Safety
/// The memory mapped at `to..to + len` may be overwritten, and nothing in Rust's view of memory depends on what is
/// mapped at `from..from + len`. Both may be unmapped.
pub unsafe fn copy_fallible(to: *mut u8, from: *const u8, len: usize) -> Result<(), usize> {
    let (mut words, mut bytes) = (len / 8, len % 8);
    // SAFETY: string moves with the direction flag clear (ABI); a fault resumes with the counts left over.
    unsafe {
        asm!(
            "2: rep movsq",
            "mov rcx, {bytes}",
            "xor {bytes:e}, {bytes:e}",
            "3: rep movsb",
            "jmp 6f",
            "5: mov {bytes}, rcx",
            "xor ecx, ecx",
            "6:",
            ".pushsection .ex_table, \"a\", @progbits",
            ".balign 4",
            ".long 2b - .", ".long 6b - .",
            ".long 3b - .", ".long 5b - .",
            ".popsection",
            bytes = inout(reg) bytes,
            inout("rcx") words,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack),
        );
    }
    match words * 8 + bytes {
        0 => Ok(()),
        left => Err(left),
    }
}

/// Fills the IDT. Called once by boot, while the constants are still writable.
pub fn prepare() {
    // SAFETY: boot is single-threaded and no reference to the IDT exists yet.
    let idt = unsafe { (&raw mut IDT).as_mut_unchecked() };
    let entry =
        |vector: usize| VirtAddr::new_truncate(((&raw const vtl1_exception_entries) as u64) + vector as u64 * 16);
    // SAFETY: the entries are code that ends in IRETQ with the frame each vector pushes; the stacks are set in every TSS.
    unsafe {
        idt.divide_error.set_handler_addr(entry(0));
        idt.debug.set_handler_addr(entry(1));
        idt.non_maskable_interrupt.set_handler_addr(entry(2)).set_stack_index(segments::IST_NMI);
        idt.breakpoint.set_handler_addr(entry(3));
        idt.overflow.set_handler_addr(entry(4));
        idt.bound_range_exceeded.set_handler_addr(entry(5));
        idt.invalid_opcode.set_handler_addr(entry(6));
        idt.device_not_available.set_handler_addr(entry(7));
        idt.double_fault.set_handler_addr(entry(8)).set_stack_index(segments::IST_DOUBLE_FAULT);
        idt.invalid_tss.set_handler_addr(entry(10));
        idt.segment_not_present.set_handler_addr(entry(11));
        idt.stack_segment_fault.set_handler_addr(entry(12));
        idt.general_protection_fault.set_handler_addr(entry(13));
        idt.page_fault.set_handler_addr(entry(14)).set_stack_index(segments::IST_PAGE_FAULT);
        idt.x87_floating_point.set_handler_addr(entry(16));
        idt.alignment_check.set_handler_addr(entry(17));
        idt.machine_check.set_handler_addr(entry(18)).set_stack_index(segments::IST_MACHINE_CHECK);
        idt.simd_floating_point.set_handler_addr(entry(19));
        idt.virtualization.set_handler_addr(entry(20));
        idt.cp_protection_exception.set_handler_addr(entry(21));
        for (vector, gate) in (usize::from(FIRST_INTERRUPT)..).zip(idt.slice_mut(FIRST_INTERRUPT..)) {
            gate.set_handler_addr(entry(vector));
        }
        idt[SINT_VECTOR].set_handler_addr(VirtAddr::new_truncate((&raw const vtl1_sint_entry) as u64));
    }
}

/// Loads the IDT on the calling processor.
pub fn load() {
    // SAFETY: filled by `prepare`, never changed afterwards.
    unsafe { (&raw const IDT).as_ref_unchecked().load_unsafe() };
}

/// Address and limit of the IDT, for a processor's initial context.
#[must_use]
pub fn idt_location() -> (u64, u16) {
    // 256 gates of 16 bytes (Intel SDM vol. 3 §6.14.1).
    const LIMIT: u16 = 256 * 16 - 1;
    const _: () = assert!(size_of::<InterruptDescriptorTable>() == LIMIT as usize + 1);
    ((&raw const IDT) as u64, LIMIT)
}
