//! What a handler is to the table: a trait implementation that `#[vsm_handler]` writes.
//!
//! Trait coherence makes the registration exact: two handlers for a call do not compile (E0119), nor does a table
//! that lacks one (E0277). The helper types erase the parameter traits early, so that a wrong type in a handler's
//! signature is reported once, at that type.

use super::context::CallContext;
use super::errors::ErrnoMeta;
use super::function::{VsmCall, VsmFunction};
use super::gate::{CallerRule, PhaseRule};
use super::param::VsmParam;
use super::reply::VsmReply;
use crate::error::VsmError;
use crate::platform::Platform;

/// An entry of the jump table. The registers are the call's three parameters, as VTL0 passed them.
pub type Entry = fn(&CallContext<'_>, &[u64; 3]) -> Result<u32, VsmError>;

/// The handler of call `C`. Implemented through `#[vsm_handler(VsmFunction::X, …)]` on a function, never by hand.
#[diagnostic::on_unimplemented(
    message = "VSM050: VSM call `{C}` has no handler",
    label = "this table needs a handler for every declared call",
    note = "annotate a function with `#[vsm_handler(VsmFunction::…, phase = …, caller = …, errors(…))]`, and \
            with the flag `not_implemented` if the call is to answer -ENOTSUP"
)]
pub trait Handles<C: VsmCall> {
    /// What the attribute and the signature say.
    const META: HandlerMeta;

    /// Checks the registers and runs the handler.
    ///
    /// # Errors
    /// What is wrong with a parameter, or the handler's error.
    fn call(context: &CallContext<'_>, registers: &[u64; 3]) -> Result<u32, VsmError>;
}

/// One parameter of a handler, for listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamMeta {
    /// Its name in the handler's signature.
    pub name: &'static str,
    /// Its kind ([`VsmParam::KIND`]).
    pub kind: &'static str,
    /// Its unit and bounds ([`VsmParam::UNIT`]).
    pub unit: &'static str,
    /// How many registers it takes.
    pub registers: usize,
    /// The bits that may be set in each of them ([`VsmParam::BITS`]).
    pub bits: u64,
    /// The errnos with which its type refuses ([`VsmParam::ERRORS`]).
    pub errors: &'static [ErrnoMeta],
}

/// What is known of a handler.
#[derive(Clone, Copy, Debug)]
pub struct HandlerMeta {
    /// The function's name.
    pub name: &'static str,
    /// When the call may be made.
    pub phase: PhaseRule,
    /// Who may make it.
    pub caller: CallerRule,
    /// False if the call answers -ENOTSUP.
    pub implemented: bool,
    /// The parameters, in the registers' order.
    pub params: &'static [ParamMeta],
    /// The reply's kind ([`VsmReply::KIND`]).
    pub reply: &'static str,
    /// The handler's own errnos, as its attribute lists them; those of the gate and of the parameters' types follow from
    /// the rest ([`CallRow::errnos`]).
    pub errors: &'static [ErrnoMeta],
    /// The handler's documentation, line by line.
    pub doc: &'static str,
    /// The source file of the handler.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
}

/// A call and its handler.
#[derive(Clone, Copy, Debug)]
pub struct CallRow {
    /// The call.
    pub function: VsmFunction,
    /// What is known of its handler.
    pub meta: HandlerMeta,
    /// Where it is entered.
    pub entry: Entry,
}

impl CallRow {
    /// The row of call `C` in the table that `T` stands for.
    #[must_use]
    pub const fn of<T: Handles<C>, C: VsmCall>() -> Self {
        Self { function: C::FUNCTION, meta: T::META, entry: T::call }
    }
}

/// A parameter of a handler, with its type's trait turned into data.
pub struct Param<T> {
    meta: ParamMeta,
    parse: fn(&Platform, &[u64]) -> Result<T, VsmError>,
}

impl<T> Param<T> {
    /// The parameter `name` of type `T`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self
    where
        T: VsmParam,
    {
        let meta =
            ParamMeta { name, kind: T::KIND, unit: T::UNIT, registers: T::REGISTERS, bits: T::BITS, errors: T::ERRORS };
        Self { meta, parse: T::from_registers }
    }

    /// The parameter's row in a listing.
    #[must_use]
    pub const fn meta(&self) -> ParamMeta {
        self.meta
    }
}

/// A reply of a handler, with its type's trait turned into data.
pub struct Reply<T> {
    kind: &'static str,
    value: fn(T) -> u32,
}

impl<T> Reply<T> {
    /// The reply of type `T`.
    #[must_use]
    pub const fn of_type() -> Self
    where
        T: VsmReply,
    {
        Self { kind: T::KIND, value: T::into_value }
    }

    /// How listings name the reply.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// The result register's value.
    pub fn value(&self, reply: T) -> u32 {
        (self.value)(reply)
    }
}

/// The registers of a call that no parameter has taken yet.
#[derive(Debug)]
pub struct Registers<'a>(&'a [u64]);

impl<'a> Registers<'a> {
    /// How many parameter registers a call has (LVBS contract §3: RSI, RDX, R8).
    pub const COUNT: usize = 3;

    /// All registers of a call.
    #[must_use]
    pub const fn new(registers: &'a [u64; 3]) -> Self {
        Self(registers)
    }

    /// Takes the registers of `param` and checks them.
    ///
    /// # Errors
    /// What [`VsmParam::from_registers`] refuses, with the parameter's own name.
    pub fn take<T>(&mut self, param: &Param<T>, context: &CallContext<'_>) -> Result<T, VsmError> {
        let name = param.meta.name;
        let Some((mine, rest)) = self.0.split_at_checked(param.meta.registers) else {
            return Err(VsmError::InvalidParameter { name, value: u64::MAX });
        };
        self.0 = rest;
        (param.parse)(context.platform(), mine).map_err(|error| {
            context.note_parameter_refused();
            match error {
                VsmError::InvalidParameter { value, .. } => VsmError::InvalidParameter { name, value },
                other => other,
            }
        })
    }
}

/// How many registers `params` take together; for the compile-time check on a handler.
#[must_use]
pub const fn registers_of(params: &[ParamMeta]) -> usize {
    let mut sum = 0;
    let mut rest = params;
    while let [first, tail @ ..] = rest {
        sum += first.registers;
        rest = tail;
    }
    sum
}
