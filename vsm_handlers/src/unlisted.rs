//! Errors are ABI: a call answers with an errno that its row lists, or its author has forgotten one.
//!
//! Nothing in the image looks here. A hosted test or a fuzz run knows who answered: what the handler answers is compared with
//! the handler's own list. A machine test knows the result only, which the gate and the parameters' types may give as well.

use core::fmt;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::{Answer, CallRow, VsmFunction};

use crate::table::ROWS;

/// A result that its call's row does not list.
#[derive(Clone, Copy, Debug)]
pub struct Unlisted {
    row: &'static CallRow,
    answer: Answer,
}

static TABLE: [CallRow; VsmFunction::COUNT] = ROWS;

/// What is wrong with `result` as the answer of the call with this id, whoever gave it; `None` if nothing is.
#[must_use]
pub fn unlisted(id: u64, result: i64) -> Option<Unlisted> {
    unlisted_in(&TABLE, id, Answer { result, by_handler: false })
}

/// The same of an answer of which is known who gave it.
#[must_use]
pub fn unlisted_answer(id: u64, answer: Answer) -> Option<Unlisted> {
    unlisted_in(&TABLE, id, answer)
}

/// As [`unlisted_answer`], for another table.
#[must_use]
pub fn unlisted_in(rows: &'static [CallRow], id: u64, answer: Answer) -> Option<Unlisted> {
    let row = rows.iter().find(|row| row.function.id() == id)?;
    let lists = |errno| match answer.by_handler {
        true if row.meta.implemented => row.meta.errors.iter().any(|listed| listed.errno == errno),
        true => errno == Errno::Enotsup,
        false => row.errnos().contains(errno),
    };
    let listed = answer.result >= 0 || Errno::from_result(answer.result).is_some_and(lists);
    (!listed).then_some(Unlisted { row, answer })
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallRow { function, meta, .. } = self.row;
        let Answer { result, by_handler } = self.answer;
        let Some(errno) = Errno::from_result(result) else {
            return write!(f, "{} answered {result}, which is no errno of VTL1's", function.name());
        };
        write!(
            f,
            "{call} answered -{errno}, which its {list} does not list: add `{errno} = \"when it occurs\"` to `errors(…)` of \
             `{handler}` ({file}:{line}), or let it answer something else",
            call = function.name(),
            list = if by_handler { "handler" } else { "row" },
            errno = errno.name(),
            handler = meta.name,
            file = meta.file,
            line = meta.line,
        )
    }
}
