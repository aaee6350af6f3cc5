//! The symbols that a module may use: those of VTL0's kernel, then those of the modules accepted before it.
//!
//! All of them are VTL1's own values. Which modules a new one uses is noted, so that none of them goes before it.

use alloc::vec::Vec;
use core::cell::Cell;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vtl0::{ModuleMemoryMetadataMap, SymbolTable};
use vsm_integrity::heap::{filled, with_room};
use vsm_integrity::module::{Export, Resolver};

/// The symbols, and whose have been asked for.
pub(super) struct KnownSymbols<'a> {
    kernel: &'a SymbolTable,
    modules: &'a ModuleMemoryMetadataMap,
    /// For each module, whether one of its symbols has been found.
    used: Vec<Cell<bool>>,
}

impl<'a> KnownSymbols<'a> {
    pub(super) fn new(kernel: &'a SymbolTable, modules: &'a ModuleMemoryMetadataMap) -> Result<Self, VsmError> {
        Ok(Self { kernel, modules, used: filled(modules.len(), Cell::new(false))? })
    }

    /// The modules whose symbols have been found.
    pub(super) fn used(&self) -> Result<Vec<Token>, VsmError> {
        let mut tokens = with_room(self.used.iter().filter(|used| used.get()).count())?;
        let used = self.modules.iter().zip(&self.used).filter(|(_, used)| used.get());
        tokens.extend(used.map(|(module, _)| module.token));
        Ok(tokens)
    }
}

impl Resolver for KnownSymbols<'_> {
    fn find(&self, name: &[u8]) -> Option<Export<'_>> {
        let of_module = || {
            self.modules.iter().zip(&self.used).find_map(|(module, used)| {
                let symbol = module.exports.find(name)?;
                used.set(true);
                Some(symbol)
            })
        };
        let symbol = self.kernel.find(name).or_else(of_module)?;
        Some(Export { value: symbol.value, gpl: symbol.gpl, namespace: symbol.namespace.as_bytes() })
    }
}
