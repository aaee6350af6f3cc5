//! The table for people: which call has which id, rules and parameters, and whether it is implemented.

use core::fmt;

use litebox_platform_lvbs::vsm::CallRow;

use crate::table::ROWS;

/// Displays as a Markdown table of all calls, one line each, in the order of their ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing;

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| id | call | phase | caller | parameters | result | status |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        ROWS.iter().try_for_each(|row| writeln!(f, "{}", Line(row)))
    }
}

/// One line of the listing.
struct Line<'a>(&'a CallRow);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallRow { function, meta, .. } = self.0;
        let (phase, caller) = (meta.phase.name(), meta.caller.name());
        write!(f, "| `{:#x}` | {} | {phase} | {caller} | ", function.id(), function.name())?;
        if !meta.implemented {
            return write!(f, "| | not implemented |");
        }
        for (index, param) in meta.params.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}`{}`: {}", param.name, param.kind)?;
        }
        write!(f, " | {} | implemented |", meta.reply)
    }
}
