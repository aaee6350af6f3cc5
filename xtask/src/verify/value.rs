//! What one register can be known to hold, and the registers of a processor as far as they are known.

use iced_x86::Register;

/// How a sum depends on a value that is not constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It doesn't.
    Nothing,
    /// A value known to be below `len`, times `factor`.
    Clamped { len: u64, factor: u64 },
    /// Anything.
    Anything,
}

/// What a 64-bit register or an address holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Something; equal numbers are equal values.
    Unknown(u32),
    /// A constant plus a variable part.
    Sum { base: u64, part: Part },
    /// All ones if the value with this number is below `len`, else zero.
    Mask { value: u32, len: u64 },
    /// An entry of the table; `clamped` says whether its index was.
    Entry { clamped: bool },
}

/// What is known at one point of a function.
pub struct State {
    registers: [Value; 16],
    /// Set by `cmp value, len`: the carry flag says whether the value with this number is below `len`.
    pub below: Option<(u32, u64)>,
    next: u32,
}

impl State {
    /// Nothing is known.
    pub fn new() -> Self {
        let mut state = Self { registers: [Value::Unknown(0); 16], below: None, next: 0 };
        state.forget();
        state
    }

    /// A value that equals no other one.
    pub fn fresh(&mut self) -> Value {
        self.next += 1;
        Value::Unknown(self.next)
    }

    /// From here on nothing is known: another path may arrive, or code not looked at has run.
    pub fn forget(&mut self) {
        for slot in 0..self.registers.len() {
            self.registers[slot] = self.fresh();
        }
        self.below = None;
    }

    /// What the 64-bit register holds; of a part of a register nothing is known.
    pub fn get(&mut self, register: Register) -> Value {
        match slot(register) {
            Some(slot) if register.is_gpr64() => self.registers[slot],
            _ => self.fresh(),
        }
    }

    /// Notes what the whole register that this one belongs to holds.
    pub fn set(&mut self, register: Register, value: Value) {
        if let Some(slot) = slot(register) {
            self.registers[slot] = value;
        }
    }
}

/// The position of a general register of any width in [`State::registers`].
fn slot(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number()).filter(|number| *number < 16)
}

/// A value that is always this one.
pub fn constant(base: u64) -> Value {
    Value::Sum { base, part: Part::Nothing }
}

/// The sum of two values.
pub fn add(a: Value, b: Value) -> Value {
    let parts = |value: Value| match value {
        Value::Sum { base, part } => (base, part),
        _ => (0, Part::Anything),
    };
    let ((a, left), (b, right)) = (parts(a), parts(b));
    let part = match (left, right) {
        (Part::Nothing, other) | (other, Part::Nothing) => other,
        _ => Part::Anything,
    };
    Value::Sum { base: a.wrapping_add(b), part }
}

/// A value times a constant.
pub fn scale(value: Value, by: u64) -> Value {
    match value {
        _ if by == 1 => value,
        Value::Sum { base, part: Part::Nothing } => constant(base.wrapping_mul(by)),
        Value::Sum { base, part: Part::Clamped { len, factor } } => match factor.checked_mul(by) {
            Some(factor) => Value::Sum { base: base.wrapping_mul(by), part: Part::Clamped { len, factor } },
            None => Value::Sum { base: 0, part: Part::Anything },
        },
        _ => Value::Sum { base: 0, part: Part::Anything },
    }
}
