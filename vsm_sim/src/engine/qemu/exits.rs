//! What an SVM exit means in the engine's terms, and the few exits the engine answers itself: EFER and PAT, which QEMU cannot leave to the guest;
//! invalid CR4 values, for which QEMU 7.2 exits with an error instead of raising #GP; and the SVM instructions, which the guest's CPU does not have.

use super::vcpu::Context;
use super::vmcb::{EXIT_CODE, EXIT_INFO1, EXIT_INFO2};
use crate::engine::decode;
use crate::engine::exit::{Event, Exit, MemoryFault, Reason, Table};
use crate::engine::ram::GuestRam;
use crate::engine::state::{PrivateState, SharedState, msr};
use iced_x86::Mnemonic;

/// What to do with an exit.
pub enum Outcome {
    /// Nothing is to be done: go on.
    Again,
    /// Report it.
    Exit(Exit),
    /// Inject an event and go on.
    Inject(Event),
    /// Give the value of an MSR, skip the instruction, go on.
    MsrRead {
        /// Value for EDX:EAX.
        value: u64,
        /// Length of the instruction.
        len: u8,
    },
    /// Set the private state, skip the instruction, go on.
    State {
        /// The new state.
        state: Box<PrivateState>,
        /// Length of the instruction.
        len: u8,
    },
}

fn low32(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

/// Interprets the last exit of a context.
pub fn interpret(ram: &GuestRam, context: &Context, state: &PrivateState, shared: &SharedState) -> Outcome {
    let vmcb = &context.vmcb;
    let code = vmcb.get64(EXIT_CODE);
    let (info1, info2) = (vmcb.get64(EXIT_INFO1), vmcb.get64(EXIT_INFO2));
    let (instruction, decoded) = decode::decode(ram, state);
    let is = |wanted: &[Mnemonic]| decoded.is_some_and(|found| wanted.contains(&found.mnemonic()));
    let exit = |reason, instruction_len| Outcome::Exit(Exit { reason, rip: state.rip, instruction_len });
    let unsupported = || exit(Reason::Unsupported(format!("SVM exit {code:#x}, information {info1:#x} {info2:#x}")), 0);
    let len = instruction.len;
    // QEMU writes the error code as 32 or 64 bits.
    if low32(code) == u32::MAX {
        return if is(&[Mnemonic::Mov]) { Outcome::Inject(Event::GENERAL_PROTECTION) } else { unsupported() };
    }
    match code {
        0x10..=0x1f => match decode::control_register_value(ram, state, shared) {
            Some(value) => exit(Reason::CrWrite { cr: code.to_le_bytes()[0] & 0xf, value }, len),
            None => unsupported(),
        },
        0x41 if context.single_step => exit(Reason::Step, 0),
        0x40..=0x5f => {
            let vector = code.to_le_bytes()[0] - 0x40;
            let gva = if vector == 14 { info2 } else { 0 };
            exit(Reason::Exception { vector, error: low32(info1), gva }, len)
        }
        // The stub has let the NMI in.
        0x61 => Outcome::Again,
        0x6a => exit(Reason::TableWrite(Table::Idtr), len),
        0x6b => exit(Reason::TableWrite(Table::Gdtr), len),
        0x6c => exit(Reason::TableWrite(Table::Ldtr), len),
        0x6d => exit(Reason::TableWrite(Table::Tr), len),
        0x72 => exit(Reason::Cpuid { leaf: low32(shared.rax), subleaf: low32(shared.rcx) }, len),
        // RSM, INVLPGA, the SVM instructions, MONITOR and MWAIT.
        0x73 | 0x7a | 0x80 | 0x82..=0x86 | 0x8a..=0x8c => Outcome::Inject(Event::INVALID_OPCODE),
        0x76 => Outcome::State { state: Box::new(*state), len },
        0x78 => exit(Reason::Halt, len),
        0x7b => {
            let size = (info1 >> 4 & 7).to_le_bytes()[0];
            let mask = if size == 4 { u64::from(u32::MAX) } else { (1 << (8 * u32::from(size))) - 1 };
            let write = info1 & 1 == 0;
            let [_, _, p0, p1, ..] = info1.to_le_bytes();
            let value = if write { low32(shared.rax & mask) } else { 0 };
            let string = info1 & 4 != 0;
            exit(Reason::Io { port: u16::from_le_bytes([p0, p1]), size, write, value, string }, len)
        }
        0x7c => msr_access(context, state, shared, info1 != 0, len),
        0x7f => exit(Reason::Shutdown, 0),
        0x81 => exit(Reason::Hypercall, len),
        0x400 => {
            let (write, execute, page_walk) = (info1 & 2 != 0, info1 & 0x10 != 0, info1 >> 33 & 1 != 0);
            let gva = match (page_walk, execute) {
                (true, _) => None,
                (false, true) => decode::fetch_address(ram, state, info2),
                (false, false) => decode::data_address(ram, state, shared, info2),
            };
            let fault = MemoryFault { gpa: info2, write, execute, gva, page_walk, cpl: vmcb.cpl() };
            exit(Reason::Memory(fault), if execute { 0 } else { len })
        }
        _ => unsupported(),
    }
}

fn msr_access(context: &Context, state: &PrivateState, shared: &SharedState, write: bool, len: u8) -> Outcome {
    let number = low32(shared.rcx);
    let exit = |reason| Outcome::Exit(Exit { reason, rip: state.rip, instruction_len: len });
    let engines = matches!(number, msr::EFER | msr::PAT);
    if write {
        let value = shared.rdx << 32 | shared.rax & 0xffff_ffff;
        if !engines || context.intercepts.msr_writes.contains(&number) {
            return exit(Reason::MsrWrite { msr: number, value });
        }
        let mut state = Box::new(*state);
        return match state.write_msr(number, value) {
            Some(true) => Outcome::State { state, len },
            _ => Outcome::Inject(Event::GENERAL_PROTECTION),
        };
    }
    match state.msr(number) {
        Some(value) if engines && !context.intercepts.msr_reads.contains(&number) => Outcome::MsrRead { value, len },
        _ => exit(Reason::MsrRead { msr: number }),
    }
}
