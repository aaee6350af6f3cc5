//! Errors are ABI: a call answers with an errno that its row lists, or its author has forgotten one.
//!
//! Nothing in the image looks here. Every call of a hosted test, a machine test or a fuzz run does, with the result it got.

use core::fmt;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::{CallRow, VsmFunction};

use crate::table::ROWS;

/// A result that its call's row does not list.
#[derive(Clone, Copy, Debug)]
pub struct Unlisted {
    row: &'static CallRow,
    result: i64,
}

static TABLE: [CallRow; VsmFunction::COUNT] = ROWS;

/// What is wrong with `result` as the answer of the call with this id; `None` if nothing is.
#[must_use]
pub fn unlisted(id: u64, result: i64) -> Option<Unlisted> {
    unlisted_in(&TABLE, id, result)
}

/// As [`unlisted`], for another table.
#[must_use]
pub fn unlisted_in(rows: &'static [CallRow], id: u64, result: i64) -> Option<Unlisted> {
    let row = rows.iter().find(|row| row.function.id() == id)?;
    let listed = result >= 0 || Errno::from_result(result).is_some_and(|errno| row.errnos().contains(errno));
    (!listed).then_some(Unlisted { row, result })
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallRow { function, meta, .. } = self.row;
        let Some(errno) = Errno::from_result(self.result) else {
            return write!(f, "{} answered {}, which is no errno of VTL1's", function.name(), self.result);
        };
        write!(
            f,
            "{call} answered -{errno}, which its row does not list: add `{errno} = \"when it occurs\"` to `errors(…)` of \
             `{handler}` ({file}:{line}), or let it answer something else",
            call = function.name(),
            errno = errno.name(),
            handler = meta.name,
            file = meta.file,
            line = meta.line,
        )
    }
}
