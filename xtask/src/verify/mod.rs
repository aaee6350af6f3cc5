//! Proofs on the linked boot image: what the VTL0 loaders demand, W^X, the jump table, and the clamped index.
//!
//! Everything is read from the bytes of the file, never from the source: a wrong linker script, an optimiser that undid
//! a clamp and a doctored file are all found. The bytes are not trusted: whatever they hold, the result is a report.

mod clamp;
mod dispatch;
mod image;
mod loader;
mod permissions;
mod table;
mod value;

use std::fmt;

use litebox_platform_lvbs::vsm::VSM_TABLE_LEN;

pub use image::{Image, within};

/// Number of entries of the jump table, holes included, as the calls are declared.
pub const TABLE_LEN: u64 = VSM_TABLE_LEN as u64;
/// The symbol of the jump table.
pub const TABLE_SYMBOL: &str = "VSM_JUMP_TABLE";
/// The section that holds the jump table and nothing else.
pub const TABLE_SECTION: &str = ".vsm_table";
/// The only function that may branch through the jump table.
pub const DISPATCH_SYMBOL: &str = "vsm_dispatch";
/// Bytes the loaders leave for the image: 16 MiB without the first 2 MiB (LVBS contract, "How the ELF is consumed").
pub const LOAD_WINDOW: u64 = 14 << 20;
/// Alignment of every loaded segment, in bytes (LVBS contract, "How the ELF is consumed").
pub const SEGMENT_ALIGN: u64 = 2 << 20;

/// Makes [`Rule`] of a row for each check: its name in reports, and what a pass says in a few words.
macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident = $name:literal, $meaning:literal;)*) => {
        /// What is proved, one variant per named check.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* $rule,)*
        }

        impl Rule {
            /// All rules, in the order of the report.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// Name and meaning.
            fn words(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$rule => ($name, $meaning),)*
                }
            }
        }
    };
}

rules! {
    /// ELF64, little endian, x86-64, executable or position independent, every table of the file readable.
    ElfHeader = "elf-header", "ELF64, x86-64, loadable kind";
    /// Program header 0 is a PT_LOAD with alignment 2 MiB: one loader takes the alignment from it, whatever its type.
    FirstHeader = "first-header-loads", "program header 0 is a PT_LOAD aligned to 2 MiB";
    /// Every PT_LOAD is aligned to a multiple of 2 MiB, and lies at a multiple of it.
    LoadAlign = "load-alignment", "every PT_LOAD is aligned to 2 MiB";
    /// Every PT_LOAD has the same virtual and physical address: the entry point is taken in physical terms.
    VirtualIsPhysical = "virtual-is-physical", "p_vaddr == p_paddr in every PT_LOAD";
    /// Every PT_LOAD ends, bss included, within 14 MiB of the lowest one, and no two overlap.
    FitsWindow = "fits-14-mib", "all PT_LOAD memory within 14 MiB, no overlap";
    /// The entry point is file content of an executable segment.
    Entry = "entry-executable", "the entry point lies in an executable segment";
    /// No interpreter, no thread-local storage, nothing a dynamic linker would have to do.
    NoDynamicLinking = "no-dynamic-linking", "no PT_INTERP, PT_TLS, needed library or packed relocation";
    /// Relocations are R_X86_64_RELATIVE only.
    RelocationKinds = "relocation-kinds", "only R_X86_64_RELATIVE relocations";
    /// Each relocation changes 8 bytes of a loaded segment that is not executable, to an address of the image.
    RelocationTargets = "relocation-targets", "relocations change loaded, non-executable memory only";
    /// No segment is writable and executable.
    SegmentWx = "segment-w^x", "no segment is writable and executable";
    /// No section is writable and executable, and none is more writable or executable than its segment says.
    SectionWx = "section-w^x", "no section is writable and executable";
    /// The jump table is a data symbol with an entry for every id.
    TableSymbol = "table-symbol", "the jump table has an entry for every id";
    /// It lies in its own section, which holds nothing else, page aligned.
    TableSection = "table-section", "the jump table fills a page-aligned section of its own";
    /// Its page is read-only at run time.
    TableReadOnly = "table-read-only", "the jump table is read-only at run time";
    /// It has exactly one relocation for each entry.
    TableRelocations = "table-relocations", "one relocation for each entry of the jump table";
    /// Every entry is the first byte of a function in `.text`.
    TableEntries = "table-entries", "every entry is a function in .text";
    /// The dispatch function is there and its code can be decoded.
    DispatchSymbol = "dispatch-symbol", "the dispatch function can be decoded";
    /// It branches through the table, with an index clamped by `cmp`/`sbb`/`and` right before.
    IndexClamped = "index-clamped", "the table index is clamped without a branch";
    /// It has no other indirect branch than fixed ones.
    NoOtherIndirect = "no-other-indirect-branch", "no other indirect branch in the dispatch function";
    /// No other function branches through the table, and none jumps into the middle of the dispatch function.
    OnlyDispatch = "table-only-in-dispatch", "nothing else branches through the table";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words().0)
    }
}

/// One way in which the file breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The broken rule.
    pub rule: Rule,
    /// What was found and where.
    pub detail: String,
}

/// The outcome of all checks on one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    violations: Vec<Violation>,
    unchecked: Vec<Rule>,
    notes: Vec<String>,
}

impl Report {
    /// Whether every rule was checked and holds.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.unchecked.is_empty()
    }

    /// Everything that was found to be wrong, in the order it was found.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Whether this rule is broken.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.violations.iter().any(|violation| violation.rule == rule)
    }

    /// Whether this rule could not be checked because another one is broken.
    pub fn is_unchecked(&self, rule: Rule) -> bool {
        self.unchecked.contains(&rule)
    }

    fn fail(&mut self, rule: Rule, detail: impl Into<String>) {
        self.violations.push(Violation { rule, detail: detail.into() });
    }

    fn skip(&mut self, rule: Rule) {
        if !self.breaks(rule) && !self.is_unchecked(rule) {
            self.unchecked.push(rule);
        }
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &rule in Rule::ALL {
            if self.breaks(rule) {
                for violation in self.violations.iter().filter(|found| found.rule == rule) {
                    writeln!(f, "FAIL  {rule:<26} {}", violation.detail)?;
                }
            } else if self.is_unchecked(rule) {
                writeln!(f, "----  {rule:<26} not checked: another check must pass first")?;
            } else {
                writeln!(f, "ok    {rule:<26} {}", rule.words().1)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "      {note}")?;
        }
        Ok(())
    }
}

/// Runs every check on the bytes of a linked image. Never panics, whatever the bytes are.
pub fn verify(bytes: &[u8]) -> Report {
    let mut report = Report::default();
    let image = match Image::parse(bytes) {
        Ok(image) => image,
        Err(reason) => {
            report.fail(Rule::ElfHeader, reason);
            for &rule in Rule::ALL {
                report.skip(rule);
            }
            return report;
        }
    };
    loader::check(&image, &mut report);
    permissions::check(&image, &mut report);
    let table = table::check(&image, &mut report);
    dispatch::check(&image, table, &mut report);
    report
}
