//! What the symbols of a module stand for: its own sections as placed, exports of the kernel and of modules that were
//! accepted before.
//!
//! Trusts the [`Resolver`]. Names are looked up as Linux does (`resolve_symbol`, kernel/module/main.c): exports for
//! GPL-compatible modules are not seen by others, and an export in a namespace needs the module to import it. Versions of
//! symbols (`__versions`) are not compared: both sides are signed by the same key, and a symbol's address is what counts.

use alloc::vec::Vec;

use super::error::{ModuleError, Name};
use super::layout::{Layout, Place};
use super::modinfo::ModInfo;
use crate::elf::{self, Binding, Elf, Symbol};
use crate::heap::{self, TryPush};

/// The most symbols that a module may need from others.
pub const MAX_UNDEFINED: usize = 1 << 16;

/// A symbol that modules may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export<'a> {
    /// What it stands for: an address, or an offset in the per-CPU area.
    pub value: u64,
    /// Whether it is for GPL-compatible modules only.
    pub gpl: bool,
    /// The namespace that a module has to import; empty for none.
    pub namespace: &'a [u8],
}

/// The symbols that modules may use: the kernel's first, then those of accepted modules.
pub trait Resolver {
    /// The export of that name.
    fn find(&self, name: &[u8]) -> Option<Export<'_>>;
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// That number.
    Number(u64),
    /// That offset from where Linux placed the module's per-CPU variables.
    PerCpu(u64),
}

/// The symbols of a module.
#[derive(Debug)]
pub struct Symbols {
    /// Index and value of each undefined symbol, by index.
    undefined: Vec<(u32, u64)>,
    /// Values of the first symbols, for speed; [`UNKNOWN`] where there is more to say.
    values: Vec<u64>,
}

/// No value of a symbol, as an address would not be canonical.
const UNKNOWN: u64 = 0x5a5a_5a5a_5a5a_5a5a;
/// Of how many symbols the values are kept ready: half a mebibyte of them.
const READY: usize = 1 << 16;

impl Symbols {
    /// Finds all symbols that the module needs from others.
    ///
    /// # Errors
    /// [`ModuleError::Symbol`] for one that is unknown or that the module may not use.
    pub fn new(
        elf: &Elf<'_>,
        info: &ModInfo<'_>,
        layout: &Layout,
        resolver: &impl Resolver,
    ) -> Result<Self, ModuleError> {
        let gpl = info.is_gpl_compatible();
        let ready = elf.symbol_count().min(READY);
        let mut symbols = Self { undefined: Vec::new(), values: heap::with_room(ready)? };
        for index in 0..elf.symbol_count() {
            let refused = |name: &[u8], rule| ModuleError::Symbol { symbol: Name::new(name), rule };
            let symbol = elf.symbol(index).map_err(|rule| refused(b"", rule))?;
            let value = if symbol.place == elf::Place::Undefined && index != 0 {
                let name = elf.symbol_name(&symbol).map_err(|rule| refused(b"", rule))?;
                let value = resolve(&symbol, name, gpl, info, resolver).map_err(|rule| refused(name, rule))?;
                if symbols.undefined.len() >= MAX_UNDEFINED {
                    return Err(refused(name, "a module must not need more than 65536 symbols"));
                }
                let index = u32::try_from(index).map_err(|_| ModuleError::OutOfMemory)?;
                symbols.undefined.try_push((index, value))?;
                value
            } else {
                match symbols.defined(&symbol, layout, index) {
                    Ok(Value::Number(value)) => value,
                    _ => UNKNOWN,
                }
            };
            if symbols.values.len() < ready {
                symbols.values.push(value);
            }
        }
        Ok(symbols)
    }

    /// What the symbol of that index stands for.
    ///
    /// # Errors
    /// When it does not exist, or is in a section that is not in memory.
    #[inline]
    pub fn value(&self, elf: &Elf<'_>, layout: &Layout, index: usize) -> Result<Value, &'static str> {
        match self.values.get(index) {
            Some(value) if *value != UNKNOWN => Ok(Value::Number(*value)),
            _ => self.look_up(elf, layout, index),
        }
    }

    /// The value of a symbol that is a plain number, where it is kept ready.
    #[inline]
    pub(super) fn ready(&self, index: usize) -> Option<u64> {
        self.values.get(index).copied().filter(|value| *value != UNKNOWN)
    }

    fn look_up(&self, elf: &Elf<'_>, layout: &Layout, index: usize) -> Result<Value, &'static str> {
        self.defined(&elf.symbol(index)?, layout, index)
    }

    fn defined(&self, symbol: &Symbol, layout: &Layout, index: usize) -> Result<Value, &'static str> {
        match symbol.place {
            elf::Place::Absolute => Ok(Value::Number(symbol.value)),
            elf::Place::Section(section) => match (layout.place(section), layout.address(section)) {
                (Place::PerCpu, _) => Ok(Value::PerCpu(symbol.value)),
                (_, Some(address)) => Ok(Value::Number(address.wrapping_add(symbol.value))),
                (_, None) => Err("a symbol in use must be in memory"),
            },
            // Symbol 0 is "none", with the value 0.
            elf::Place::Undefined if index == 0 => Ok(Value::Number(0)),
            elf::Place::Undefined => {
                self.undefined(index).map(Value::Number).ok_or("a symbol must have been looked up")
            }
        }
    }

    fn undefined(&self, index: usize) -> Option<u64> {
        let index = u32::try_from(index).ok()?;
        // Nearly always all of them are in one run.
        let first = self.undefined.first()?.0;
        let guess = self.undefined.get(usize::try_from(index.checked_sub(first)?).ok()?);
        if let Some((found, value)) = guess
            && *found == index
        {
            return Some(*value);
        }
        let at = self.undefined.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.undefined.get(at).map(|(_, value)| *value)
    }
}

/// The value of a symbol that others must define.
fn resolve(
    symbol: &Symbol,
    name: &[u8],
    gpl: bool,
    info: &ModInfo<'_>,
    resolver: &impl Resolver,
) -> Result<u64, &'static str> {
    match resolver.find(name) {
        Some(export) if export.gpl && !gpl => Err("the symbol is for GPL-compatible modules only"),
        Some(export) if !export.namespace.is_empty() && !info.imports(export.namespace) => {
            Err("the module must import the symbol's namespace")
        }
        Some(export) => Ok(export.value),
        None if symbol.binding == Binding::Weak => Ok(symbol.value),
        None => Err("neither the kernel nor an accepted module exports the symbol"),
    }
}
