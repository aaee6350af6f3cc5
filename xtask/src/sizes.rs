//! The size table of a linked image: what is loaded, by segment and by section.

use std::fmt::Write;

use anyhow::{Result, anyhow};
use object::elf;

use crate::verify::Image;

/// Sizes of all loaded segments and sections, in bytes, as a table for people.
pub fn report(bytes: &[u8]) -> Result<String> {
    let image = Image::parse(bytes).map_err(|reason| anyhow!("the image is unreadable: {reason}"))?;
    let mut text = String::new();
    writeln!(text, "segment  address     in file   in memory")?;
    let (mut file, mut memory) = (0_u64, 0_u64);
    for segment in image.loads() {
        let flag = |bit: u32, letter: char| {
            if segment.flags & bit == 0 { '-' } else { letter }
        };
        writeln!(
            text,
            "{}{}{}      {:#010x} {:>9} {:>11}",
            flag(elf::PF_R, 'r'),
            flag(elf::PF_W, 'w'),
            flag(elf::PF_X, 'x'),
            segment.vaddr,
            segment.filesz,
            segment.memsz
        )?;
        file = file.saturating_add(segment.filesz);
        memory = memory.saturating_add(segment.memsz);
    }
    writeln!(text, "loaded              {file:>9} {memory:>11}   (file itself: {})", bytes.len())?;
    writeln!(text, "section            address         bytes")?;
    for section in image.sections.iter().filter(|section| section.is_loaded() && section.size > 0) {
        writeln!(text, "{:<18} {:#010x} {:>10}", section.name, section.addr, section.size)?;
    }
    Ok(text)
}
