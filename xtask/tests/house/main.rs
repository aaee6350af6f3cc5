//! The house rules, checked over every file of the repository that git tracks or would track.
//!
//! A rule is a function from text to findings, so that each is also tried on a text that breaks it. What is trusted:
//! git's list of the files.
//!
//! | module | rules |
//! |---|---|
//! | `ratchet` | how much `unsafe` each crate may have: never more than before |
//! | `unsafety` | finding `unsafe`, and what must be written beside it |
//! | `text` | length, first paragraph, forbidden macros and attributes, machine paths, scripts |
//! | `dependencies` | which crate may depend on which |
//! | `floors` | which module of a crate may import which |
//! | `vtl0_memory` | where VTL0's memory may be read and written |
//! | `boundary` | the tests that the boundary's page names |

mod boundary;
mod dependencies;
mod floors;
mod ratchet;
mod text;
mod tree;
mod unsafety;
mod vtl0_memory;

use std::fmt;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the root of the repository.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Finding {
    /// A finding.
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Fails with all findings of a rule.
///
/// # Panics
/// When there is any.
pub fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(|finding| format!("  {finding}")).collect();
    assert!(findings.is_empty(), "{} places break a house rule:\n{}", findings.len(), lines.join("\n"));
}

/// The lines of the findings, for the tests of the rules themselves.
pub fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|finding| finding.line).collect()
}
