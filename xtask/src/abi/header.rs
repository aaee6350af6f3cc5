//! `abi/vsm.h`: what a VTL0 driver includes.
//!
//! Plain C that is C++ as well; it needs `linux/types.h` only, which there is in the kernel and outside.

use std::fmt::Write;

use super::layout::{Field, NUMBERS, STRUCTURES, Structure};
use super::lock::Lock;
use super::model::{Call, Table};

const HEAD: &str = "\
/* SPDX-License-Identifier: MIT */
/*
 * The calls from VTL0 to VTL1, and what VTL0 writes into memory for them.
 * Written by `cargo xtask abi` from the table of the calls; see vsm.md.
 *
 * A call: RCX = 0, RDI = id, RSI, RDX, R8 = parameters; R8 = result, not negative or a negative errno.
 *
 * A driver with structures of its own includes them first and defines VSM_OWN_STRUCTURES: their layout is then
 * asserted, and nothing is defined twice.
 */
#ifndef VSM_ABI_H
#define VSM_ABI_H

#include <linux/types.h>

#ifdef __cplusplus
#define VSM_ASSERT(holds, words) static_assert(holds, words)
#else
#define VSM_ASSERT(holds, words) _Static_assert(holds, words)
#endif
#define VSM_ASSERT_FIELD(type, field, offset) \\
\tVSM_ASSERT(__builtin_offsetof(struct type, field) == (offset), #type \".\" #field)

";

/// The header's text.
#[must_use]
pub fn text(table: &Table, lock: &Lock) -> String {
    let mut text = HEAD.to_owned();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("/* What is raised with every change that VTL0 can see, and a number for all of it. */");
    line(&format!("#define VSM_ABI_VERSION {}", lock.version()));
    line(&format!("#define VSM_ABI_HASH {:#018x}ULL\n", table.hash));
    for call in &table.calls {
        line(&comment(call));
        line(&format!("#define VSM_CALL_{} {:#x}\n", call.upper_name(), call.id));
    }
    for numbers in NUMBERS {
        line(&format!("/* {} */", safe(numbers.doc)));
        for (name, value, meaning) in numbers.values {
            line(&format!("#define {}{name} {value} /* {} */", numbers.prefix, safe(meaning)));
        }
        line("");
    }
    // Linux's own names its driver may have already; the others are this header's.
    let (linux, ours): (Vec<_>, Vec<_>) = STRUCTURES.iter().partition(|structure| structure.is_linux());
    line("#ifndef VSM_OWN_STRUCTURES\n");
    for structure in linux {
        line(&definition(structure));
    }
    line("#endif\n");
    for structure in ours {
        line(&definition(structure));
    }
    for structure in STRUCTURES {
        let relation = if structure.open_ended { ">=" } else { "==" };
        line(&format!("VSM_ASSERT(sizeof(struct {0}) {relation} {1}, \"{0}\");", structure.name, structure.size));
        // What is not read a driver may call otherwise.
        for field in structure.fields.iter().filter(|field| !field.doc.starts_with("not read")) {
            line(&format!("VSM_ASSERT_FIELD({}, {}, {});", structure.name, field.name, field.offset));
        }
    }
    text.push_str("\n#endif\n");
    text
}

/// A structure as C has it.
fn definition(structure: &Structure) -> String {
    let mut text = format!("/* {} */\nstruct {} {{\n", safe(structure.doc), structure.name);
    for field in structure.fields {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\t{}; /* {} */", declaration(field), safe(field.doc));
    }
    text + "};\n"
}

/// The remark above a call's id.
fn comment(call: &Call) -> String {
    let mut text = format!("/*\n * {}: {}\n", call.name, safe(call.summary.lines().next().unwrap_or_default()));
    // Writing to a string cannot fail.
    let _ = writeln!(text, " * When: {}. From: {}.", phase(&call.phase), caller(&call.caller));
    let mut register = ["RSI", "RDX", "R8"].iter();
    for param in &call.params {
        let registers = usize::try_from(param.registers).unwrap_or_default();
        let taken: Vec<&str> = register.by_ref().take(registers).copied().collect();
        let _ = writeln!(text, " * {} = {}: {}", taken.join(", "), param.name, safe(&param.unit));
    }
    if call.implemented {
        let _ = writeln!(text, " * Returns {}.", call.reply);
    }
    for error in &call.errors {
        let by = match error.by.as_str() {
            "gate" | "handler" => String::new(),
            param => format!("{param}: "),
        };
        let _ = writeln!(text, " * -{}: {by}{}", error.name, safe(&error.when));
    }
    text + " */"
}

/// In words, when a call may be made.
#[must_use]
pub fn phase(phase: &str) -> &'static str {
    match phase {
        "boot" => "before the end of boot",
        "runtime" => "after the end of boot",
        _ => "at any time",
    }
}

/// In words, who may make a call.
#[must_use]
pub fn caller(caller: &str) -> &'static str {
    if caller == "bsp" { "the boot processor" } else { "any processor" }
}

fn declaration(field: &Field) -> String {
    match field.count {
        0 => format!("{} {}", field.ty, field.name),
        count => format!("{} {}[{count}]", field.ty, field.name),
    }
}

/// Text that does not end a comment.
fn safe(text: &str) -> String {
    text.replace("*/", "* /").replace("/*", "/ *")
}
