//! Where the engine's own things lie in the emulated machine: in its first GiB, where no guest RAM is, so that no nested page table maps them.
//! The numbers are our own choice; the host and the stub both go by them.

/// First byte of engine memory. A guest that sees the machine as it is finds a hole in its RAM there.
pub const BASE: u64 = 0x3000_0000;
/// First byte behind engine memory in such a machine.
pub const END: u64 = 0x3400_0000;

/// Load address of the stub.
pub const STUB: u64 = BASE + 0x40_0000;
/// Two pages: the stub's page tables, an identity map of 512 GiB.
pub const TABLES: u64 = BASE + 0x41_0000;
/// The stub's interrupt descriptor table.
pub const IDT: u64 = BASE + 0x41_8000;
/// One stack page per CPU.
pub const STACKS: u64 = BASE + 0x42_0000;
/// One control page per CPU, see [`control`].
pub const CONTROL: u64 = BASE + 0x48_0000;
/// One host save area page per CPU (AMD64 manual volume 2, VM_HSAVE_PA).
pub const HOST_SAVE: u64 = BASE + 0x4c_0000;
/// Three VMCB pages per CPU: one per context, and one that waits for interrupts ([`super::waiter`]).
pub const VMCBS: u64 = BASE + 0x50_0000;
/// Two MSR permission maps of two pages per CPU.
pub const MSR_MAPS: u64 = BASE + 0x58_0000;
/// The I/O permission map, three pages, shared by all CPUs.
pub const IO_MAP: u64 = BASE + 0x68_0000;
/// Another one, of a guest with the machine's devices.
pub const IO_MAP_OF_DEVICES: u64 = BASE + 0x68_4000;
/// Where the pool of nested page table pages starts.
pub const POOL: u64 = BASE + 0x80_0000;
/// Page that APs start at in real mode (SIPI vector 8).
pub const TRAMPOLINE: u64 = 0x8000;
/// PCI slot and function of the device behind the [lines](super::lines).
pub const LINES_AT: [u8; 2] = [0x1e, 1];
/// Where the stub puts the MSI-X table of that device: between the HPET and the local APICs, where a PC has nothing.
pub const LINES_TABLE: u64 = 0xfed8_0000;
/// First doorbell port; CPU `n` writes to `DOORBELL + n`.
pub const DOORBELL: u16 = 0x300;
/// Address of a CPU's VMCB: 0 and 1 are the contexts', 2 the waiting guest's.
pub fn vmcb(cpu: u32, index: usize) -> u64 {
    VMCBS + (u64::from(cpu) * 3 + index as u64) * 0x1000
}

/// Largest number of CPUs the layout has room for (bounded by the doorbell ports).
pub const MAX_CPUS: u32 = 16;

/// Offsets in a CPU's control page.
pub mod control {
    /// u64, host to stub: sequence number of the request.
    pub const GO: u64 = 0x00;
    /// u64, stub to host: sequence number of the last request done.
    pub const DONE: u64 = 0x08;
    /// u64: physical address of the VMCB to run, or an [operation](super::operation).
    pub const REQUEST: u64 = 0x10;
    /// u32, host to stub: the next NMI is the host's call.
    pub const CALLED: u64 = 0x18;
    /// u32, stub to host: an NMI came that the host has not sent.
    pub const NMI: u64 = 0x1c;
    /// u32, host to stub: do not enter the guest, or do not enter it again after an interrupt.
    pub const STOP: u64 = 0x20;
    /// u32, stub to host: the CPU has halted or is about to; it has to be called.
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
    /// Four u32: what an operation is given, and what it gives.
    pub const WORDS: u64 = 0x60;
    /// Three u64 left by a fault in the stub itself: a non-zero marker and the top of the stack.
    pub const FAULT: u64 = 0x80;
    /// u64, stub: until this time an NMI may still be one of the host's.
    pub const CALLS_UNTIL: u64 = 0xa0;
    /// u64, host to stub: for how many ticks of the time-stamp counter that is.
    pub const CALLS_FOR: u64 = 0xa8;
    /// u64, host to stub: root of context 0's tables for kernel code.
    pub const ROOT: u64 = 0xb0;
    /// u64, host to stub: root of its tables for user code; 0 while one serves both.
    pub const ROOT_OF_USER: u64 = 0xb8;
    /// u64, stub: where the last change of root was.
    pub const CHANGED_AT: u64 = 0xc0;
    /// u64, stub to host: number of changes of root.
    pub const CHANGES: u64 = 0xc8;
    /// u64, host to stub: address of the VMCB in which the CPU waits while a guest with the machine's devices has halted; 0: there is no such guest.
    pub const WAITER: u64 = 0xd0;
    /// u64, stub to host: number of such waits.
    pub const WAITS: u64 = 0xd8;
    /// Fourteen u64: RBX RCX RDX RSI RDI RBP R8..R15 of the guest (RAX and RSP are in the VMCB).
    pub const REGISTERS: u64 = 0x100;
}

/// What a CPU outside of its guest is asked to do, instead of the address of a VMCB.
pub mod operation {
    /// CPUID with EAX and ECX from words 0 and 2; EAX to EDX.
    pub const CPUID: u64 = 0;
    /// Stores word 1 at the machine address in word 0.
    pub const STORE: u64 = 1;
    /// Reads the time-stamp counter: words 0 and 1.
    pub const CLOCK: u64 = 2;
    /// Writes word 1 to the port in word 0: 1 byte, 2 and 4 bytes are the next two.
    pub const OUT: u64 = 3;
    /// Reads the port in word 0: 1 byte, 2 and 4 bytes are the next two.
    pub const IN: u64 = 6;
    /// Smaller than every address of a VMCB.
    pub const END: u64 = 16;
}
