//! Register state of a virtual processor, divided as the TLFS divides it ("Virtual Secure Mode", private and shared VP state).

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, already scaled.
    pub limit: u32,
    /// Visible selector.
    pub selector: u16,
    /// Access rights as in the TLFS's `HvX64SegmentRegister`: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D 14, G 15.
    pub attributes: u16,
}

impl Segment {
    /// A flat 64-bit code segment of privilege 0.
    pub const fn code64(selector: u16) -> Self {
        Self { base: 0, limit: u32::MAX, selector, attributes: 0xa09b }
    }

    /// A flat data segment of privilege 0.
    pub const fn data(selector: u16) -> Self {
        Self { base: 0, limit: u32::MAX, selector, attributes: 0xc093 }
    }
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// What every VTL of a VP has of its own.
#[expect(missing_docs, reason = "the fields are registers and bear their names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrivateState {
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    /// Task priority, 0 to 15.
    pub cr8: u64,
    pub dr7: u64,
    pub efer: u64,
    pub pat: u64,
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub kernel_gs_base: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
}

/// Numbers of the MSRs that live in [`PrivateState`] (AMD64 manual volume 2, appendix A).
#[expect(missing_docs, reason = "the constants are MSRs and bear their names")]
pub mod msr {
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const PAT: u32 = 0x277;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    /// All of them.
    pub const PRIVATE: [u32; 12] = [
        SYSENTER_CS,
        SYSENTER_ESP,
        SYSENTER_EIP,
        PAT,
        EFER,
        STAR,
        LSTAR,
        CSTAR,
        SFMASK,
        FS_BASE,
        GS_BASE,
        KERNEL_GS_BASE,
    ];
}

/// EFER.SCE, LME, LMA, NXE (AMD64 manual volume 2, "Extended Feature Enable Register").
pub mod efer {
    /// System call extensions.
    pub const SCE: u64 = 1;
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// No-execute enable.
    pub const NXE: u64 = 1 << 11;
}

impl PrivateState {
    /// 64-bit mode at privilege 0, paging on, interrupts off, flat segments (CS 8, others 0x10), no descriptor tables.
    pub fn long_mode(rip: u64, rsp: u64, cr3: u64) -> Self {
        let data = Segment::data(0x10);
        Self {
            rip,
            rsp,
            rflags: 2,
            cr0: 0x8001_0033,
            cr3,
            cr4: 0x620,
            dr7: 0x400,
            efer: efer::SCE | efer::LME | efer::LMA | efer::NXE,
            pat: 0x0007_0406_0007_0406,
            es: data,
            cs: Segment::code64(8),
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            ldtr: Segment { attributes: 0x82, ..Segment::default() },
            tr: Segment { limit: 0x67, attributes: 0x8b, ..Segment::default() },
            ..Self::default()
        }
    }

    /// Protected mode of 32 bits at privilege 0 without paging, which needs no guest page tables.
    pub fn protected(rip: u64) -> Self {
        let mut state = Self::long_mode(rip, 0x1000, 0);
        (state.cr0, state.cr4, state.efer) = (0x11, 0, 0);
        state.cs = Segment { attributes: 0xc09b, ..state.cs };
        state
    }

    /// What start-up at a page of low memory leaves (AMD64 manual volume 2, "Processor Initialization State"; Intel SDM volume 3, "Processor State After Reset").
    pub fn started_at(page: u8) -> Self {
        let data = Segment { base: 0, limit: 0xffff, selector: 0, attributes: 0x93 };
        let selector = u16::from(page) << 8;
        let table = TableRegister { base: 0, limit: 0xffff };
        Self {
            rflags: 2,
            cr0: 0x6000_0010,
            dr7: 0x400,
            pat: 0x0007_0406_0007_0406,
            cs: Segment { base: u64::from(page) << 12, selector, attributes: 0x9b, ..data },
            es: data,
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            ldtr: Segment { attributes: 0x82, ..data },
            tr: Segment { attributes: 0x8b, ..data },
            gdtr: table,
            idtr: table,
            ..Self::default()
        }
    }

    /// Privilege level of the code.
    pub fn cpl(&self) -> u8 {
        u8::try_from(self.ss.attributes >> 5 & 3).unwrap_or(0)
    }

    fn msr_field(&mut self, number: u32) -> Option<&mut u64> {
        Some(match number {
            msr::SYSENTER_CS => &mut self.sysenter_cs,
            msr::SYSENTER_ESP => &mut self.sysenter_esp,
            msr::SYSENTER_EIP => &mut self.sysenter_eip,
            msr::PAT => &mut self.pat,
            msr::EFER => &mut self.efer,
            msr::STAR => &mut self.star,
            msr::LSTAR => &mut self.lstar,
            msr::CSTAR => &mut self.cstar,
            msr::SFMASK => &mut self.sfmask,
            msr::FS_BASE => &mut self.fs.base,
            msr::GS_BASE => &mut self.gs.base,
            msr::KERNEL_GS_BASE => &mut self.kernel_gs_base,
            _ => return None,
        })
    }

    /// Value of an MSR of [`msr::PRIVATE`]; `None` for any other.
    pub fn msr(mut self, number: u32) -> Option<u64> {
        self.msr_field(number).copied()
    }

    /// Sets an MSR as WRMSR of the guest would. `None`: not one of [`msr::PRIVATE`]. `Some(false)`: the CPU would raise #GP(0), nothing is changed.
    pub fn write_msr(&mut self, number: u32, value: u64) -> Option<bool> {
        let canonical = |value: u64| matches!(value >> 47, 0 | 0x1_ffff);
        let valid = match number {
            msr::EFER => {
                // FFXSR (bit 14) is the only other bit the emulated CPU knows; LMA is read only, and LME is locked while paging is on.
                let known = efer::SCE | efer::LME | efer::LMA | efer::NXE | 1 << 14;
                value & !known == 0 && (self.cr0 >> 31 & 1 == 0 || (value ^ self.efer) & efer::LME == 0)
            }
            msr::PAT => value.to_le_bytes().iter().all(|entry| matches!(entry, 0 | 1 | 4..=7)),
            msr::LSTAR
            | msr::CSTAR
            | msr::FS_BASE
            | msr::GS_BASE
            | msr::KERNEL_GS_BASE
            | msr::SYSENTER_ESP
            | msr::SYSENTER_EIP => canonical(value),
            _ => true,
        };
        let old_efer = self.efer;
        let field = self.msr_field(number)?;
        if valid {
            *field = if number == msr::EFER { value & !efer::LMA | old_efer & efer::LMA } else { value };
        }
        Some(valid)
    }
}

/// What all VTLs of a VP share and an engine can show. DR0 to DR3, x87/SSE/AVX state and XCR0 are shared as well and stay in the CPU.
#[expect(missing_docs, reason = "the fields are registers and bear their names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedState {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub cr2: u64,
    pub dr6: u64,
}
