//! The bare-metal stub: the only code that runs *outside* a guest in the emulated machine.
//!
//! It brings every emulated CPU into long mode with SVM enabled and then serves its control page: wait for a new sequence number in `GO`, run the
//! virtual machine whose VMCB address is in `VMCB`, publish `DONE`, write one byte to the CPU's own doorbell port. It holds no policy. It trusts the
//! host process, which owns the control pages; a guest cannot reach it, because no nested page table maps engine memory.
//!
//! An idle CPU spins for a short while and then halts. The host wakes a halted CPU, and calls a running one out of its guest, with an NMI (see
//! [`super::lines`]); interrupts never reach the stub. Two kinds of guests: where `WAITER` is 0 no device belongs to anybody and no timer runs: nothing
//! happens in the machine without a request. Else the guest of context 0 has the machine's devices and takes their interrupts itself, which wait while
//! the CPU is outside or in context 1; some of that guest's exits end here already: HLT while interrupts are on, the PCI address port.
//!
//! The tables of context 0 are two: what kernel code and what user code may execute (no MBEC in SVM). A fetch that the present ones refuse changes to
//! the others, once for each place. In between, the first fetch of the kernel after a change of privilege is judged by the tables for user code; the
//! host therefore chooses the tables by privilege at each of its entries.
//!
//! The flags that host and stub exchange need a store before a load to stay in that order. With one thread for all CPUs, QEMU translates MFENCE and
//! locked instructions into nothing that the host's CPU would notice; writing to a port takes a lock in QEMU, and is a barrier in every mode.
//!
//! The code is assembled into read-only data of the host program and never executed there. It is position dependent; every absolute address in it is
//! written as `label - start + load address`, so that it needs no relocation.

use core::arch::global_asm;

use super::layout::{self, control, operation};

global_asm!(
    include_str!("stub_start.s"),
    include_str!("stub_serve.s"),
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
    request = const control::REQUEST,
    words = const control::WORDS,
    operations = const operation::END,
    store = const operation::STORE,
    clock = const operation::CLOCK,
    out = const operation::OUT,
    called = const control::CALLED,
    nmi_came = const control::NMI,
    calls_until = const control::CALLS_UNTIL,
    calls_for = const control::CALLS_FOR,
    root = const control::ROOT,
    root_of_user = const control::ROOT_OF_USER,
    changed_at = const control::CHANGED_AT,
    changes = const control::CHANGES,
    waiter = const control::WAITER,
    waits = const control::WAITS,
    lines_table = const layout::LINES_TABLE,
    lines_slot = const layout::LINES_AT[0],
    lines_function = const layout::LINES_AT[1],
    cpus = const layout::MAX_CPUS,
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
