/* The stub, first part: from the PVH entry to a CPU that serves its page. See stub.rs. */
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

    /* IDT: faults, and the NMI */
    movl ${idt}, %edi
    leaq fault(%rip), %rax
    movl $256, %ecx
3:  movl %eax, %edx
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
    movl ${idt} + 32, %edi
    leaq nmi(%rip), %rax
    movw %ax, (%rdi)
    shrl $16, %eax
    movw %ax, 6(%rdi)
    cmpq $0, {waiter}(%r15)
    jne 4f
    movb $0xff, %al              /* no interrupt from the old controllers, no timer */
    outb %al, $0x21
    outb %al, $0xa1
    movb $0x30, %al
    outb %al, $0x43
    movl $0x10000, 0x350(%r14)   /* LINT0 off */
    /* the device behind the host's lines: its second BAR, memory and bus mastering on, MSI-X on; one message for each CPU: an NMI */
4:  movl $0x14, %eax
    call config
    movl ${lines_table}, %eax
    outl %eax, %dx
    movl $4, %eax
    call config
    movl $6, %eax
    outl %eax, %dx
    movl $0x34, %eax
    call config
    inl %dx, %eax
5:  movzbl %al, %eax             /* along the capabilities to that with the id 0x11 */
    movl %eax, %esi
    call config
    inl %dx, %eax
    cmpb $0x11, %al
    je 6f
    shrl $8, %eax
    jmp 5b
6:  andl $0xbfffffff, %eax
    orl $0x80000000, %eax
    outl %eax, %dx
    movl ${lines_table}, %edi
    xorl %ecx, %ecx
7:  movl %ecx, %eax
    shll $12, %eax
    orl $0xfee00000, %eax
    movl %eax, (%rdi)
    movl $0, 4(%rdi)
    movl $0x400, 8(%rdi)
    movl $0, 12(%rdi)
    addl $16, %edi
    incl %ecx
    cmpl ${cpus}, %ecx
    jne 7b
    movl $0x000c4500, 0x300(%r14) /* INIT, then start-up at the trampoline, to all others */
    movl $200000, %ecx
5:  decl %ecx
    jnz 5b
    movl $(0x000c4600 + ({trampoline} >> 12)), 0x300(%r14)
ap_join:
    lidt idtr(%rip)
    xorl %ebp, %ebp
    movq $1, {ready}(%r15)
    jmp ring

    /* EDX = the port of the 32 bits at EAX in the configuration of the device behind the lines */
config:
    orl $(0x80000000 + ({lines_slot} << 11) + ({lines_function} << 8)), %eax
    movl $0xcf8, %edx
    outl %eax, %dx
    movl $0xcfc, %edx
    ret
