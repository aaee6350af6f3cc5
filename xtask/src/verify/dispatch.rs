//! The dispatch function as the optimiser left it: how it branches, and that nothing else uses the table.
//!
//! The function may be inlined, and then its stand-alone copy proves nothing; so all code of the image is searched for
//! branches through the table, not this function alone.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use object::elf;

use super::clamp::{Known, Target, indirect_branches};
use super::image::{Image, Symbol, within};
use super::table::Table;
use super::{DISPATCH_SYMBOL, Report, Rule, TABLE_LEN, TABLE_SYMBOL};

/// Checks the rules from [`Rule::DispatchSymbol`] on.
pub fn check(image: &Image<'_>, table: Option<Table>, report: &mut Report) {
    let found = dispatch_function(image, report);
    let (Some((symbol, code)), Some(table)) = (found, table) else {
        for rule in [Rule::DispatchSymbol, Rule::IndexClamped, Rule::NoOtherIndirect, Rule::OnlyDispatch] {
            report.skip(rule);
        }
        return;
    };
    let known = Known { table, pointers: fixed_pointers(image) };
    branches(image, &code, &known, report);
    other_code(image, symbol, &known, report);
}

fn dispatch_function<'i>(image: &'i Image<'_>, report: &mut Report) -> Option<(&'i Symbol, Vec<Instruction>)> {
    let mut found = image.symbols_named(DISPATCH_SYMBOL);
    let (Some(symbol), None) = (found.next(), found.next()) else {
        report.fail(Rule::DispatchSymbol, format!("there is not exactly one symbol {DISPATCH_SYMBOL}"));
        return None;
    };
    let problem = if symbol.kind != elf::STT_FUNC {
        Some("is not a function")
    } else if symbol.size == 0 {
        Some("has no size, so that its end is unknown")
    } else if !image.load_at(symbol.address, symbol.size).is_some_and(super::image::Segment::is_executable) {
        Some("does not lie in an executable segment")
    } else {
        None
    };
    if let Some(problem) = problem {
        report.fail(Rule::DispatchSymbol, format!("{DISPATCH_SYMBOL} {problem}"));
        return None;
    }
    let Some(bytes) = image.memory(symbol.address, symbol.size) else {
        report.fail(Rule::DispatchSymbol, format!("{DISPATCH_SYMBOL} is not in the file"));
        return None;
    };
    let code = decode(bytes, symbol.address);
    if let Some(bad) = code.iter().find(|instruction| instruction.is_invalid()) {
        report.fail(Rule::DispatchSymbol, format!("{DISPATCH_SYMBOL} holds no instruction at {:#x}", bad.ip()));
        return None;
    }
    Some((symbol, code))
}

fn branches(image: &Image<'_>, code: &[Instruction], known: &Known, report: &mut Report) {
    let mut clamped = 0_usize;
    for branch in indirect_branches(code, &branch_targets(code), known) {
        let place = format!("{:#x} `{}`", branch.at, branch.text);
        match branch.target {
            Target::ClampedEntry => {
                clamped += 1;
                report.note(format!("clamped branch through {TABLE_SYMBOL}: {place}"));
            }
            Target::UnclampedEntry => report.fail(
                Rule::IndexClamped,
                format!(
                    "{place} branches through {TABLE_SYMBOL} with an index that no cmp/sbb/and of {TABLE_LEN} bounds"
                ),
            ),
            Target::Fixed(address) if image.function_at(address).is_some() => {
                report.note(format!("fixed indirect branch: {place}"));
            }
            Target::Fixed(address) => report.fail(
                Rule::NoOtherIndirect,
                format!("{place} always branches to {address:#x}, which is not the start of a function"),
            ),
            Target::Unknown => report.fail(
                Rule::NoOtherIndirect,
                format!("{place} branches to a target that is neither a clamped table entry nor fixed"),
            ),
        }
    }
    if clamped == 0 {
        report.fail(
            Rule::IndexClamped,
            format!("{DISPATCH_SYMBOL} has no branch through {TABLE_SYMBOL} whose index is clamped to {TABLE_LEN}"),
        );
    }
}

