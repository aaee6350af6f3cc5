//! The jump table as the file holds it: complete, alone on its pages, read-only at run time, and pointing at functions.
//!
//! The table's entries are relocated while booting, so what counts is the addend of each relocation, not the bytes.

use object::elf;

use super::image::{Image, Symbol, within};
use super::{Report, Rule, TABLE_LEN, TABLE_SECTION, TABLE_SYMBOL};

/// Bytes of one entry: a function pointer.
pub const ENTRY_SIZE: u64 = 8;
/// Bytes of a page, the unit of the kernel's permissions.
const PAGE_SIZE: u64 = 4096;

/// Where the table lies.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Address of its first entry.
    pub address: u64,
}

/// Checks the rules from [`Rule::TableSymbol`] to [`Rule::TableEntries`]. `None` when there is no table to look at.
pub fn check(image: &Image<'_>, report: &mut Report) -> Option<Table> {
    let Some(symbol) = symbol(image, report) else {
        for rule in [Rule::TableSection, Rule::TableReadOnly, Rule::TableRelocations, Rule::TableEntries] {
            report.skip(rule);
        }
        return None;
    };
    section(image, symbol, report);
    read_only(image, symbol, report);
    relocations(image, symbol, report);
    entries(image, symbol, report);
    Some(Table { address: symbol.address })
}

fn symbol<'i>(image: &'i Image<'_>, report: &mut Report) -> Option<&'i Symbol> {
    let mut found = image.symbols_named(TABLE_SYMBOL);
    let Some(symbol) = found.next() else {
        report.fail(Rule::TableSymbol, format!("there is no symbol {TABLE_SYMBOL}"));
        return None;
    };
    if found.next().is_some() {
        report.fail(Rule::TableSymbol, format!("there are several symbols {TABLE_SYMBOL}"));
    }
    if symbol.kind != elf::STT_OBJECT {
        report.fail(Rule::TableSymbol, format!("{TABLE_SYMBOL} has symbol type {}, not STT_OBJECT", symbol.kind));
    }
    let wanted = TABLE_LEN * ENTRY_SIZE;
    if symbol.size != wanted {
        report.fail(
            Rule::TableSymbol,
            format!("{TABLE_SYMBOL} has {} bytes, not {wanted} ({TABLE_LEN} entries)", symbol.size),
        );
    }
    Some(symbol)
}

fn section(image: &Image<'_>, table: &Symbol, report: &mut Report) {
    let Some(section) = image.sections.get(table.section) else {
        report.fail(Rule::TableSection, format!("{TABLE_SYMBOL} lies in no section"));
        return;
    };
    if section.name != TABLE_SECTION {
        report.fail(Rule::TableSection, format!("{TABLE_SYMBOL} lies in {}, not in {TABLE_SECTION}", section.name));
        return;
    }
    let start = section.addr;
    if start % PAGE_SIZE != 0 || table.address != start {
        report.fail(
            Rule::TableSection,
            format!(
                "{TABLE_SYMBOL} is at {:#x} and {TABLE_SECTION} at {start:#x}; both must be the start of a page",
                table.address
            ),
        );
    }
    // Marks of the linker script (no type, no size) may stand at the edges; anything with contents may not.
    for other in image.symbols.iter().filter(|other| other.section == table.section) {
        let is_mark = other.kind == elf::STT_SECTION || (other.kind == elf::STT_NOTYPE && other.size == 0);
        if other.name != TABLE_SYMBOL && !is_mark {
            report
                .fail(Rule::TableSection, format!("{TABLE_SECTION} also holds {} at {:#x}", other.name, other.address));
        }
    }
    let used = TABLE_LEN * ENTRY_SIZE;
    if let Some(padding) = section.size.checked_sub(used).filter(|padding| *padding > 0)
        && let Some(bytes) = image.memory(start.saturating_add(used), padding)
        && let Some(at) = bytes.iter().position(|byte| *byte != 0)
    {
        report.fail(Rule::TableSection, format!("{TABLE_SECTION} holds a non-zero byte {at:#x} bytes after the table"));
    }
    // The rest of the table's last page must not belong to anybody else.
    let pages_end = section.addr.saturating_add(section.size).checked_next_multiple_of(PAGE_SIZE);
    let Some(pages_end) = pages_end else {
        report.fail(Rule::TableSection, format!("{TABLE_SECTION} ends beyond the address space"));
        return;
    };
    for (index, other) in image.sections.iter().enumerate() {
        if index != table.section
            && other.is_loaded()
            && other.size > 0
            && other.addr < pages_end
            && other.addr.saturating_add(other.size) > start
        {
            report.fail(Rule::TableSection, format!("section {} shares a page with {TABLE_SECTION}", other.name));
        }
    }
}

