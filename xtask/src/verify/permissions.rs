//! W^X as the file states it, by segment and by section.
//!
//! The kernel derives its page permissions from the same segments, so a file that breaks this cannot be mapped safely.

use object::elf;

use super::image::Image;
use super::{Report, Rule};

/// Checks [`Rule::SegmentWx`] and [`Rule::SectionWx`].
pub fn check(image: &Image<'_>, report: &mut Report) {
    for segment in &image.segments {
        if segment.is_writable() && segment.is_executable() {
            report.fail(
                Rule::SegmentWx,
                format!(
                    "program header {} (type {:#x}) at {:#x} is writable and executable",
                    segment.index, segment.kind, segment.vaddr
                ),
            );
        }
    }
    for section in image.sections.iter().filter(|section| section.is_loaded()) {
        let name = &section.name;
        if section.is_writable() && section.is_executable() {
            report.fail(Rule::SectionWx, format!("section {name} at {:#x} is writable and executable", section.addr));
        }
        if section.size == 0 || section.flags & u64::from(elf::SHF_TLS) != 0 {
            continue;
        }
        let Some(segment) = image.load_at(section.addr, section.size) else {
            report.fail(
                Rule::SectionWx,
                format!("section {name} at {:#x} is loaded but lies in no PT_LOAD", section.addr),
            );
            continue;
        };
        if section.is_executable() && segment.is_writable() {
            report.fail(
                Rule::SectionWx,
                format!("section {name} holds code and lies in the writable PT_LOAD {}", segment.index),
            );
        }
        if section.is_writable() && segment.is_executable() {
            report.fail(
                Rule::SectionWx,
                format!("section {name} is writable and lies in the executable PT_LOAD {}", segment.index),
            );
        }
        if section.is_executable() && !segment.is_executable() {
            report.fail(
                Rule::SectionWx,
                format!("section {name} holds code and lies in PT_LOAD {}, which is not executable", segment.index),
            );
        }
    }
}
