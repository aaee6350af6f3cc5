//! Where the engine's own things lie in the emulated machine: all below its first GiB, where no guest RAM is, so that no nested page table maps them.
//! The numbers are our own choice; the host and the stub both go by them.

/// Load address of the stub.
pub const STUB: u64 = 0x40_0000;
/// Two pages: the stub's page tables, an identity map of 512 GiB.
pub const TABLES: u64 = 0x41_0000;
/// The stub's interrupt descriptor table.
pub const IDT: u64 = 0x41_8000;
/// One stack page per CPU.
pub const STACKS: u64 = 0x42_0000;
/// One control page per CPU, see [`control`].
pub const CONTROL: u64 = 0x48_0000;
/// One host save area page per CPU (AMD64 manual volume 2, VM_HSAVE_PA).
pub const HOST_SAVE: u64 = 0x4c_0000;
/// Two VMCB pages per CPU, one per context.
pub const VMCBS: u64 = 0x50_0000;
/// Two MSR permission maps of two pages per CPU.
pub const MSR_MAPS: u64 = 0x58_0000;
/// The I/O permission map, three pages, shared by all CPUs.
pub const IO_MAP: u64 = 0x68_0000;
/// Where the pool of nested page table pages starts.
pub const POOL: u64 = 0x80_0000;
/// Page that APs start at in real mode (SIPI vector 8).
pub const TRAMPOLINE: u64 = 0x8000;
/// Number of wake-up lines: serial ports that QEMU lets us have.
pub const WAKE_LINES: usize = 4;
/// Ports and interrupt lines of the serial ports (the stub has them in code).
pub const SERIAL: [(u16, u8); WAKE_LINES] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 5), (0x2e8, 7)];
/// First doorbell port; CPU `n` writes to `DOORBELL + n`.
pub const DOORBELL: u16 = 0x300;
/// Largest number of CPUs the layout has room for (bounded by the doorbell ports).
pub const MAX_CPUS: u32 = 16;

/// Offsets in a CPU's control page.
pub mod control {
    /// u64, host to stub: sequence number of the request.
    pub const GO: u64 = 0x00;
    /// u64, stub to host: sequence number of the last request done.
    pub const DONE: u64 = 0x08;
    /// u64: physical address of the VMCB to run; 0 asks for a CPUID instead.
    pub const VMCB: u64 = 0x10;
    /// u32, host to stub: do not enter the guest, or do not enter it again after an interrupt.
    pub const STOP: u64 = 0x20;
    /// u32, stub to host: the CPU has halted or is about to; it needs a wake-up byte.
    pub const SLEEPING: u64 = 0x24;
    /// u64, stub to host: 1 when the CPU serves its page.
    pub const READY: u64 = 0x28;
    /// u64, stub: time-stamp counter before the entry.
    pub const TSC: u64 = 0x30;
    /// u64, stub to host: sum of the time-stamp counter differences over all entries.
    pub const TICKS: u64 = 0x38;
    /// u64, stub to host: number of entries into a guest.
    pub const ENTRIES: u64 = 0x40;
    /// u32, stub to host: 1 while in, or about to enter, the guest.
    pub const RUNNING: u64 = 0x48;
    /// u32, stub to host: 1 if the request ended because of `STOP`.
    pub const STOPPED: u64 = 0x4c;
    /// u32, host to stub: turns of the idle loop before the CPU halts.
    pub const SPIN: u64 = 0x50;
    /// u32, host to stub: number of entries of `TOUCHES` still to be served; the stub counts it down.
    pub const TOUCH_COUNT: u64 = 0x54;
    /// Pairs of u64: machine address and number of 64-bit words, not 0, to store to without changing them. The emulator keeps translated code until
    /// one of its own CPUs writes to it; what the host writes through its mapping goes unseen otherwise.
    pub const TOUCHES: u64 = 0x200;
    /// Most entries `TOUCHES` has room for.
    pub const MAX_TOUCHES: usize = 64;
    /// Four u32: EAX..EDX of a CPUID request; EAX and ECX are read, all are written.
    pub const CPUID: u64 = 0x60;
    /// Three u64 left by a fault in the stub itself: a non-zero marker and the top of the stack.
    pub const FAULT: u64 = 0x80;
    /// Fourteen u64: RBX RCX RDX RSI RDI RBP R8..R15 of the guest (RAX and RSP are in the VMCB).
    pub const REGISTERS: u64 = 0x100;
}
