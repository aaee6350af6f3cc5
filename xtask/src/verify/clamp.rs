//! What a register is known to hold: a small abstract interpreter over the machine code of one function.
//!
//! It follows straight lines only. At every place where another path may join, and after every call, nothing is known,
//! so that "the index is clamped" is a statement about each path that reaches the branch. An instruction that is not
//! understood makes what it writes unknown. A 32-bit comparison proves nothing about a 64-bit register and is unknown.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Formatter, Instruction, InstructionInfoFactory, IntelFormatter, Mnemonic, OpAccess, OpKind, Register};

use super::TABLE_LEN;
use super::image::within;
use super::table::{ENTRY_SIZE, Table};
use super::value::{Part, State, Value, add, constant, scale};

/// How the target of an indirect branch comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An entry of the table, with a clamped index.
    ClampedEntry,
    /// An entry of the table, with any index.
    UnclampedEntry,
    /// Always this address.
    Fixed(u64),
    /// Something else.
    Unknown,
}

/// One indirect call or jump.
#[derive(Clone, Debug)]
pub struct IndirectBranch {
    /// Its address.
    pub at: u64,
    /// Its disassembly.
    pub text: String,
    /// Where it goes.
    pub target: Target,
}

/// What is known about memory, whatever path led to the code.
#[derive(Clone, Debug)]
pub struct Known {
    /// The jump table.
    pub table: Table,
    /// Pointers in memory that is read-only at run time, such as the global offset table: where they lie, what they hold.
    pub pointers: BTreeMap<u64, u64>,
}

impl Known {
    /// The value of the pointer at this address, if it can never be another one.
    fn pointer_at(&self, address: u64) -> Option<u64> {
        self.pointers.get(&address).copied()
    }
}

/// All indirect branches of a function, in address order. `joins` are the addresses at which another path may arrive.
pub fn indirect_branches(code: &[Instruction], joins: &BTreeSet<u64>, known: &Known) -> Vec<IndirectBranch> {
    let mut walker = Walker { state: State::new(), known, info: InstructionInfoFactory::new(), found: Vec::new() };
    for instruction in code {
        if joins.contains(&instruction.ip()) {
            walker.state.forget();
        }
        walker.step(instruction);
    }
    walker.found
}

/// The disassembly of one instruction.
pub fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    IntelFormatter::new().format(instruction, &mut text);
    text
}

struct Walker<'k> {
    state: State,
    known: &'k Known,
    info: InstructionInfoFactory,
    found: Vec<IndirectBranch>,
}

