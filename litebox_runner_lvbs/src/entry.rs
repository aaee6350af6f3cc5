//! The first instructions of the image.
//!
//! The boot processor arrives at `_start` with the loader's identity map of the region's first 16 MiB (LVBS contract
//! §2.3, §2.5): no IDT, SSE disabled, an odd stack pointer, and VTL0's registers, which its loader wants back. The code
//! runs at its physical address, uses no absolute address before it has relocated the image, and leaves for the high
//! address with page tables of its own, because the loader's may hold garbage next to the entries it wrote.

use core::arch::global_asm;

use litebox_platform_lvbs::arch::layout::VTL1_BASE;
use litebox_platform_lvbs::arch::vp::GpRegisters;
use litebox_platform_lvbs::loader::EntryRegisters;

/// VTL0's registers at the first entry, as `_start` stores them.
#[repr(C, align(16))]
pub struct EntryState {
    /// General-purpose registers.
    pub registers: GpRegisters,
    /// CR2.
    pub cr2: u64,
    /// x87 and SSE state.
    pub fx: [u8; 512],
}

impl EntryState {
    /// The registers the loaders pass arguments in.
    pub fn arguments(&self) -> EntryRegisters {
        EntryRegisters {
            rdi: self.registers.rdi,
            rsi: self.registers.rsi,
            rdx: self.registers.rdx,
            r8: self.registers.r8,
        }
    }
}

const _: () = assert!(core::mem::offset_of!(EntryState, cr2) == 120);
const _: () = assert!(core::mem::offset_of!(EntryState, fx) == 128);

// The index of VTL1_BASE in the page directory pointer table, and that its page directory starts at its first entry.
const _: () = assert!(VTL1_BASE >> 39 & 511 == 511 && VTL1_BASE >> 30 & 511 == 510 && VTL1_BASE.trailing_zeros() >= 30);

global_asm!(
    ".section .text.entry, \"ax\", @progbits",
    ".globl _start",
    "_start:",
    "cli",
    "cld",
    // VTL0's registers, in the order of GpRegisters.
    "mov [rip + boot_entry_state], rax",
    "mov [rip + boot_entry_state + 8], rcx",
    "mov [rip + boot_entry_state + 16], rdx",
    "mov [rip + boot_entry_state + 24], rbx",
    "mov [rip + boot_entry_state + 32], rbp",
    "mov [rip + boot_entry_state + 40], rsi",
    "mov [rip + boot_entry_state + 48], rdi",
    "mov [rip + boot_entry_state + 56], r8",
    "mov [rip + boot_entry_state + 64], r9",
    "mov [rip + boot_entry_state + 72], r10",
    "mov [rip + boot_entry_state + 80], r11",
    "mov [rip + boot_entry_state + 88], r12",
    "mov [rip + boot_entry_state + 96], r13",
    "mov [rip + boot_entry_state + 104], r14",
    "mov [rip + boot_entry_state + 112], r15",
    "mov rax, cr2",
    "mov [rip + boot_entry_state + 120], rax",
    // SSE: CR4.OSFXSR | OSXMMEXCPT, CR0.MP set, CR0.EM and TS clear.
    "mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    "mov rax, cr0",
    "and rax, -13",
    "or rax, 2",
    "mov cr0, rax",
    "fxsave64 [rip + boot_entry_state + 128]",
    "ldmxcsr [rip + boot_mxcsr]",
    // RBX: the region's first byte. Link addresses are offsets from it.
    "lea rbx, [rip + __image_start]",
    "sub rbx, 0x200000",
    // Relocation, to the high address: every entry is R_X86_64_RELATIVE (8), which `xtask verify-elf` proves.
    "lea rsi, [rip + __rela_start]",
    "lea rdx, [rip + __rela_end]",
    "2:",
    "cmp rsi, rdx",
    "jae 3f",
    "mov rdi, [rsi]",
    "mov rax, [rsi + 16]",
    "add rax, {base}",
    "cmp dword ptr [rsi + 8], 8",
    "jne 9f",
    "mov [rbx + rdi], rax",
    "add rsi, 24",
    "jmp 2b",
    "3:",
    // Page tables: the loader's identity entry for where we are, and the first 16 MiB at the high address.
    "lea rdi, [rip + boot_pml4]",
    "mov rax, cr3",
    "and rax, -4096",
    "mov rcx, rbx",
    "shr rcx, 39",
    "and ecx, 511",
    "mov rax, [rax + rcx * 8]",
    "mov [rdi + rcx * 8], rax",
    "lea rax, [rip + boot_pdpt]",
    "or rax, 3",
    "mov [rdi + 511 * 8], rax",
    "lea rax, [rip + boot_pd]",
    "or rax, 3",
    "mov [rip + boot_pdpt + 510 * 8], rax",
    "lea rdx, [rip + boot_pd]",
    "lea rax, [rbx + 0x83]",
    "mov ecx, 8",
    "4:",
    "mov [rdx], rax",
    "add rdx, 8",
    "add rax, 0x200000",
    "dec ecx",
    "jnz 4b",
    "mov cr3, rdi",
    // To the high address.
    "lea rax, [rip + 5f]",
    "sub rax, rbx",
    "add rax, {base}",
    "jmp rax",
    "5:",
    "lea rsp, [rip + boot_stack_top]",
    "xor ebp, ebp",
    "lea rdi, [rip + boot_entry_state]",
    "mov rsi, rbx",
    "call {boot}",
    "ud2",
    // A relocation we cannot apply: nothing of Rust can run, so say it on COM2 from here.
    "9:",
    "lea rsi, [rip + boot_bad_relocation]",
    "mov edx, 0x2f8",
    "6:",
    "lodsb",
    "test al, al",
    "jz 7f",
    "out dx, al",
    "jmp 6b",
    "7:",
    "cli",
    "hlt",
    "jmp 7b",
    ".section .rodata.boot, \"a\", @progbits",
    "boot_bad_relocation: .asciz \"vtl1: the image holds a relocation other than R_X86_64_RELATIVE\\r\\n\"",
    ".balign 4",
    "boot_mxcsr: .long 0x1f80",
    ".section .bss.boot, \"aw\", @nobits",
    ".balign 4096",
    "boot_pml4: .skip 4096",
    "boot_pdpt: .skip 4096",
    "boot_pd: .skip 4096",
    ".balign 16",
    "boot_entry_state: .skip 640",
    ".balign 4096",
    "boot_stack: .skip 65536",
    "boot_stack_top:",
    // The hypervisor lays its page over this one; without it, a call must not run on.
    ".section .hypercall_page, \"ax\", @progbits",
    ".balign 4096",
    ".fill 4096, 1, 0xcc",
    ".text",
    base = const VTL1_BASE.cast_signed(),
    boot = sym crate::boot::boot_processor,
);
