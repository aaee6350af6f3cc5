//! Errors are ABI: a call answers with an errno that its row lists, or its author has forgotten one.
//!
//! For tests and fuzzers on a host; the image does not have this file. What a handler answers is compared with its own list. A
//! machine test knows only the result, which the gate and the parameters' types may give as well.

use alloc::format;
use alloc::string::String;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::CallRow;

use crate::dispatch::Answer;

/// Compares answers with the rows of their calls.
#[derive(Clone, Copy, Debug)]
pub struct AnswerCheck<'a>(&'a [CallRow]);

impl<'a> AnswerCheck<'a> {
    /// The check by these rows.
    #[must_use]
    pub const fn new(rows: &'a [CallRow]) -> Self {
        Self(rows)
    }

    /// The result of `answer`, if the row of the call with this id lists it. An id that is no call's has no row to break.
    ///
    /// # Errors
    /// What the author of the call has to add where.
    pub fn check(&self, id: u64, answer: Answer) -> Result<i64, String> {
        let Answer { result, by_handler } = answer;
        let Some(row) = self.0.iter().find(|row| row.function.id() == id) else { return Ok(result) };
        let CallRow { function, meta, .. } = row;
        let lists = |errno| match by_handler {
            true if meta.implemented => meta.errors.iter().any(|listed| listed.errno == errno),
            true => errno == Errno::Enotsup,
            false => row.errnos().contains(errno),
        };
        match Errno::from_result(result) {
            _ if result >= 0 => Ok(result),
            None => Err(format!("{} answered {result}, which is no errno of VTL1's", function.name())),
            Some(errno) if lists(errno) => Ok(result),
            Some(errno) => Err(format!(
                "{call} answered -{errno}, which its {list} does not list: add `{errno} = \"when it occurs\"` to \
                 `errors(…)` of `{handler}` ({file}:{line}), or let it answer something else",
                call = function.name(),
                list = if by_handler { "handler" } else { "row" },
                errno = errno.name(),
                handler = meta.name,
                file = meta.file,
                line = meta.line,
            )),
        }
    }
}
