//! The README's list of the calls, between its two marks.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::model::{Call, Table};

const BEGIN: &str = "<!-- calls:begin -->\n";
const END: &str = "<!-- calls:end -->";

/// The README with the present list. `reserved` are the ids within the table's range that no call has.
pub fn renewed(readme: &str, table: &Table, reserved: &[u64]) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).with_context(|| format!("README.md has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("README.md has no line {END}"))?;
    Ok(format!("{before}{BEGIN}{}\n{}\n{END}{after}", list(table), others(reserved)))
}

/// A line for each call.
fn list(table: &Table) -> String {
    let mut text =
        "| id | call | phase | caller | parameters | result | status |\n|---|---|---|---|---|---|---|\n".to_owned();
    for Call { id, name, phase, caller, params, reply, implemented, .. } in &table.calls {
        let params: Vec<String> = params.iter().map(|param| format!("`{}`: {}", param.name, param.kind)).collect();
        let rest = if *implemented {
            format!("{} | {reply} | implemented", params.join(", "))
        } else {
            "| | not implemented".to_owned()
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{id:#x}` | {name} | {phase} | {caller} | {rest} |");
    }
    text
}

/// What ids that are no call's answer.
fn others(reserved: &[u64]) -> String {
    let ranges: Vec<String> = reserved
        .chunk_by(|one, next| one + 1 == *next)
        .filter_map(|range| match range {
            [] => None,
            [one] => Some(format!("`{one:#x}`")),
            [first, .., last] => Some(format!("`{first:#x}` to `{last:#x}`")),
        })
        .collect();
    if ranges.is_empty() {
        return "Every other 64-bit id answers -EINVAL.".to_owned();
    }
    format!("Reserved ids ({}) and every other 64-bit value answer -EINVAL.", ranges.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_line_that_says_whether_it_is_implemented() {
        let mut table = Table::built_in().unwrap();
        table.calls[2].implemented = false;
        let list = list(&table);
        assert_eq!(list.lines().count(), table.calls.len() + 2);
        for (line, call) in list.lines().skip(2).zip(&table.calls) {
            assert!(line.starts_with(&format!("| `{:#x}` | {} |", call.id, call.name)), "{line}");
            assert_eq!(line.matches('|').count(), 8, "{line}");
            assert_eq!(line.ends_with("| not implemented |"), !call.implemented, "{line}");
        }
        assert!(list.contains("| EnableAPsVtl | boot | bsp | `present`: frame number | 0 | implemented |\n"));
    }

    #[test]
    fn reserved_ids_are_told_as_ranges() {
        assert_eq!(others(&[]), "Every other 64-bit id answers -EINVAL.");
        assert!(others(&[0x12]).starts_with("Reserved ids (`0x12`) and"));
        assert!(others(&[0x12, 0x14, 0x15, 0x16]).starts_with("Reserved ids (`0x12`, `0x14` to `0x16`) and"));
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let table = Table::built_in().unwrap();
        let text = renewed(&format!("a\n{BEGIN}old\n{END}\nb\n"), &table, &[]).unwrap();
        assert!(text.starts_with(&format!("a\n{BEGIN}| id ")) && text.ends_with(&format!("-EINVAL.\n{END}\nb\n")));
        assert_eq!(renewed(&text, &table, &[]).unwrap(), text);
        assert!(renewed("", &table, &[]).is_err() && renewed(BEGIN, &table, &[]).is_err());
    }
}
