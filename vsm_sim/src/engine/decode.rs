//! Reading and decoding the instruction a guest stopped at. QEMU's SVM gives neither instruction length nor operands, so they are found here. The bytes
//! are the guest's and may change under our eyes: what is decoded is a copy, and an answer may be wrong only for a guest that patches itself.

use super::Instruction;
use super::ram::GuestRam;
use super::state::{PrivateState, SharedState, efer};
use super::walk::translate;
use iced_x86::{Code, Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpKind, Register};

const PAGE: u64 = 4096;

/// Copies up to 15 bytes at CS:RIP, as many as are mapped.
pub fn fetch(ram: &GuestRam, state: &PrivateState) -> ([u8; 15], usize) {
    let mut bytes = [0; 15];
    let long = state.efer & efer::LMA != 0 && state.cs.attributes & 1 << 13 != 0;
    let linear = if long { state.rip } else { state.rip.wrapping_add(state.cs.base) & 0xffff_ffff };
    let mut done = 0;
    while done < bytes.len() {
        let at = linear.wrapping_add(done as u64);
        let in_page = usize::try_from(PAGE - at % PAGE).unwrap_or(1).min(bytes.len() - done);
        let read =
            translate(ram, state, at).and_then(|found| ram.read(found.gpa, &mut bytes[done..done + in_page]).ok());
        if read.is_none() {
            break;
        }
        done += in_page;
    }
    (bytes, done)
}

/// Decodes the instruction at CS:RIP.
pub fn decode(ram: &GuestRam, state: &PrivateState) -> (Instruction, Option<iced_x86::Instruction>) {
    let (bytes, available) = fetch(ram, state);
    let bits =
        match (state.efer & efer::LMA != 0 && state.cs.attributes & 1 << 13 != 0, state.cs.attributes & 1 << 14 != 0) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        };
    let decoded = Decoder::with_ip(bits, &bytes[..available], state.rip, DecoderOptions::AMD).decode();
    let decoded = Some(decoded).filter(|found| !found.is_invalid());
    let len = decoded.map_or(0, |found| u8::try_from(found.len()).unwrap_or(0));
    (Instruction { bytes, available: u8::try_from(available).unwrap_or(0), len }, decoded)
}

/// Value of a register as an operand or address part; `None` for those that cannot be one here.
pub fn register(state: &PrivateState, shared: &SharedState, register: Register, next_rip: u64) -> Option<u64> {
    let segment = |segment: &super::Segment, flat: bool| if flat { 0 } else { segment.base };
    let long = state.efer & efer::LMA != 0 && state.cs.attributes & 1 << 13 != 0;
    match register {
        Register::ES => return Some(segment(&state.es, long)),
        Register::CS => return Some(segment(&state.cs, long)),
        Register::SS => return Some(segment(&state.ss, long)),
        Register::DS => return Some(segment(&state.ds, long)),
        Register::FS => return Some(state.fs.base),
        Register::GS => return Some(state.gs.base),
        Register::RIP | Register::EIP => return Some(next_rip),
        _ => {}
    }
    let full = match register.full_register() {
        Register::RAX => shared.rax,
        Register::RBX => shared.rbx,
        Register::RCX => shared.rcx,
        Register::RDX => shared.rdx,
        Register::RSI => shared.rsi,
        Register::RDI => shared.rdi,
        Register::RBP => shared.rbp,
        Register::RSP => state.rsp,
        Register::R8 => shared.r8,
        Register::R9 => shared.r9,
        Register::R10 => shared.r10,
        Register::R11 => shared.r11,
        Register::R12 => shared.r12,
        Register::R13 => shared.r13,
        Register::R14 => shared.r14,
        Register::R15 => shared.r15,
        _ => return None,
    };
    Some(match register.size() {
        8 => full,
        4 => full & 0xffff_ffff,
        2 => full & 0xffff,
        _ if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) => full >> 8 & 0xff,
        _ => full & 0xff,
    })
}

/// The linear addresses of the memory an instruction touches, with the bytes each access is long.
fn touched(state: &PrivateState, shared: &SharedState, found: &iced_x86::Instruction) -> Vec<(u64, u64)> {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(found);
    let address = |memory: &iced_x86::UsedMemory| {
        memory.virtual_address(0, |name, _, _| register(state, shared, name, found.next_ip()))
    };
    info.used_memory()
        .iter()
        .filter_map(|memory| Some((address(memory)?, memory.memory_size().size().max(1) as u64)))
        .collect()
}

/// The linear address behind a data access to `gpa` by the instruction at RIP.
pub fn data_address(ram: &GuestRam, state: &PrivateState, shared: &SharedState, gpa: u64) -> Option<u64> {
    let found = decode(ram, state).1?;
    let page = gpa & !(PAGE - 1);
    for (start, len) in touched(state, shared, &found) {
        for at in [start, start.wrapping_add(len - 1) & !(PAGE - 1)] {
            if translate(ram, state, at).is_some_and(|to| to.gpa & !(PAGE - 1) == page) {
                return Some(at & !(PAGE - 1) | gpa & (PAGE - 1));
            }
        }
    }
    None
}

/// The linear address behind an instruction fetch from `gpa`: RIP, or the start of the next page if the instruction runs into it.
pub fn fetch_address(ram: &GuestRam, state: &PrivateState, gpa: u64) -> Option<u64> {
    let page = gpa & !(PAGE - 1);
    let next = (state.rip & !(PAGE - 1)).wrapping_add(PAGE);
    [state.rip, next].into_iter().find(|at| translate(ram, state, *at).is_some_and(|to| to.gpa & !(PAGE - 1) == page))
}

/// The value that the MOV or XCHG to memory at RIP would store.
pub fn stored_value(ram: &GuestRam, state: &PrivateState, shared: &SharedState) -> Option<u64> {
    let found = decode(ram, state).1?;
    if !matches!(found.mnemonic(), Mnemonic::Mov | Mnemonic::Xchg) || found.op0_kind() != OpKind::Memory {
        return None;
    }
    match found.op1_kind() {
        OpKind::Register => register(state, shared, found.op1_register(), found.next_ip()),
        OpKind::Immediate32 => Some(u64::from(found.immediate32())),
        _ => None,
    }
}

/// The value that the control register write at RIP would store.
pub fn control_register_value(ram: &GuestRam, state: &PrivateState, shared: &SharedState) -> Option<u64> {
    let found = decode(ram, state).1?;
    match found.code() {
        Code::Mov_cr_r64 | Code::Mov_cr_r32 => register(state, shared, found.op1_register(), found.next_ip()),
        Code::Clts => Some(state.cr0 & !8),
        Code::Lmsw_rm16 | Code::Lmsw_r32m16 | Code::Lmsw_r64m16 => {
            let source = if found.op0_kind() == OpKind::Register {
                register(state, shared, found.op0_register(), found.next_ip())?
            } else {
                let (at, _) = *touched(state, shared, &found).first()?;
                let mut word = [0; 2];
                for (index, byte) in word.iter_mut().enumerate() {
                    let to = translate(ram, state, at.wrapping_add(index as u64))?;
                    ram.read(to.gpa, core::slice::from_mut(byte)).ok()?;
                }
                u64::from(u16::from_le_bytes(word))
            };
            // LMSW changes MP, EM and TS, and can set but not clear PE.
            Some(state.cr0 & !0xe | source & 0xf | state.cr0 & 1)
        }
        _ => None,
    }
}
