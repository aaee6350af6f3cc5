//! Guest code of the conformance test, assembled into this program's read-only data and found by name.
//!
//! A record is the length of the code (u32), the name (28 bytes, padded with zeros) and the code. Every guest ends in a hypercall that the harness adds.

use core::arch::global_asm;

global_asm!(
    r#"
    .macro guest name
    .balign 4
    .long end_\name - code_\name
name_\name:
    .ascii "\name"
named_\name:
    .zero 28 - (named_\name - name_\name)
code_\name:
    .endm
    .macro done name
end_\name:
    .endm

    .pushsection .rodata.engine_guests, "a", @progbits
    .balign 4
    .globl engine_guests_start
    .globl engine_guests_end
engine_guests_start:
    guest read
    movq (%rbx), %rax
    done read
    guest write
    movq %rdx, (%rbx)
    done write
    guest call
    call *%rbx
    done call
    guest read_ac
    stac
    movq (%rbx), %rax
    clac
    done read_ac
    guest undefined
    ud2
    done undefined
    guest divide
    xorl %edx, %edx
    xorl %ecx, %ecx
    divl %ecx
    done divide
    guest breakpoint
    int3
    done breakpoint
    guest bad_selector
    movl $0x50, %eax
    movl %eax, %ds
    done bad_selector
    guest remap
    movq (%rbx), %rax
    movq %rdx, (%rcx)
    invlpg (%rbx)
    movq (%rbx), %rax
    done remap
    guest cr4_reserved
    movq %cr4, %rax
    btsq $29, %rax
    movq %rax, %cr4
    done cr4_reserved
    guest wrmsr
    wrmsr
    done wrmsr
    guest cr8
    movl $5, %eax
    movq %rax, %cr8
    xorl %eax, %eax
    movq %cr8, %rax
    done cr8
    guest tables
    lgdt (%rbx)
    pushq $8
    leaq 1f(%rip), %rax
    pushq %rax
    lretq
1:  movl $0x28, %eax
    ltr %ax
    xorl %eax, %eax
    str %ax
    done tables
    guest swapgs
    wrgsbase %rbx
    movl $0xc0000102, %ecx
    movl %edx, %eax
    xorl %edx, %edx
    wrmsr
    swapgs
    rdgsbase %rax
    rdgsbase %rcx
    swapgs
    rdgsbase %rdx
    shlq $32, %rdx
    orq %rdx, %rax
    done swapgs
    guest to_user_iretq
    pushq $0x1b
    pushq %rcx
    pushq $0x202
    pushq $0x23
    pushq %rbx
    iretq
    done to_user_iretq
    guest to_user_sysretq
    movq %rcx, %rsp
    movq %rbx, %rcx
    movl $0x202, %r11d
    sysretq
    done to_user_sysretq
    guest sse
    movdqu (%rbx), %xmm1
    paddb %xmm1, %xmm1
    movq %xmm1, %rax
    done sse
    guest x87
    fninit
    fldpi
    fstpl (%rbx)
    movq (%rbx), %rax
    done x87
    guest avx_xsave
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $7, %eax
    xsetbv
    vmovdqu (%rbx), %ymm3
    vpaddb %ymm3, %ymm3, %ymm4
    movl $7, %eax
    xsave (%rdi)
    vpxor %ymm4, %ymm4, %ymm4
    movl $7, %eax
    xrstor (%rdi)
    vmovdqu %ymm4, (%rsi)
    vzeroupper
    movq 24(%rsi), %rax
    done avx_xsave
    guest fxsave
    movdqu (%rbx), %xmm5
    fxsave (%rdi)
    pxor %xmm5, %xmm5
    fxrstor (%rdi)
    movq %xmm5, %rax
    done fxsave
    guest device_not_available
    movdqu %xmm0, %xmm1
    done device_not_available
    guest cmpxchg16b
    xorl %eax, %eax
    xorl %edx, %edx
    movq $0x77, %rbx
    xorl %ecx, %ecx
    lock cmpxchg16b (%rdi)
    movq (%rdi), %rax
    done cmpxchg16b
    guest bits
    movq $0xf0, %rcx
    popcntq %rcx, %rax
    tzcntq %rcx, %rcx
    shlxq %rcx, %rax, %rax
    done bits
    guest aes
    movdqu (%rbx), %xmm1
    aesenc %xmm1, %xmm1
    xorl %eax, %eax
    done aes
    guest sha
    sha256msg1 %xmm0, %xmm1
    done sha
    guest invpcid
    xorl %eax, %eax
    movl $2, %ecx
    invpcid (%rbx), %rcx
    done invpcid
    guest self_modifying
    movl $0x200, %ecx
    leaq 2f(%rip), %rbx
1:  call 2f
    movb %cl, 1(%rbx)
    addq %rax, %rdx
    loop 1b
    movq %rdx, %rax
    jmp 3f
2:  movl $0, %eax
    ret
3:
    done self_modifying
    guest vmrun
    vmrun %rax
    done vmrun
    guest set_shared
    movq %rax, %dr0
    incq %rax
    movq %rax, %dr1
    incq %rax
    movq %rax, %dr2
    incq %rax
    movq %rax, %dr3
    movq %rdx, %cr2
    fninit
    fldpi
    movl $0x1f00, (%rdi)
    ldmxcsr (%rdi)
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $7, %eax
    xsetbv
    vmovdqu (%rbx), %ymm15
    vmovdqu (%rbx), %ymm0
    done set_shared
    guest get_shared
    movq %dr0, %r8
    movq %dr1, %r9
    movq %dr2, %r10
    movq %dr3, %r11
    movq %cr2, %r12
    fstpl (%rdi)
    movq (%rdi), %r13
    stmxcsr (%rdi)
    movl (%rdi), %r14d
    xorl %ecx, %ecx
    xgetbv
    movl %eax, %r15d
    vmovdqu %ymm15, (%rsi)
    vmovdqu %ymm0, 32(%rsi)
    done get_shared
engine_guests_end:
    .popsection
    "#,
    options(att_syntax)
);

/// The code of a guest.
pub fn guest(name: &str) -> &'static [u8] {
    // SAFETY: the assembly above defines both labels.
    unsafe extern "C" {
        static engine_guests_start: u8;
        static engine_guests_end: u8;
    }
    let start = &raw const engine_guests_start;
    let end = &raw const engine_guests_end;
    // SAFETY: both labels are defined by the assembly above, in one section that is never written, with the end after the start.
    let mut rest = unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    while rest.len() >= 32 {
        let (head, tail) = rest.split_at(32);
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if head[4..].split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            return &tail[..len];
        }
        rest = &tail[len.next_multiple_of(4).min(tail.len())..];
    }
    panic!("there is no guest {name}")
}
