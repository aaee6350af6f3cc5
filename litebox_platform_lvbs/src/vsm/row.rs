//! A call's row: what its handler's attribute and signature say, and where it is entered.
//!
//! Rows are constants, written by `#[vsm_handler]`. The gate, the jump table and every description of the ABI are made
//! from them; nothing here runs during a call.

use super::context::CallContext;
use super::function::VsmFunction;
use super::reply::Refusal;
use crate::error::Errno;

/// When a call may be made. There is no default: each handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PhaseRule {
    /// Before the end of boot only.
    Boot,
    /// After the end of boot only.
    Runtime,
    /// In both phases.
    Any,
}

impl PhaseRule {
    /// The name as the attribute spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Runtime => "runtime",
            Self::Any => "any",
        }
    }
}

/// Which processors may make a call. There is no default: each handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerRule {
    /// The processor that booted VTL1 only.
    Bsp,
    /// Every processor.
    Any,
}

impl CallerRule {
    /// The name as the attribute spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bsp => "bsp",
            Self::Any => "any",
        }
    }
}

/// An errno and when it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrnoMeta {
    /// The errno.
    pub errno: Errno,
    /// When it occurs, in a few words.
    pub when: &'static str,
}

impl ErrnoMeta {
    /// `errno`, which occurs in the case that `when` describes.
    #[must_use]
    pub const fn new(errno: Errno, when: &'static str) -> Self {
        Self { errno, when }
    }
}

/// One parameter of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamMeta {
    /// Its name in the handler's signature.
    pub name: &'static str,
    /// Its kind ([`VsmParam::KIND`](super::VsmParam::KIND)).
    pub kind: &'static str,
    /// Its unit and bounds ([`VsmParam::UNIT`](super::VsmParam::UNIT)).
    pub unit: &'static str,
    /// How many registers it takes.
    pub registers: usize,
    /// The bits that may be set in each of them ([`VsmParam::BITS`](super::VsmParam::BITS)).
    pub bits: u64,
    /// The errnos with which its type refuses ([`VsmParam::ERRORS`](super::VsmParam::ERRORS)).
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
    /// The reply's kind ([`VsmReply::KIND`](super::VsmReply::KIND)).
    pub reply: &'static str,
    /// The handler's own errnos, as its attribute lists them; [`CallRow::errnos`] adds those of the gate and of the
    /// parameters' types.
    pub errors: &'static [ErrnoMeta],
    /// The handler's documentation, line by line.
    pub doc: &'static str,
    /// The source file of the handler.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
}

/// An entry of the jump table. The registers are the call's three parameters, as VTL0 passed them.
pub type Entry = fn(&CallContext<'_>, &[u64; 3]) -> Result<u32, Refusal>;

/// A call and its handler. [`CallRow::of`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct CallRow {
    /// The call.
    pub function: VsmFunction,
    /// What is known of its handler.
    pub meta: HandlerMeta,
    /// Where it is entered.
    pub entry: Entry,
}
