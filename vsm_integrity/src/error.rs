//! The one error of the parsers: where, and which rule.

use thiserror::Error;

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("byte {offset:#x}: {rule}")]
pub struct ParseError {
    /// Offset of the offending element from the start of the parsed bytes.
    pub offset: usize,
    /// The rule that was broken.
    pub rule: &'static str,
}

impl ParseError {
    pub(crate) const fn new(offset: usize, rule: &'static str) -> Self {
        Self { offset, rule }
    }
}
