//! The layout that fits the ranges: they must have the sizes that Linux would have given them.
//!
//! To a module's data Linux adds its tables of symbols (`layout_symtab`, kernel/module/kallsyms.c). To DATA it adds the symbols that stay, with a copy of each name and a byte for each; to INIT_DATA both tables as the file
//! has them, a description, and a byte for each symbol. Which symbols stay depends on the kernel's configuration
//! (`CONFIG_KALLSYMS`, `CONFIG_KALLSYMS_ALL`), so this says how much it is at most: with all of that. Trusts the layout.

use super::error::ModuleError;
use super::kind::Kind;
use super::layout::{Layout, Place};
use super::memory::{ModuleMemory, PAGE};
use super::modinfo::ModInfo;
use crate::elf::{self, Elf};

/// Bytes of a symbol (`Elf64_Sym`).
const SYMBOL: u64 = 24;
/// Bytes of `struct mod_kallsyms`, and its alignment.
const DESCRIPTION: u64 = 32;
const POINTER: u64 = 8;

impl Layout {
    /// Computes the layout of `elf` in `memory`.
    ///
    /// # Errors
    /// When Linux would not load the file, or would have made ranges of other sizes.
    pub fn new(elf: &Elf<'_>, info: &ModInfo<'_>, memory: &ModuleMemory<'_>) -> Result<Self, ModuleError> {
        // From 6.14 on the table of static calls is read-only after initialisation. Distributions take such changes
        // into older kernels, so what the ranges say decides where it can.
        let newer = info.kernel_version().is_some_and(|version| version >= (6, 14));
        let computed = Self::fitting(elf, info, memory, newer);
        computed.or_else(|error| Self::fitting(elf, info, memory, !newer).map_err(|_| error))
    }

    fn fitting(
        elf: &Elf<'_>,
        info: &ModInfo<'_>,
        memory: &ModuleMemory<'_>,
        static_calls: bool,
    ) -> Result<Self, ModuleError> {
        let layout = Self::compute(elf, memory, static_calls)?;
        layout.check(elf, info, memory)?;
        Ok(layout)
    }

    /// Checks that the ranges are those that Linux would have made.
    fn check(&self, elf: &Elf<'_>, info: &ModInfo<'_>, memory: &ModuleMemory<'_>) -> Result<(), ModuleError> {
        for kind in Kind::ALL {
            let size = self.size(kind).next_multiple_of(PAGE);
            // Linux adds its tables of symbols, which depend on its configuration.
            let most = match kind {
                Kind::Data => most_data(self, elf, info),
                Kind::InitData => most_init_data(self, elf, info),
                _ => size,
            };
            let handed = memory.range(kind).map_or(0, |range| range.size);
            let rule = match kind {
                Kind::Data | Kind::InitData if handed < size => "the range is too short for the file's sections",
                Kind::Data | Kind::InitData if handed > most.next_multiple_of(PAGE) => {
                    "the range is longer than the file's sections and symbols can make it"
                }
                Kind::Data | Kind::InitData => continue,
                _ if handed != size => "the range must have as many pages as the file's sections need",
                _ => continue,
            };
            return Err(ModuleError::Memory { va: self.start(kind), kind, rule });
        }
        Ok(())
    }
}

/// The most bytes of DATA: its sections, and the symbols that stay.
fn most_data(layout: &Layout, elf: &Elf<'_>, info: &ModInfo<'_>) -> u64 {
    let livepatch = info.get(b"livepatch").is_some();
    let stays = |section: usize| match layout.place(section) {
        Place::Range(kind, _) => !kind.is_init(),
        Place::PerCpu => true,
        Place::Nowhere => false,
    };
    let added = elf.symbol_names().enumerate().fold(0, |sum: u64, (index, (name, section))| {
        let kept = index == 0 || livepatch || !name.is_empty() && section.is_some_and(stays);
        sum.saturating_add(if kept { SYMBOL + name.len() as u64 + 1 + 1 } else { 0 })
    });
    sections(layout, info, Kind::Data).next_multiple_of(symbol_align(elf)).saturating_add(added)
}

/// The most bytes of INIT_DATA: its sections, and both tables.
fn most_init_data(layout: &Layout, elf: &Elf<'_>, info: &ModInfo<'_>) -> u64 {
    let table = elf.section(elf.symbol_table());
    let names = table.and_then(|table| elf.section(table.link));
    let size = |section: Option<elf::Section<'_>>| section.map_or(0, |section| section.size);
    let start = sections(layout, info, Kind::InitData).next_multiple_of(symbol_align(elf));
    let tables = start.saturating_add(size(table));
    let align = names.map_or(1, |names| names.align.max(1));
    let tables = tables.next_multiple_of(align).saturating_add(size(names)).next_multiple_of(POINTER);
    tables.saturating_add(DESCRIPTION).saturating_add(elf.symbol_count() as u64)
}

/// Bytes of the sections of a kind; up to 6.3 Linux rounds them up to pages before it adds to them.
fn sections(layout: &Layout, info: &ModInfo<'_>, kind: Kind) -> u64 {
    let apart = info.kernel_version().is_some_and(|version| version >= (6, 4));
    if apart { layout.size(kind) } else { layout.size(kind).next_multiple_of(PAGE) }
}

fn symbol_align(elf: &Elf<'_>) -> u64 {
    elf.section(elf.symbol_table()).map_or(1, |table| table.align.max(1))
}
