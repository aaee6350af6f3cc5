//! The register state of a processor: filled with patterns by one snippet, taken by another, compared by the host.
//!
//! Both go through the processor's two exchange pages, by absolute addresses, so that no register is needed for it: the
//! first holds what is loaded, and what the FPU made of it; the second what was found afterwards.

use anyhow::{Result, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::guest::exchange;
use vsm_sim::machine::{VTL0, Vtl0};
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::bytes;

/// Names in the order of the block; the first 15 words.
const GPRS: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const GPR_REGISTERS: [AsmRegister64; 15] = [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15];
/// Words behind them.
const OTHERS: [&str; 8] = ["rflags", "cr2", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"];
const RFLAGS: u64 = 15 * 8;
const CR2: u64 = 16 * 8;
const DR: u64 = 17 * 8;
const DEBUG_REGISTERS: [AsmRegisterDr; 6] = [dr0, dr1, dr2, dr3, dr6, dr7];
const WORDS: usize = 23;
/// The XSAVE area in a block, in its standard form (Intel SDM vol. 1 §13.4): 512 bytes as FXSAVE has them, 64 of
/// header, 256 of YMM upper halves.
const XSAVE: u64 = 0x400;
const XSAVE_SIZE: usize = 832;
const HEADER: usize = 512;
const YMM: usize = 576;
/// What the FPU made of the loaded area, in the first block.
const BEFORE: u64 = 0x800;
/// Bytes of the FXSAVE area that the CPU defines.
const FX_END: usize = 416;

/// Flags a program may set at any time without consequences: CF, PF, AF, ZF, SF, DF, OF (Intel SDM vol. 1 §3.4.3).
const FLAGS: u64 = 0xCD5;
const RFLAGS_FIXED: u64 = 2;
/// RF, which the CPU sets in the frame of a fault.
const RFLAGS_RF: u64 = 1 << 16;

/// How much of the FPU's state XCR0 lets a program see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fpu {
    /// x87, SSE and AVX are enabled; the state moves by XSAVE.
    Avx,
    /// XCR0 holds x87 alone; FXSAVE still sees the XMM registers.
    X87Only,
}

impl Fpu {
    /// XCR0's value.
    pub fn xcr0(self) -> u32 {
        match self {
            Self::Avx => 7,
            Self::X87Only => 1,
        }
    }
}

/// What to fill a processor with.
#[derive(Clone)]
pub struct Patterns {
    words: [u64; WORDS],
    fpu: [u8; XSAVE_SIZE],
}

impl Patterns {
    /// Random patterns for all of it.
    pub fn new(random: &mut SplitMix) -> Self {
        let mut words = [0; WORDS];
        words.fill_with(|| random.next());
        words[15] = words[15] & FLAGS | RFLAGS_FIXED;
        // The causes of a debug exception, in a register that is 1 elsewhere; the kinds and lengths of four breakpoints
        // of which none is enabled (Intel SDM vol. 3 §17.2).
        words[21] = words[21] & 0x600F | 0xFFFF_0FF0;
        words[22] = words[22] & 0xFFFF_0000 | 0x400;
        let mut fpu = [0; XSAVE_SIZE];
        for (at, byte) in fpu.iter_mut().enumerate() {
            // Nothing of the header but XSTATE_BV; the mask of MXCSR is not ours to say.
            if !(FX_END..YMM).contains(&at) && !(28..32).contains(&at) {
                *byte = random.next().to_le_bytes()[3];
            }
        }
        fpu[HEADER] = 7;
        fpu[5] = 0;
        // Neither unmasked x87 exceptions nor reserved bits of MXCSR are avoided, but its upper half must be zero.
        fpu[26] = 0;
        fpu[27] = 0;
        Self { words, fpu }
    }

    /// Sets a general-purpose register.
    pub fn with(mut self, register: &str, value: u64) -> Self {
        let index = GPRS.iter().position(|name| *name == register).expect("a register");
        self.words[index] = value;
        self
    }

    /// A general-purpose register's pattern.
    pub fn get(&self, register: &str) -> u64 {
        self.words[GPRS.iter().position(|name| *name == register).expect("a register")]
    }

    /// Writes the block that [`fill`]'s code loads.
    pub fn write(&self, vtl0: &mut Vtl0) -> Result<()> {
        let ram = vtl0.machine().ram().clone();
        let block = exchange(vtl0.processor().vp());
        bytes::write(&ram, block, &[0; 2 * 4096])?;
        for (offset, word) in (block..).step_by(8).zip(self.words) {
            bytes::write_u64(&ram, offset, word)?;
        }
        bytes::write(&ram, block + XSAVE, &self.fpu)
    }

    /// Compares the general-purpose registers, CR2 and the flags with those of a processor that has stopped.
    pub fn compare_stopped(&self, vtl0: &mut Vtl0, rflags: u64) -> Result<()> {
        let now = vtl0.processor().vcpu().shared();
        for (index, (name, found)) in GPRS.iter().zip(general(&now)).enumerate() {
            let wanted = self.words[index];
            ensure!(found == wanted, "{name} was {wanted:#x} and is {found:#x}");
        }
        ensure!(now.cr2 == self.words[16], "cr2 was {:#x} and is {:#x}", self.words[16], now.cr2);
        let rflags = rflags & !RFLAGS_RF;
        ensure!(rflags == self.words[15], "rflags were {:#x} and are {rflags:#x}", self.words[15]);
        Ok(())
    }

    /// Compares everything with what [`take`]'s code found. `results` are registers with the values they must have
    /// instead; with `fpu_only`, general-purpose registers and flags are not looked at.
    pub fn compare(&self, vtl0: &mut Vtl0, results: &[(&str, u64)], fpu_only: bool) -> Result<()> {
        let ram = vtl0.machine().ram().clone();
        let block = exchange(vtl0.processor().vp());
        let found = block + 4096;
        for (index, name) in GPRS.iter().chain(&OTHERS).enumerate() {
            if fpu_only && index < 16 {
                continue;
            }
            let wanted =
                results.iter().find(|(result, _)| result == name).map_or(self.words[index], |(_, value)| *value);
            let is = bytes::read_u64(&ram, found + index as u64 * 8)?;
            ensure!(is == wanted, "{name} must be {wanted:#x} and is {is:#x}");
        }
        let (mut before, mut after) = ([0; XSAVE_SIZE], [0; XSAVE_SIZE]);
        bytes::read(&ram, block + BEFORE, &mut before)?;
        bytes::read(&ram, found + XSAVE, &mut after)?;
        for at in (0..FX_END).chain(YMM..XSAVE_SIZE) {
            let what = match at {
                0..24 => "x87 control",
                24..32 => "mxcsr",
                32..160 => "an x87 register",
                160..FX_END => "an XMM register",
                _ => "the upper half of a YMM register",
            };
            ensure!(before[at] == after[at], "{what} (byte {at}) was {:#x} and is {:#x}", before[at], after[at]);
        }
        // And it was the pattern that was there.
        ensure!(after[160..FX_END] == self.fpu[160..FX_END], "the XMM registers never held the pattern");
        ensure!(after[24..28] == self.fpu[24..28], "MXCSR never held the pattern");
        ensure!(before[32..42] == self.fpu[32..42], "the x87 registers never held the pattern");
        let ymm = before[HEADER] & 4 != 0;
        ensure!(!ymm || after[YMM..] == self.fpu[YMM..], "the YMM registers never held the pattern");
        Ok(())
    }
}

fn general(state: &SharedState) -> [u64; 15] {
    let s = state;
    [s.rax, s.rbx, s.rcx, s.rdx, s.rsi, s.rdi, s.rbp, s.r8, s.r9, s.r10, s.r11, s.r12, s.r13, s.r14, s.r15]
}

fn at(address: u64) -> i32 {
    i32::try_from(address).expect("VTL0's own memory lies in the first 2 GiB")
}

/// Code that fills the processor with the patterns; it ends with the flags.
pub fn fill(asm: &mut CodeAssembler, vp: u32, fpu: Fpu) -> Result<(), IcedError> {
    let block = exchange(vp);
    for (offset, register) in (block + DR..).step_by(8).zip(DEBUG_REGISTERS) {
        asm.mov(rax, qword_ptr(at(offset)))?;
        asm.mov(register, rax)?;
    }
    asm.mov(rax, qword_ptr(at(block + CR2)))?;
    asm.mov(cr2, rax)?;
    match fpu {
        Fpu::Avx => {
            asm.mov(eax, 7)?;
            asm.xor(edx, edx)?;
            asm.xrstor64(ptr(at(block + XSAVE)))?;
            asm.xsave64(ptr(at(block + BEFORE)))?;
        }
        Fpu::X87Only => {
            asm.fxrstor64(ptr(at(block + XSAVE)))?;
            asm.fxsave64(ptr(at(block + BEFORE)))?;
        }
    }
    asm.push(qword_ptr(at(block + RFLAGS)))?;
    for (offset, register) in (block..).step_by(8).zip(GPR_REGISTERS) {
        asm.mov(register, qword_ptr(at(offset)))?;
    }
    asm.popfq()
}

/// Code that takes the processor's state.
pub fn take(asm: &mut CodeAssembler, vp: u32, fpu: Fpu) -> Result<(), IcedError> {
    let block = exchange(vp) + 4096;
    for (offset, register) in (block..).step_by(8).zip(GPR_REGISTERS) {
        asm.mov(qword_ptr(at(offset)), register)?;
    }
    asm.pushfq()?;
    asm.pop(qword_ptr(at(block + RFLAGS)))?;
    asm.cld()?;
    asm.mov(rax, cr2)?;
    asm.mov(qword_ptr(at(block + CR2)), rax)?;
    for (offset, register) in (block + DR..).step_by(8).zip(DEBUG_REGISTERS) {
        asm.mov(rax, register)?;
        asm.mov(qword_ptr(at(offset)), rax)?;
    }
    match fpu {
        Fpu::Avx => {
            asm.mov(eax, 7)?;
            asm.xor(edx, edx)?;
            asm.xsave64(ptr(at(block + XSAVE)))
        }
        Fpu::X87Only => asm.fxsave64(ptr(at(block + XSAVE))),
    }
}

/// Sets XCR0, in VTL0, with an instruction.
pub fn set_xcr0(vtl0: &mut Vtl0, fpu: Fpu) -> Result<()> {
    vtl0.must_run(&SharedState { rax: fpu.xcr0().into(), ..SharedState::default() }, CodeAssembler::xsetbv)?;
    Ok(())
}

/// VTL0's XCR0, read with an instruction.
pub fn xcr0(vtl0: &mut Vtl0) -> Result<u64> {
    let state = vtl0.must_run(&SharedState::default(), CodeAssembler::xgetbv)?;
    Ok(state.rdx << 32 | state.rax & 0xffff_ffff)
}

/// VTL0's flags as they are now.
pub fn rflags(vtl0: &mut Vtl0) -> u64 {
    vtl0.processor().vcpu().state(VTL0).rflags
}
