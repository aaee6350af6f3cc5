//! The symbols that a module gives to others, from its signed file and the layout: nothing of it is read from memory.
//!
//! An entry of `__ksymtab` or `__ksymtab_gpl` is three distances, of the value, the name and the namespace
//! (`struct kernel_symbol` with `CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`; Linux include/linux/export-internal.h).

use super::error::ModuleError;
use super::plan::Plan;
use super::relocate::Ordered;
use crate::elf::{self, MAX_SYMBOL_NAME, RelocationType, Section};

/// Bytes of a `struct kernel_symbol`.
const ENTRY: usize = 12;

/// A symbol that a module gives to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleExport<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What it stands for.
    pub value: u64,
    /// Whether it is for GPL-compatible modules only.
    pub gpl: bool,
    /// The namespace that must be imported; empty for none.
    pub namespace: &'a [u8],
}

impl<'a> Plan<'a> {
    /// Calls `keep` with every symbol that the module exports. `per_cpu` is where its per-CPU variables are
    /// ([`Explained::per_cpu`](super::Explained::per_cpu)); an exported one needs it.
    ///
    /// # Errors
    /// When a table is damaged, or what `keep` returns.
    pub fn exports<E: From<ModuleError>>(
        &self,
        per_cpu: Option<u64>,
        mut keep: impl FnMut(ModuleExport<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (name, gpl) in [(&b"__ksymtab"[..], false), (b"__ksymtab_gpl", true)] {
            let Some(section) = self.elf.find(name).filter(Section::is_loaded) else { continue };
            let refused = |offset, rule| E::from(ModuleError::section(name, offset, rule));
            let size = self.elf.bytes(&section).len();
            if !size.is_multiple_of(ENTRY) || size as u64 != section.size {
                return Err(refused(0, "a table of symbols must have whole entries"));
            }
            let relocations = self.relocations.of_section(&self.elf, section.index);
            let mut next = 0;
            for offset in (0..size).step_by(ENTRY) {
                let mut field = |field: usize| {
                    let target = distance(&relocations, &mut next, offset + field);
                    target.map_err(|rule| refused(offset + field, rule))
                };
                let (symbol, addend) = field(0)?.ok_or_else(|| refused(offset, "a symbol must have a value"))?;
                let value = self.symbols.value(&self.elf, &self.layout, symbol);
                let value = value.map_err(|rule| refused(offset, rule))?.number(per_cpu);
                let value = value.ok_or_else(|| refused(offset, "a per-CPU variable's place must be known"))?;
                let name = field(4)?.ok_or_else(|| refused(offset + 4, "a symbol must have a name"))?;
                let name = self.text(name).map_err(|rule| refused(offset + 4, rule))?;
                // Kernels without namespaces, and newer ones for symbols without one, leave the field empty.
                let namespace = field(8)?.map_or(Ok(&b""[..]), |place| self.text(place));
                let namespace = namespace.map_err(|rule| refused(offset + 8, rule))?;
                if name.is_empty() {
                    return Err(refused(offset + 4, "a symbol must have a name"));
                }
                keep(ModuleExport { name, value: value.wrapping_add(addend), gpl, namespace })?;
            }
        }
        Ok(())
    }

    /// The text that a symbol with an addend refers to, in the file.
    fn text(&self, (symbol, addend): (usize, u64)) -> Result<&'a [u8], &'static str> {
        const OUTSIDE: &str = "a name must be a text in the file";
        let symbol = self.elf.symbol(symbol)?;
        let elf::Place::Section(section) = symbol.place else { return Err(OUTSIDE) };
        let section = self.elf.section(section).ok_or(OUTSIDE)?;
        if self.relocations.of_section(&self.elf, section.index).get(0).is_some() {
            return Err("a name must not be relocated");
        }
        let start = usize::try_from(symbol.value.wrapping_add(addend)).map_err(|_| OUTSIDE)?;
        let rest = self.elf.bytes(&section).get(start..).ok_or(OUTSIDE)?;
        let end = rest.iter().take(MAX_SYMBOL_NAME + 1).position(|byte| *byte == 0);
        end.and_then(|end| rest.get(..end)).ok_or("a name is too long or has no end")
    }
}

/// Symbol and addend of the distance at `offset`.
fn distance(relocations: &Ordered<'_>, next: &mut usize, offset: usize) -> Result<Option<(usize, u64)>, &'static str> {
    while let Some(relocation) = relocations.get(*next).filter(|found| found.offset <= offset as u64) {
        *next += 1;
        if relocation.offset != offset as u64 || relocation.is_none() {
            continue;
        }
        return match relocation.known_type() {
            Some(RelocationType::Relative32) => Ok(Some((relocation.symbol, relocation.addend))),
            _ => Err("a table of symbols must hold distances"),
        };
    }
    Ok(None)
}
