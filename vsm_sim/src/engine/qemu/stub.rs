//! The bare-metal stub: the only code that runs *outside* a guest in the emulated machine.
//!
//! It brings every emulated CPU into long mode with SVM enabled and then serves its control page: wait for a new sequence number in `GO`, run the
//! virtual machine whose VMCB address is in `VMCB`, publish `DONE`, write one byte to the CPU's own doorbell port. It holds no policy. It trusts the
//! host process, which owns the control pages; a guest cannot reach it, because no nested page table maps engine memory.
//!
//! An idle CPU spins for a short while and then halts. The host wakes a halted CPU, and calls a running one out of its guest, by sending one byte to a
//! serial port whose interrupt the I/O APIC takes to that CPU. QEMU has four such ports; CPU `n` listens to port `n % 4`, so that with more CPUs some are
//! woken for another's sake, which is harmless. No timer runs in the machine: nothing happens in it without a request.
//!
//! The flags that host and stub exchange need a store before a load to stay in that order. With one thread for all CPUs, QEMU translates MFENCE and
//! locked instructions into nothing that the host's CPU would notice; writing to a port takes a lock in QEMU, and is a barrier in every mode.
//!
//! The code is assembled into read-only data of the host program and never executed there. It is position dependent; every absolute address in it is
//! written as `label - start + load address`, so that it needs no relocation.

use core::arch::global_asm;

use super::layout::{self, control};