/// All pointers that relocation puts into memory that is read-only at run time, except those in the table.
fn fixed_pointers(image: &Image<'_>) -> BTreeMap<u64, u64> {
    let mut sorted: Vec<(u64, u64)> =
        image.relocations.iter().map(|relocation| (relocation.at, relocation.addend.cast_unsigned())).collect();
    sorted.sort_unstable();
    let mut pointers = BTreeMap::new();
    for (position, (at, target)) in sorted.iter().enumerate() {
        let overlaps = |other: Option<&(u64, u64)>| other.is_some_and(|(other, _)| other.abs_diff(*at) < 8);
        let before = position.checked_sub(1).and_then(|before| sorted.get(before));
        let alone = !overlaps(before) && !overlaps(sorted.get(position + 1));
        let read_only = image.load_at(*at, 8).is_some_and(|segment| !segment.is_writable());
        if alone && read_only {
            pointers.insert(*at, *target);
        }
    }
    pointers
}

fn other_code(image: &Image<'_>, dispatch: &Symbol, known: &Known, report: &mut Report) {
    for (start, end) in code_ranges(image) {
        if start == dispatch.address {
            continue;
        }
        let Some(bytes) = image.memory(start, end.saturating_sub(start)) else {
            continue;
        };
        let code = decode(bytes, start);
        let targets = branch_targets(&code);
        for target in &targets {
            if *target != dispatch.address && within(dispatch.address, dispatch.size, *target, 1) {
                report.fail(
                    Rule::OnlyDispatch,
                    format!(
                        "{} at {start:#x} jumps into the middle of {DISPATCH_SYMBOL}, to {target:#x}",
                        image.function_around(start)
                    ),
                );
            }
        }
        for branch in indirect_branches(&code, &targets, known) {
            if matches!(branch.target, Target::ClampedEntry | Target::UnclampedEntry) {
                report.fail(
                    Rule::OnlyDispatch,
                    format!(
                        "{} branches through {TABLE_SYMBOL} at {:#x} `{}`; only {DISPATCH_SYMBOL} may",
                        image.function_around(branch.at),
                        branch.at,
                        branch.text
                    ),
                );
            }
        }
    }
}

/// Start and end of every piece of code: one for each function, and one for each gap between functions.
fn code_ranges(image: &Image<'_>) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for (index, section) in image.sections.iter().enumerate() {
        if !section.is_executable() || !section.is_loaded() {
            continue;
        }
        let end = section.addr.saturating_add(section.size);
        let mut cuts: BTreeSet<u64> = BTreeSet::from([section.addr, end]);
        for symbol in image.symbols.iter().filter(|symbol| symbol.section == index) {
            if symbol.kind == elf::STT_FUNC {
                cuts.insert(symbol.address);
                cuts.insert(symbol.address.saturating_add(symbol.size));
            }
        }
        let cuts: Vec<u64> = cuts.into_iter().filter(|cut| (section.addr..=end).contains(cut)).collect();
        ranges.extend(cuts.windows(2).filter_map(|pair| match pair {
            [start, end] => Some((*start, *end)),
            _ => None,
        }));
    }
    ranges
}

fn decode(bytes: &[u8], address: u64) -> Vec<Instruction> {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).into_iter().collect()
}

/// Where the direct branches of this code go, calls included: to each of these another path may arrive.
fn branch_targets(code: &[Instruction]) -> BTreeSet<u64> {
    code.iter()
        .filter(|instruction| {
            matches!(
                instruction.flow_control(),
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call
            ) && (instruction.is_jcc_short_or_near()
                || instruction.is_jmp_short_or_near()
                || instruction.is_call_near()
                || instruction.is_loop()
                || instruction.is_loopcc()
                || instruction.is_jcx_short())
        })
        .map(Instruction::near_branch_target)
        .collect()
}
