//! Why a guest stopped, what can be injected into it, and what makes it stop. Nothing here depends on how an engine works.

/// One of the tables an instruction can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// LGDT.
    Gdtr,
    /// LIDT.
    Idtr,
    /// LLDT.
    Ldtr,
    /// LTR.
    Tr,
}

/// The access that a nested page table refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFault {
    /// Guest-physical address.
    pub gpa: u64,
    /// Data write (or, with `page_walk`, the setting of an accessed or dirty bit).
    pub write: bool,
    /// Instruction fetch. Neither this nor `write`: a data read.
    pub execute: bool,
    /// The linear address, where it can be told from the instruction. Never set for a page walk.
    pub gva: Option<u64>,
    /// The access was to a guest page table, by the CPU's walk.
    pub page_walk: bool,
    /// Privilege level of the guest.
    pub cpl: u8,
}

/// What stopped the guest. Instructions named here have *not* been carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The hypercall instruction.
    Hypercall,
    /// RDMSR of an intercepted MSR.
    MsrRead {
        /// MSR number.
        msr: u32,
    },
    /// WRMSR of an intercepted MSR.
    MsrWrite {
        /// MSR number.
        msr: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// CPUID.
    Cpuid {
        /// EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
    },
    /// IN, OUT, INS or OUTS.
    Io {
        /// I/O port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// OUT or OUTS.
        write: bool,
        /// For OUT, the value; else 0.
        value: u32,
        /// INS or OUTS, which the engine does not take apart.
        string: bool,
    },
    /// An access that the address space does not allow.
    Memory(MemoryFault),
    /// HLT.
    Halt,
    /// An intercepted write of a control register: MOV, LMSW or CLTS.
    CrWrite {
        /// Register number.
        cr: u8,
        /// The value that would be written.
        value: u64,
    },
    /// An intercepted table load.
    TableWrite(Table),
    /// An intercepted exception, not delivered to the guest.
    Exception {
        /// Vector, 0 to 31.
        vector: u8,
        /// Error code if the vector has one, else 0.
        error: u32,
        /// Fault address of a page fault (CR2 itself is unchanged); else 0.
        gva: u64,
    },
    /// Single step: one instruction was carried out.
    Step,
    /// Triple fault.
    Shutdown,
    /// [`Engine::kick`](super::Engine::kick) was called.
    Kicked,
    /// Anything the engine does not understand.
    Unsupported(String),
}

/// A stop of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub reason: Reason,
    /// RIP: of the instruction, if there is one, else of the next one.
    pub rip: u64,
    /// Length of the instruction in bytes where the stop belongs to one that could be decoded, else 0.
    pub instruction_len: u8,
}

/// Kind of an injected event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// External interrupt; delivered whatever RFLAGS.IF says.
    Interrupt,
    /// Non-maskable interrupt.
    Nmi,
    /// Hardware exception.
    Exception,
}

/// An event that is delivered before the next instruction of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// IDT vector.
    pub vector: u8,
    /// Kind.
    pub kind: EventKind,
    /// Error code to push; must agree with the vector for exceptions.
    pub error_code: Option<u32>,
}

impl Event {
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self { vector: 13, kind: EventKind::Exception, error_code: Some(0) };
    /// #UD.
    pub const INVALID_OPCODE: Self = Self { vector: 6, kind: EventKind::Exception, error_code: None };
}

/// What stops a context, beyond what always does (hypercalls, CPUID, ports, HLT, triple faults, and all MSRs that are not private state).
#[expect(clippy::struct_excessive_bools, reason = "independent switches, one for each kind of write")]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intercepts {
    /// Writes of CR0.
    pub cr0_write: bool,
    /// Writes of CR3.
    pub cr3_write: bool,
    /// Writes of CR4.
    pub cr4_write: bool,
    /// LGDT.
    pub gdtr_write: bool,
    /// LIDT.
    pub idtr_write: bool,
    /// LLDT.
    pub ldtr_write: bool,
    /// LTR.
    pub tr_write: bool,
    /// One bit per exception vector.
    pub exceptions: u32,
    /// Private MSRs (see [`super::state::msr::PRIVATE`]) whose reads stop.
    pub msr_reads: Vec<u32>,
    /// Private MSRs whose writes stop.
    pub msr_writes: Vec<u32>,
}

/// Rights of an address space on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Data reads, and page walks.
    pub read: bool,
    /// Data writes.
    pub write: bool,
    /// Instruction fetches of privileges 0 to 2.
    pub execute: bool,
    /// Instruction fetches of privilege 3, in contexts that tell them apart ([`super::Vcpu::set_user_execution`]); what `execute` allows is allowed
    /// there too.
    pub user_execute: bool,
}

impl Access {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, execute: true, user_execute: true };
    /// Nothing.
    pub const NONE: Self = Self { read: false, write: false, execute: false, user_execute: false };
}
