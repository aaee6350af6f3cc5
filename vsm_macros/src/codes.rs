//! The codes of the diagnostics: each mistake has a number that stays, and `cargo xtask explain CODE` says more about it.
//!
//! A code that is no longer drawn is removed here and never given to another mistake. The words about each are in
//! `docs/src/diagnostics.md`; VSM050 to VSM053 are drawn by the compiler, in words of the platform's traits and of the
//! expansion.

use std::fmt;

/// A mistake. The discriminant is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// The attribute does not begin with the call.
    Call = 1,
    PhaseMissing = 2,
    CallerMissing = 3,
    Key = 4,
    Twice = 5,
    Phase = 6,
    Caller = 7,
    FlagValue = 8,
    /// What cannot be parsed, in the parser's words.
    Syntax = 9,
    ErrorsMissing = 10,
    Errors = 11,
    ErrnoTwice = 12,
    ErrorsOfNothing = 13,
    Item = 20,
    Undocumented = 21,
    HandlerTwice = 22,
    Const = 23,
    Async = 24,
    Unsafe = 25,
    Abi = 26,
    Variadic = 27,
    Generics = 28,
    Where = 29,
    NotImplemented = 30,
    Receiver = 31,
    Context = 32,
    FourParameters = 33,
    Reply = 34,
    Reference = 35,
    ImplTrait = 36,
    Lifetime = 37,
    Pattern = 38,
    IdLiteral = 40,
    NoCalls = 41,
    CallUndocumented = 42,
    CallAttribute = 43,
    CallTwice = 44,
    IdNumber = 45,
    IdTwice = 46,
    IdOrder = 47,
    TableLength = 48,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VSM{:03}", *self as u16)
    }
}