global_asm!(
    r#"
    .pushsection .rodata.vsm_sim_stub, "a", @progbits
    .balign 16
    .globl vsm_sim_stub_start
    .globl vsm_sim_stub_end
vsm_sim_stub_start:
    .code32
    cli
    movl $({tables} + 0x1000 + 3), {tables}
    movl $({tables} + 0x1000), %edi
    xorl %ebx, %ebx              /* identity map of 512 GiB in 1 GiB pages */
1:  movl %ebx, %eax
    shll $30, %eax
    orl $0x83, %eax
    movl %eax, (%edi)
    movl %ebx, %eax
    shrl $2, %eax
    movl %eax, 4(%edi)
    addl $8, %edi
    incl %ebx
    cmpl $512, %ebx
    jne 1b
    /* the trampoline of the other CPUs; EBX = 0 marks the boot CPU */
    movl $(ap16 - vsm_sim_stub_start + {stub}), %esi
    movl ${trampoline}, %edi
    movl $(ap16_end - ap16), %ecx
    rep movsb
    xorl %ebx, %ebx
    jmp to_long

    .code16
ap16:
    cli
    lgdtl %cs:(ap_gdtr - ap16)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(ap32 - vsm_sim_stub_start + {stub})
ap_gdtr:
    .word gdt_end - gdt - 1
    .long gdt - vsm_sim_stub_start + {stub}
ap16_end:

    .code32
ap32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %ebx
to_long:
    movl %cr4, %eax
    orl $0x620, %eax             /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl ${tables}, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x1900, %eax            /* EFER: LME, NXE, SVME */
    wrmsr
    movl %cr0, %eax
    andl $~0x6000000c, %eax      /* caches on; no EM, no TS */
    orl $0x80010003, %eax
    movl %eax, %cr0
    lgdtl (gdtr - vsm_sim_stub_start + {stub})
    ljmpl $8, $(long_mode - vsm_sim_stub_start + {stub})

    .code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $0xfee00000, %r14d      /* local APIC */
    movl 0x20(%r14), %r13d
    shrl $24, %r13d              /* CPU number */
    movl %r13d, %r15d
    shll $12, %r15d
    leaq {stacks} + 0x1000(%r15), %rsp
    leaq {host_save}(%r15), %rax
    addq ${control}, %r15        /* control page */
    xorl %edx, %edx
    movl $0xc0010117, %ecx       /* VM_HSAVE_PA */
    wrmsr
    testl %ebx, %ebx
    jnz ap_join

    /* IDT: faults, then one handler for every interrupt */
    movl ${idt}, %edi
    leaq fault(%rip), %rax
    movl $256, %ecx
3:  cmpl $224, %ecx
    jne 4f
    leaq wake(%rip), %rax
4:  movl %eax, %edx
    andl $0xffff, %edx
    orl $0x80000, %edx
    movl %edx, (%rdi)
    movl %eax, %edx
    andl $0xffff0000, %edx
    orl $0x8e00, %edx
    movl %edx, 4(%rdi)
    movq $0, 8(%rdi)
    addq $16, %rdi
    decl %ecx
    jnz 3b
    movb $0xff, %al              /* no interrupt from the old controllers, no timer */
    outb %al, $0x21
    outb %al, $0xa1
    movb $0x30, %al
    outb %al, $0x43
    movl $0x10000, 0x350(%r14)   /* LINT0 off */
    /* four serial ports: 8N1, FIFO with an interrupt for each byte, receive interrupt; I/O APIC: to vector 0x40 of the CPUs whose logical id has the port's bit */
    movl $0xfec00000, %ebx
    xorl %esi, %esi
5:  movl $0x07050304, %edi       /* interrupt lines of the ports */
    leal (,%rsi,8), %ecx
    shrl %cl, %edi
    andl $0xf, %edi
    leal 0x11(%rdi,%rdi), %edi
    movl %edi, (%rbx)
    leal 24(%rsi), %ecx
    movl $1, %eax
    shll %cl, %eax
    movl %eax, 0x10(%rbx)
    decl %edi
    movl %edi, (%rbx)
    movl $0x840, 0x10(%rbx)
    movl %esi, %eax
    call port
    leal 3(%rdi), %edx
    movb $3, %al
    outb %al, %dx
    leal 2(%rdi), %edx
    movb $1, %al
    outb %al, %dx
    leal 4(%rdi), %edx
    movb $0x0b, %al
    outb %al, %dx
    leal 1(%rdi), %edx
    movb $1, %al
    outb %al, %dx
    incl %esi
    cmpl $4, %esi
    jne 5b
    movl $0x000c4500, 0x300(%r14) /* INIT, then start-up at the trampoline, to all others */
    movl $200000, %ecx
5:  decl %ecx
    jnz 5b
    movl $(0x000c4600 + ({trampoline} >> 12)), 0x300(%r14)
ap_join:
    lidt idtr(%rip)
    movl $0, 0x80(%r14)
    movl $0xffffffff, 0xe0(%r14) /* flat logical ids: bit (CPU modulo 4) */
    movl %r13d, %ecx
    andl $3, %ecx
    addl $24, %ecx
    movl $1, %eax
    shll %cl, %eax
    movl %eax, 0xd0(%r14)
    movl $0x1ff, 0xf0(%r14)
    xorl %ebp, %ebp
    movq $1, {ready}(%r15)
    jmp ring

    /* r15 = control page, rbp = last sequence number, IF = 0, GIF = 1 */
idle:
    movl {spin}(%r15), %ecx
6:  movq {go}(%r15), %rax
    cmpq %rbp, %rax
    jne request
    decl %ecx
    jg 6b
    movl $1, {sleeping}(%r15)
    outb %al, $0x80              /* a barrier, see above */
    movq {go}(%r15), %rax
    cmpq %rbp, %rax
    jne 7f
    sti
    hlt
    cli
7:  movl $0, {sleeping}(%r15)
    jmp idle

request:
    movq %rax, %rbp
    cmpq $0, {vmcb}(%r15)
    jne enter
    movl {cpuid}(%r15), %eax
    movl {cpuid} + 8(%r15), %ecx
    cpuid
    movl %eax, {cpuid}(%r15)
    movl %ebx, {cpuid} + 4(%r15)
    movl %ecx, {cpuid} + 8(%r15)
    movl %edx, {cpuid} + 12(%r15)
    jmp finish

enter:
    leaq {touches}(%r15), %rsi   /* memory the host wrote: store there, so that translated code is dropped */
2:  movl {touch_count}(%r15), %eax
    testl %eax, %eax
    jz 4f
    movq (%rsi), %rdi
    movq 8(%rsi), %rcx
3:  lock orq $0, (%rdi)
    addq $8, %rdi
    decq %rcx
    jnz 3b
    addq $16, %rsi
    decl {touch_count}(%r15)
    jmp 2b
4:  clgi
    sti                          /* an interrupt waits until the guest runs, and ends it */
    movl $1, {running}(%r15)
    outb %al, $0x80              /* a barrier */
    movl {stop}(%r15), %eax
    movl %eax, {stopped}(%r15)
    testl %eax, %eax
    jnz leave
    incq {entries}(%r15)
    pushq %rbp
    pushq %r15
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, {tsc}(%r15)
    movq {regs} + 0(%r15), %rbx
    movq {regs} + 8(%r15), %rcx
    movq {regs} + 16(%r15), %rdx
    movq {regs} + 24(%r15), %rsi
    movq {regs} + 32(%r15), %rdi
    movq {regs} + 40(%r15), %rbp
    movq {regs} + 48(%r15), %r8
    movq {regs} + 56(%r15), %r9
    movq {regs} + 64(%r15), %r10
    movq {regs} + 72(%r15), %r11
    movq {regs} + 80(%r15), %r12
    movq {regs} + 88(%r15), %r13
    movq {regs} + 96(%r15), %r14
    movq {vmcb}(%r15), %rax
    movq {regs} + 104(%r15), %r15
    vmload %rax
    vmrun %rax
    vmsave %rax
    xchgq %r15, (%rsp)           /* the guest's R15 changes places with the control page */
    movq %rbx, {regs} + 0(%r15)
    movq %rcx, {regs} + 8(%r15)
    movq %rdx, {regs} + 16(%r15)
    movq %rsi, {regs} + 24(%r15)
    movq %rdi, {regs} + 32(%r15)
    movq %rbp, {regs} + 40(%r15)
    movq %r8, {regs} + 48(%r15)
    movq %r9, {regs} + 56(%r15)
    movq %r10, {regs} + 64(%r15)
    movq %r11, {regs} + 72(%r15)
    movq %r12, {regs} + 80(%r15)
    movq %r13, {regs} + 88(%r15)
    movq %r14, {regs} + 96(%r15)
    popq {regs} + 104(%r15)
    popq %rbp
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    subq {tsc}(%r15), %rax
    addq %rax, {ticks}(%r15)
    movq {vmcb}(%r15), %rax
    cmpq $0x60, 0x70(%rax)       /* physical interrupt: let it in, go on */
    jne leave
    movl $0, {running}(%r15)
    stgi
    nop
    cli
    jmp enter
leave:
    cli
    stgi
    movl $0, {running}(%r15)
finish:
    movq %rbp, {done}(%r15)
ring:
    movl $0xfee00020, %eax       /* the CPU number again: R13 is the guest's after an entry */
    movl (%rax), %eax
    shrl $24, %eax
    leal {doorbell}(%rax), %edx
    outb %al, %dx
    jmp idle

wake:
    pushq %rax
    pushq %rdx
    pushq %rdi
    movl $0xfee00020, %eax
    movl (%rax), %eax
    shrl $24, %eax
    call port
    movl %edi, %edx
    inb %dx, %al
    movl $0xfee000b0, %eax
    movl $0, (%rax)
    popq %rdi
    popq %rdx
    popq %rax
    iretq

    /* EDI = serial port for CPU EAX: 0x3f8 0x2f8 0x3e8 0x2e8; EDX is lost */
port:
    movl %eax, %edi
    andl $1, %edi
    shll $8, %edi
    movl %eax, %edx
    andl $2, %edx
    shll $3, %edx
    addl %edx, %edi
    negl %edi
    addl $0x3f8, %edi
    ret

fault:
    movl $0xfee00020, %eax
    movl (%rax), %eax
    shrl $24, %eax
    shll $12, %eax
    popq {control} + {fault} + 8(%rax)
    popq {control} + {fault} + 16(%rax)
    movq $1, {control} + {fault}(%rax)
    cli
    hlt
    jmp fault

    .balign 16
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_end:
gdtr:
    .word gdt_end - gdt - 1
    .quad gdt - vsm_sim_stub_start + {stub}
idtr:
    .word 4095
    .quad {idt}
vsm_sim_stub_end:
    .popsection
    "#,
    tables = const layout::TABLES,
    stub = const layout::STUB,
    trampoline = const layout::TRAMPOLINE,
    stacks = const layout::STACKS,
    host_save = const layout::HOST_SAVE,
    control = const layout::CONTROL,
    idt = const layout::IDT,
    doorbell = const layout::DOORBELL,
    ready = const control::READY,
    spin = const control::SPIN,
    go = const control::GO,
    done = const control::DONE,
    sleeping = const control::SLEEPING,
    vmcb = const control::VMCB,
    cpuid = const control::CPUID,
    running = const control::RUNNING,
    stop = const control::STOP,
    stopped = const control::STOPPED,
    entries = const control::ENTRIES,
    tsc = const control::TSC,
    ticks = const control::TICKS,
    regs = const control::REGISTERS,
    touches = const control::TOUCHES,
    touch_count = const control::TOUCH_COUNT,
    fault = const control::FAULT,
    options(att_syntax)
);

/// The assembled stub, as it has to lie at [`layout::STUB`].
pub fn code() -> &'static [u8] {
    // SAFETY: the assembly above defines both labels; only their addresses are used.
    unsafe extern "C" {
        static vsm_sim_stub_start: u8;
        static vsm_sim_stub_end: u8;
    }
    let start = &raw const vsm_sim_stub_start;
    let end = &raw const vsm_sim_stub_end;
    // SAFETY: both labels are defined by the assembly above, in one section that is never written, with the end after the start.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}
