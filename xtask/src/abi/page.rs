//! `abi/vsm.md`, the page about the calls, and `abi/vsm.json`, the same for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::header::{caller, phase};
use super::layout::{NUMBERS, STRUCTURES};
use super::lock::Lock;
use super::model::{Call, Table};

const HEAD: &str = "\
# The calls

Written by `cargo xtask abi` from the table of the calls; the same for C is in `vsm.h`, for programs in `vsm.json`.

| register | on the call | on the return |
|---|---|---|
| RCX | 0 | |
| RDI | the id, all 64 bits | as it was |
| RSI, RDX, R8 | the parameters | RSI and RDX as they were; R8 the result |

The result is 0 or what the call returns, at most 0x7fffffff, or a negative Linux errno, sign-extended to 64 bits. An id that
is not one of these is -EINVAL. On an error nothing has changed, unless a call says otherwise.

";

/// The page's text.
#[must_use]
pub fn markdown(table: &Table, lock: &Lock) -> String {
    let mut text = HEAD.to_owned();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Version {} of the ABI, hash `{:#018x}`.\n", lock.version(), table.hash);
    let _ = writeln!(text, "| id | call | when | from | since |\n|---|---|---|---|---|");
    for call in &table.calls {
        let (phase, caller) = (phase(&call.phase), caller(&call.caller));
        let since = lock.since(call.id).unwrap_or_default();
        let anchor = call.name.to_lowercase();
        let _ = writeln!(text, "| `{:#x}` | [{}](#{anchor}) | {phase} | {caller} | {since} |", call.id, call.name);
    }
    for call in &table.calls {
        text.push_str(&section(call));
    }
    text.push_str(&structures());
    text
}

fn section(call: &Call) -> String {
    let mut text = format!("\n## {}\n\n{}\n", call.name, if call.implemented { &call.doc } else { &call.summary });
    let _ = writeln!(text, "\nId `{:#x}`, {}, from {}.\n", call.id, phase(&call.phase), caller(&call.caller));
    if !call.implemented {
        text.push_str("Not implemented: the id is taken, and a call answers -ENOTSUP.\n\n");
    } else if call.params.is_empty() {
        text.push_str("No parameters.\n\n");
    } else {
        text.push_str("| register | parameter | what it is | bits that may be set |\n|---|---|---|---|\n");
        let mut registers = ["RSI", "RDX", "R8"].iter();
        for param in &call.params {
            let count = usize::try_from(param.registers).unwrap_or_default();
            let names: Vec<&str> = registers.by_ref().take(count).copied().collect();
            let (name, unit) = (&param.name, &param.unit);
            let _ =
                writeln!(text, "| {} | `{name}`, a {} | {unit} | `{:#x}` |", names.join(", "), param.kind, param.bits);
        }
        text.push('\n');
    }
    if call.implemented {
        let _ = writeln!(text, "Returns {}.\n", if call.reply == "0" { "0" } else { call.reply.as_str() });
    }
    text.push_str("| errno | when | refused by |\n|---|---|---|\n");
    for error in &call.errors {
        let by = match error.by.as_str() {
            "gate" => "the gate".to_owned(),
            "handler" => "the call".to_owned(),
            param => format!("the parameter `{param}`"),
        };
        let _ = writeln!(text, "| {} (-{}) | {} | {by} |", error.name, error.number, error.when);
    }
    text
}

fn structures() -> String {
    let mut text = "\n## Structures in memory\n\nLittle endian, without gaps. VTL1 reads each byte once.\n".to_owned();
    for structure in STRUCTURES {
        let _ = writeln!(text, "\n### struct {}\n\n{} {} bytes.\n", structure.name, structure.doc, structure.size);
        text.push_str("| offset | field | what it is |\n|---|---|---|\n");
        for field in structure.fields {
            let ty = field.ty.trim_start_matches('_');
            let array = if field.count == 0 { String::new() } else { format!("[{}]", field.count) };
            let _ = writeln!(text, "| {} | `{ty} {}{array}` | {} |", field.offset, field.name, field.doc);
        }
    }
    text.push_str("\n## Numbers\n");
    for numbers in NUMBERS {
        let _ = writeln!(text, "\n`{}`:\n\n| name | value | meaning |\n|---|---|---|", numbers.doc.replace(':', "`:`"));
        for (name, value, meaning) in numbers.values {
            let _ = writeln!(text, "| `{}{name}` | {value} | {meaning} |", numbers.prefix);
        }
    }
    text
}

/// A call as programs get it.
pub(super) fn call(call: &Call, since: Option<u32>) -> Value {
    let params: Vec<Value> = call
        .params
        .iter()
        .map(|param| {
            json!({
                "name": param.name,
                "kind": param.kind,
                "unit": param.unit,
                "registers": param.registers,
                "bits": format!("{:#x}", param.bits),
            })
        })
        .collect();
    let errors: Vec<Value> = call
        .errors
        .iter()
        .map(|error| json!({ "errno": error.name, "number": error.number, "when": error.when, "by": error.by }))
        .collect();
    json!({
        "id": format!("{:#x}", call.id),
        "name": call.name,
        "since": since,
        "phase": call.phase,
        "caller": call.caller,
        "implemented": call.implemented,
        "parameters": params,
        "result": call.reply,
        "errors": errors,
        "summary": call.summary,
        "documentation": call.doc,
    })
}

/// The description for programs.
#[must_use]
pub fn json(table: &Table, lock: &Lock) -> String {
    let calls: Vec<Value> = table.calls.iter().map(|one| call(one, lock.since(one.id))).collect();
    let structures: Vec<Value> = STRUCTURES
        .iter()
        .map(|structure| {
            let fields: Vec<Value> = structure
                .fields
                .iter()
                .map(|field| json!({ "name": field.name, "type": field.ty, "count": field.count, "offset": field.offset }))
                .collect();
            json!({ "name": structure.name, "bytes": structure.size, "fields": fields })
        })
        .collect();
    // A call, or a structure, a line: a change is then a line too.
    let lines = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
    format!(
        "{{\"version\": {}, \"hash\": \"{:#018x}\", \"calls\": [\n{}\n], \"structures\": [\n{}\n]}}\n",
        lock.version(),
        table.hash,
        lines(&calls),
        lines(&structures)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_for_programs_is_json_and_has_every_call() {
        let table = Table::built_in().unwrap();
        let mut lock = Lock::default();
        lock.update(&table, &super::super::shapes::present(0), false).unwrap();
        let all: Value = serde_json::from_str(&json(&table, &lock)).unwrap();
        let calls = all["calls"].as_array().unwrap();
        assert_eq!(calls.len(), table.calls.len());
        for (call, expected) in calls.iter().zip(&table.calls) {
            assert_eq!(call["name"], expected.name.as_str());
            assert_eq!(call["errors"].as_array().unwrap().len(), expected.errors.len());
            assert!(markdown(&table, &lock).contains(&format!("\n## {}\n", expected.name)));
        }
        assert_eq!(all["structures"].as_array().unwrap().len(), STRUCTURES.len());
    }
}
