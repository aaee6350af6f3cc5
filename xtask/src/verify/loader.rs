//! What the VTL0 loaders demand of the file: LVBS contract, "How the ELF is consumed".
//!
//! A loader copies PT_LOAD segments and jumps to the entry; nothing else of the file is looked at, so everything else
//! that ELF could ask for must be absent.

use object::elf;

use super::image::Image;
use super::{LOAD_WINDOW, Report, Rule, SEGMENT_ALIGN};

/// Packed relative relocations (System V ABI, generic part).
const DT_RELR: u32 = 36;

/// Checks the rules from [`Rule::ElfHeader`] to [`Rule::RelocationTargets`].
pub fn check(image: &Image<'_>, report: &mut Report) {
    header(image, report);
    segments(image, report);
    window(image, report);
    entry(image, report);
    dynamic(image, report);
    relocations(image, report);
}

fn header(image: &Image<'_>, report: &mut Report) {
    if image.machine != elf::EM_X86_64 {
        report.fail(Rule::ElfHeader, format!("e_machine is {}, not EM_X86_64 (62)", image.machine));
    }
    if image.kind != elf::ET_EXEC && image.kind != elf::ET_DYN {
        report.fail(Rule::ElfHeader, format!("e_type is {}, neither ET_EXEC (2) nor ET_DYN (3)", image.kind));
    }
    match image.segments.first() {
        None => report.fail(Rule::FirstHeader, "there are no program headers"),
        Some(first) if first.kind != elf::PT_LOAD => {
            report.fail(Rule::FirstHeader, format!("program header 0 has type {:#x}, not PT_LOAD", first.kind));
        }
        Some(first) if first.align != SEGMENT_ALIGN => report.fail(
            Rule::FirstHeader,
            format!("program header 0 has p_align {:#x}, not {SEGMENT_ALIGN:#x}", first.align),
        ),
        Some(_) => {}
    }
}

fn segments(image: &Image<'_>, report: &mut Report) {
    for segment in image.loads() {
        let index = segment.index;
        if segment.align == 0 || segment.align % SEGMENT_ALIGN != 0 {
            report.fail(
                Rule::LoadAlign,
                format!("PT_LOAD {index} has p_align {:#x}, not a multiple of 2 MiB", segment.align),
            );
        } else if segment.paddr % SEGMENT_ALIGN != 0 {
            report.fail(
                Rule::LoadAlign,
                format!("PT_LOAD {index} lies at {:#x}, not at a multiple of 2 MiB", segment.paddr),
            );
        }
        if segment.vaddr != segment.paddr {
            report.fail(
                Rule::VirtualIsPhysical,
                format!("PT_LOAD {index} has p_vaddr {:#x} and p_paddr {:#x}", segment.vaddr, segment.paddr),
            );
        }
    }
}

fn window(image: &Image<'_>, report: &mut Report) {
    let Some(lowest) = image.loads().map(|segment| segment.paddr).min() else {
        report.fail(Rule::FitsWindow, "there is no PT_LOAD");
        return;
    };
    for segment in image.loads() {
        let index = segment.index;
        if segment.filesz > segment.memsz {
            report.fail(Rule::FitsWindow, format!("PT_LOAD {index} has more bytes in the file than in memory"));
        }
        let end = (segment.paddr - lowest).checked_add(segment.memsz);
        if end.is_none_or(|end| end > LOAD_WINDOW) {
            report.fail(
                Rule::FitsWindow,
                format!(
                    "PT_LOAD {index} at {:#x} with {:#x} bytes ends beyond 14 MiB from {lowest:#x}",
                    segment.paddr, segment.memsz
                ),
            );
        }
    }
    let mut sorted: Vec<_> = image.loads().collect();
    sorted.sort_by_key(|segment| segment.paddr);
    for pair in sorted.windows(2) {
        if let [low, high] = pair
            && low.paddr.saturating_add(low.memsz) > high.paddr
        {
            report.fail(
                Rule::FitsWindow,
                format!("PT_LOAD {} and {} overlap at {:#x}", low.index, high.index, high.paddr),
            );
        }
    }
}

fn entry(image: &Image<'_>, report: &mut Report) {
    let entry = image.entry;
    match image.load_at(entry, 1) {
        None => report.fail(Rule::Entry, format!("the entry point {entry:#x} lies in no PT_LOAD")),
        Some(segment) if !segment.is_executable() => report.fail(
            Rule::Entry,
            format!("the entry point {entry:#x} lies in PT_LOAD {}, which is not executable", segment.index),
        ),
        Some(_) if image.memory(entry, 1).is_none() => {
            report.fail(Rule::Entry, format!("the entry point {entry:#x} lies in memory that is not in the file"));
        }
        Some(_) => {}
    }
}

fn dynamic(image: &Image<'_>, report: &mut Report) {
    for segment in &image.segments {
        let what = match segment.kind {
            elf::PT_INTERP => "PT_INTERP",
            elf::PT_TLS => "PT_TLS",
            _ => continue,
        };
        report.fail(Rule::NoDynamicLinking, format!("program header {} is {what}", segment.index));
    }
    for (tag, value) in &image.dynamic {
        let what = match u32::try_from(*tag) {
            Ok(elf::DT_NEEDED) => "DT_NEEDED (a shared library)",
            Ok(elf::DT_REL) => "DT_REL (relocations without addend)",
            Ok(DT_RELR) => "DT_RELR (packed relocations)",
            Ok(elf::DT_JMPREL) => "DT_JMPREL (procedure linkage)",
            Ok(elf::DT_TEXTREL) => "DT_TEXTREL (relocated code)",
            Ok(elf::DT_INIT | elf::DT_INIT_ARRAY | elf::DT_FINI | elf::DT_FINI_ARRAY) => {
                "a start or end function that is never called"
            }
            _ => continue,
        };
        report.fail(Rule::NoDynamicLinking, format!("the dynamic section holds tag {tag}, {what}, value {value:#x}"));
    }
    for section in image.sections.iter().filter(|section| section.is_loaded()) {
        // The image relocates itself from RELA entries only; anything else in a loaded section would be left undone.
        if section.kind == elf::SHT_REL || section.kind == elf::SHT_RELR {
            report
                .fail(Rule::NoDynamicLinking, format!("section {} holds relocations that are not RELA", section.name));
        }
    }
}

fn relocations(image: &Image<'_>, report: &mut Report) {
    let end_of = |segment: &super::image::Segment| segment.vaddr.saturating_add(segment.memsz);
    for relocation in &image.relocations {
        let at = relocation.at;
        if relocation.kind != elf::R_X86_64_RELATIVE {
            report.fail(
                Rule::RelocationKinds,
                format!("the relocation at {at:#x} has type {}, not R_X86_64_RELATIVE (8)", relocation.kind),
            );
            continue;
        }
        match image.load_at(at, 8) {
            None => report.fail(Rule::RelocationTargets, format!("the relocation at {at:#x} lies in no PT_LOAD")),
            Some(segment) if segment.is_executable() => report.fail(
                Rule::RelocationTargets,
                format!("the relocation at {at:#x} changes PT_LOAD {}, which is executable", segment.index),
            ),
            Some(_) => {}
        }
        // One past the end is an address of the image too: the linker script's end symbols are such.
        let addend = relocation.addend.cast_unsigned();
        if !image.loads().any(|segment| segment.vaddr <= addend && addend <= end_of(segment)) {
            report.fail(
                Rule::RelocationTargets,
                format!("the relocation at {at:#x} produces {addend:#x}, which is not in the image"),
            );
        }
    }
}
