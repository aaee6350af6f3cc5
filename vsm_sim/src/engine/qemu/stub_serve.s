/* The stub, second part: requests and exits. See stub.rs. */
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
sleep:                           /* an NMI between here and the HLT skips the HLT */
    movq {go}(%r15), %rax
    cmpq %rbp, %rax
    jne awake
    hlt
awake:
    movl $0, {sleeping}(%r15)
    jmp idle

request:
    movq %rax, %rbp
    movq {request}(%r15), %rcx
    cmpq ${operations}, %rcx
    jae enter
    movl {words}(%r15), %edx
    movl {words} + 4(%r15), %eax
    cmpl ${store}, %ecx
    jb 1f
    je 2f
    cmpl ${clock}, %ecx
    je 3f
    subl ${out}, %ecx
    je 4f
    decl %ecx
    je 5f
    decl %ecx
    je 6f
    xorl %eax, %eax
    decl %ecx
    je 7f
    decl %ecx
    je 8f
    inl %dx, %eax
    jmp 9f
1:  movl %edx, %eax
    movl {words} + 8(%r15), %ecx
    cpuid
    movl %ebx, {words} + 4(%r15)
    movl %ecx, {words} + 8(%r15)
    movl %edx, {words} + 12(%r15)
    jmp 9f
2:  movl %eax, (%rdx)
    jmp finish
3:  rdtsc
    movl %edx, {words} + 4(%r15)
    jmp 9f
4:  outb %al, %dx
    jmp finish
5:  outw %ax, %dx
    jmp finish
6:  outl %eax, %dx
    jmp finish
7:  inb %dx, %al
    jmp 9f
8:  inw %dx, %ax
9:  movl %eax, {words}(%r15)
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
4:  clgi                         /* an NMI waits until the guest runs, and ends it; IF stays 0 */
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
    movq {request}(%r15), %rax
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
    movq {request}(%r15), %rax
    movq 0x70(%rax), %rcx
    cmpq $0x61, %rcx             /* NMI: let it in, go on */
    je again
    cmpq $0x400, %rcx
    je fetch
    testl $0x1000000, 0x60(%rax) /* virtual interrupts: this guest has no devices */
    jnz leave
    cmpq $0x78, %rcx
    je halt
    cmpq $0x7b, %rcx
    jne leave
    movl 0x78(%rax), %ecx        /* 32 bits out to the PCI address port? it holds the port of resets, that the host wants to see */
    andl $0xffff0041, %ecx
    cmpl $0xcf80040, %ecx
    jne leave
    movl $0xcf8, %edx
    movq 0x80(%rax), %rcx
    movq %rcx, 0x578(%rax)
    movq $0, 0x68(%rax)
    movl 0x5f8(%rax), %eax
    outl %eax, %dx
    jmp again

    /* HLT: if interrupts are off for the host to see, else the CPU waits in a guest of our own, whose end an interrupt is */
halt:
    testl $0x200, 0x570(%rax)
    jz leave
    incq 0x578(%rax)
    movq $0, 0x68(%rax)
    incq {waits}(%r15)
    movq {waiter}(%r15), %rax
    vmrun %rax
    jmp again

    /* a fetch that context 0's other tables may allow; the second time at one place it is for the host to judge */
fetch:
    testl $0x10, 0x78(%rax)
    jz leave
    movq 0x578(%rax), %rcx
    cmpq %rcx, {changed_at}(%r15)
    je leave
    movq 0xb0(%rax), %rdx
    movq {root}(%r15), %rsi
    cmpq %rdx, {root_of_user}(%r15)
    je 6f
    cmpq %rdx, %rsi
    jne leave
    cmpb $3, 0x4cb(%rax)
    jne leave
    movq {root_of_user}(%r15), %rsi
    testq %rsi, %rsi
    jz leave
6:  movq %rsi, 0xb0(%rax)
    movq %rcx, {changed_at}(%r15)
    incq {changes}(%r15)
again:
    movl $0, {running}(%r15)
    stgi
    nop
    call look_again
    cmpl $0, {nmi_came}(%r15)    /* not the host's: a guest's, and the host hands it on */
    je enter
    jmp finish
leave:
    movq $0, {changed_at}(%r15)
    stgi
    call look_again
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

    /* r15 is the control page whenever an NMI can come */
nmi:
    pushq %rax
    pushq %rcx
    pushq %rdx
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    xorl %ecx, %ecx
    xchgl %ecx, {called}(%r15)
    testl %ecx, %ecx
    jnz 1f
    cmpq {calls_until}(%r15), %rax
    jbe 2f
    movl $1, {nmi_came}(%r15)
    jmp 2f
1:  addq {calls_for}(%r15), %rax
    movq %rax, {calls_until}(%r15)
2:  leaq sleep(%rip), %rax
    leaq awake(%rip), %rcx
    cmpq %rax, 24(%rsp)
    jb 3f
    cmpq %rcx, 24(%rsp)
    jae 3f
    movq %rcx, 24(%rsp)
3:  popq %rdx
    popq %rcx
    popq %rax
    iretq

    /* QEMU changes its word of pending interrupts without a lock at an exit, and one of the guest's may get lost: a write of the task priority
       makes the APIC look again */
look_again:
    cmpq $0, {waiter}(%r15)
    je 1f
    movl $0xfee00080, %eax
    movl (%rax), %ecx
    movl %ecx, (%rax)
1:  ret

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