impl Walker<'_> {
    fn step(&mut self, instruction: &Instruction) {
        use iced_x86::FlowControl;
        match instruction.flow_control() {
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                let target = self.target(instruction);
                self.found.push(IndirectBranch { at: instruction.ip(), text: text(instruction), target });
                self.state.forget();
            }
            // The fall-through path of a conditional branch goes on with what is known: a branch changes no register.
            FlowControl::ConditionalBranch if instruction.is_jcc_short_or_near() => {}
            FlowControl::Next => self.compute(instruction),
            _ => self.state.forget(),
        }
    }

    fn target(&mut self, instruction: &Instruction) -> Target {
        let value = match instruction.op0_kind() {
            OpKind::Register => self.state.get(instruction.op0_register()),
            OpKind::Memory => self.load(instruction),
            _ => return Target::Unknown,
        };
        match value {
            Value::Entry { clamped: true } => Target::ClampedEntry,
            Value::Entry { clamped: false } => Target::UnclampedEntry,
            Value::Sum { base, part: Part::Nothing } => Target::Fixed(base),
            _ => Target::Unknown,
        }
    }

    /// The address of the instruction's memory operand.
    fn address(&mut self, instruction: &Instruction) -> Value {
        let part = |state: &mut State, register: Register| match register {
            // The displacement of a RIP-relative operand already is the address.
            Register::None | Register::RIP => constant(0),
            _ => state.get(register),
        };
        let base = part(&mut self.state, instruction.memory_base());
        let index = part(&mut self.state, instruction.memory_index());
        let index = scale(index, u64::from(instruction.memory_index_scale()));
        add(add(base, index), constant(instruction.memory_displacement64()))
    }

    /// Whether this address lies in the table.
    fn near_table(&self, address: u64) -> bool {
        within(self.known.table.address, TABLE_LEN * ENTRY_SIZE, address, 1)
    }

    /// The eight bytes that the instruction's memory operand names.
    fn load(&mut self, instruction: &Instruction) -> Value {
        if matches!(instruction.memory_segment(), Register::FS | Register::GS) {
            return self.state.fresh();
        }
        let Value::Sum { base, part } = self.address(instruction) else {
            return self.state.fresh();
        };
        let near_table = self.near_table(base);
        match part {
            Part::Clamped { len, factor } if near_table => {
                Value::Entry { clamped: len == TABLE_LEN && factor == ENTRY_SIZE && self.known.table.address == base }
            }
            _ if near_table => Value::Entry { clamped: false },
            Part::Nothing => match self.known.pointer_at(base) {
                Some(target) => constant(target),
                None => self.state.fresh(),
            },
            _ => self.state.fresh(),
        }
    }

    /// The value of operand 1, if it is a 64-bit register or an immediate.
    fn source(&mut self, instruction: &Instruction) -> Option<Value> {
        match instruction.op1_kind() {
            OpKind::Register => {
                let register = instruction.op1_register();
                register.is_gpr64().then(|| self.state.get(register))
            }
            OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate64 | OpKind::Immediate8 => {
                Some(constant(instruction.immediate(1)))
            }
            _ => None,
        }
    }

    fn compute(&mut self, instruction: &Instruction) {
        let result = self.result(instruction);
        let below = self.compared(instruction);
        if instruction.rflags_modified() != 0 || below.is_some() {
            self.state.below = below;
        }
        // Everything the instruction writes becomes unknown, and then what it computed becomes known.
        let written: Vec<Register> = self
            .info
            .info(instruction)
            .used_registers()
            .iter()
            .filter(|used| {
                !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess)
            })
            .map(iced_x86::UsedRegister::register)
            .collect();
        for register in written {
            let fresh = self.state.fresh();
            self.state.set(register, fresh);
        }
        if let Some((register, value)) = result {
            self.state.set(register, value);
        }
    }

    /// The destination and value of an instruction that is understood.
    fn result(&mut self, instruction: &Instruction) -> Option<(Register, Value)> {
        if instruction.op0_kind() != OpKind::Register {
            return None;
        }
        let to = instruction.op0_register();
        if to.is_gpr32() {
            return self.narrow_result(instruction, to);
        }
        if !to.is_gpr64() {
            return None;
        }
        let value = match instruction.mnemonic() {
            Mnemonic::Mov if instruction.op1_kind() == OpKind::Memory => self.load(instruction),
            Mnemonic::Mov => self.source(instruction)?,
            Mnemonic::Lea => self.address(instruction),
            Mnemonic::Add => {
                let source = self.source(instruction)?;
                add(self.state.get(to), source)
            }
            Mnemonic::Sub => match self.source(instruction)? {
                Value::Sum { base, part: Part::Nothing } => add(self.state.get(to), constant(base.wrapping_neg())),
                _ => return None,
            },
            Mnemonic::Shl | Mnemonic::Sal => match self.source(instruction)? {
                Value::Sum { base, part: Part::Nothing } => {
                    scale(self.state.get(to), 1_u64.checked_shl(u32::try_from(base).ok()?)?)
                }
                _ => return None,
            },
            Mnemonic::Xor if instruction.op1_kind() == OpKind::Register && instruction.op1_register() == to => {
                constant(0)
            }
            Mnemonic::Sbb if instruction.op1_kind() == OpKind::Register && instruction.op1_register() == to => {
                let (value, len) = self.state.below?;
                Value::Mask { value, len }
            }
            Mnemonic::And => {
                let source = self.source(instruction)?;
                match (self.state.get(to), source) {
                    (Value::Unknown(index), Value::Mask { value, len })
                    | (Value::Mask { value, len }, Value::Unknown(index))
                        if index == value =>
                    {
                        Value::Sum { base: 0, part: Part::Clamped { len, factor: 1 } }
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        // A sum with a part that may be anything is worth keeping only where it points near the table. Elsewhere it is a
        // value like any other, which a later comparison may bound.
        let plain = matches!(value, Value::Sum { base, part: Part::Anything } if !self.near_table(base));
        Some((to, if plain { self.state.fresh() } else { value }))
    }

    /// A 32-bit operation clears the upper half: a small constant or a clamped index survives it.
    fn narrow_result(&mut self, instruction: &Instruction, to: Register) -> Option<(Register, Value)> {
        let value = match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Mov, OpKind::Immediate32) => constant(instruction.immediate(1)),
            (Mnemonic::Xor, OpKind::Register) if instruction.op1_register() == to => constant(0),
            (Mnemonic::Mov, OpKind::Register) => {
                let from = instruction.op1_register().full_register();
                let value = self.state.get(from);
                let Value::Sum { base, part: Part::Clamped { len, factor } } = value else {
                    return None;
                };
                let end = len.checked_mul(factor)?.checked_add(base)?;
                u32::try_from(end).ok().map(|_| value)?
            }
            _ => return None,
        };
        Some((to, value))
    }

    /// What `cmp` says about the carry flag: `cmp value, len`, all 64 bits.
    fn compared(&mut self, instruction: &Instruction) -> Option<(u32, u64)> {
        if instruction.mnemonic() != Mnemonic::Cmp || instruction.op0_kind() != OpKind::Register {
            return None;
        }
        let left = instruction.op0_register();
        if !left.is_gpr64() {
            return None;
        }
        match (self.state.get(left), self.source(instruction)?) {
            (Value::Unknown(value), Value::Sum { base: len, part: Part::Nothing }) => Some((value, len)),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "clamp_tests.rs"]
mod tests;