fn read_only(image: &Image<'_>, table: &Symbol, report: &mut Report) {
    // The section's own flag says "writable" for every constant with a relocation; the kernel maps by segment.
    match image.load_at(table.address, TABLE_LEN * ENTRY_SIZE) {
        None => report.fail(Rule::TableReadOnly, format!("{TABLE_SYMBOL} at {:#x} lies in no PT_LOAD", table.address)),
        Some(segment) if segment.is_writable() || segment.is_executable() => report.fail(
            Rule::TableReadOnly,
            format!(
                "{TABLE_SYMBOL} lies in PT_LOAD {} with flags {:#x}; it must be readable only (4)",
                segment.index, segment.flags
            ),
        ),
        Some(_) => {}
    }
}

fn relocations(image: &Image<'_>, table: &Symbol, report: &mut Report) {
    let section_end = image.sections.get(table.section).map_or(0, |section| section.addr.saturating_add(section.size));
    let table_end = table.address.saturating_add(TABLE_LEN * ENTRY_SIZE);
    let area = section_end.max(table_end).saturating_sub(table.address);
    let mut count: Vec<u32> = (0..TABLE_LEN).map(|_| 0).collect();
    for relocation in &image.relocations {
        // Also one that starts before the table and reaches into it.
        if !within(table.address.saturating_sub(7), area.saturating_add(7), relocation.at, 1) {
            continue;
        }
        let offset = relocation.at.wrapping_sub(table.address);
        let slot = usize::try_from(offset / ENTRY_SIZE).ok().and_then(|slot| count.get_mut(slot));
        match slot {
            Some(slot) if offset.is_multiple_of(ENTRY_SIZE) => *slot += 1,
            _ => report.fail(
                Rule::TableRelocations,
                format!("the relocation at {:#x} is not that of a table entry", relocation.at),
            ),
        }
    }
    for (slot, count) in count.iter().enumerate() {
        if *count != 1 {
            report.fail(Rule::TableRelocations, format!("entry {slot} of the table has {count} relocations, not 1"));
        }
    }
}

fn entries(image: &Image<'_>, table: &Symbol, report: &mut Report) {
    for slot in 0..TABLE_LEN {
        let at = table.address.saturating_add(slot * ENTRY_SIZE);
        for relocation in image.relocations.iter().filter(|relocation| relocation.at == at) {
            let target = relocation.addend.cast_unsigned();
            let Some(function) = image.function_at(target) else {
                report.fail(
                    Rule::TableEntries,
                    format!(
                        "entry {slot} points at {target:#x} (in {}), which is not the start of a function",
                        image.function_around(target)
                    ),
                );
                continue;
            };
            let section = image.sections.get(function.section);
            if !section
                .is_some_and(|section| section.name == ".text" && section.is_executable() && section.holds(target, 1))
            {
                report.fail(
                    Rule::TableEntries,
                    format!(
                        "entry {slot} points at {}, which lies in {}, not in .text",
                        function.name,
                        section.map_or("no section", |section| &section.name)
                    ),
                );
            }
        }
    }
}
