//! The kernel modules that VTL1 has accepted: where their memory lies, what they export, and which others they use.
//!
//! All of it is VTL1's own: resolved from signed files and VTL1's own addresses, not from what VTL0 has in memory. A
//! module is known by a token, which is never that of another one while it lives.

use alloc::vec::Vec;

use vsm_integrity::module::Habits;

use crate::error::VsmError;
use crate::owner::{ModuleMemoryKind, Owner};
use crate::token::Token;

use super::container::MemoryContainer;
use super::functions::{ModuleFunctions, ModuleTexts};
use super::patches::{PatchData, PatchDataMap};
use super::symbols::SymbolTable;

/// The most bytes of a module's file (LVBS contract §5.7).
pub const MODULE_VALIDATION_MAX_SIZE: u64 = 64 << 20;
/// The most modules. A distribution's kernel loads some hundred.
pub const MAX_MODULES: usize = 4096;

/// A module.
#[derive(Debug)]
pub struct ModuleMemory {
    /// The number by which VTL0 names it.
    pub token: Token,
    /// Its parts; those for initialisation go with FreeModuleInit.
    pub parts: Vec<MemoryContainer>,
    /// Its pages of thunks against ITS, each by itself: executable like its text, and with it until the module goes. No
    /// function that others may call starts there.
    pub thunks: Vec<MemoryContainer>,
    /// What other modules may use of it.
    pub exports: SymbolTable,
    /// The modules it uses.
    pub uses: Vec<Token>,
    /// Where its text may be patched.
    pub patches: PatchDataMap,
    /// Where static calls may lead in it.
    pub functions: ModuleFunctions,
    /// Whether it has been initialised: FreeModuleInit has come.
    pub initialised: bool,
}

/// All modules.
#[derive(Debug, Default)]
pub struct ModuleMemoryMetadataMap {
    /// In the order they were accepted.
    modules: Vec<ModuleMemory>,
    /// Where their text is in VTL0's virtual memory.
    texts: ModuleTexts,
    /// The token given last.
    last: u32,
    /// How this kernel rewrites code, as the modules accepted so far have shown: the next one must not contradict it.
    pub habits: Habits,
}

impl ModuleMemory {
    /// All of its memory.
    pub fn memory(&self) -> impl Iterator<Item = &MemoryContainer> {
        self.parts.iter().chain(&self.thunks)
    }
}

impl ModuleMemoryMetadataMap {
    /// A token for the next module, and room for it.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`], also when there are [`MAX_MODULES`].
    pub fn prepare(&mut self) -> Result<Token, VsmError> {
        const FULL: VsmError = VsmError::OutOfMemory("another module");
        if self.modules.len() >= MAX_MODULES {
            return Err(FULL);
        }
        self.modules.try_reserve(1).map_err(|_| FULL)?;
        self.texts.reserve()?;
        let mut token = self.last;
        // Ends: there are far more tokens than modules.
        loop {
            token = if token >= Token::MAX { 1 } else { token + 1 };
            if let Some(candidate) = Token::new(u64::from(token))
                && self.get(candidate).is_none()
            {
                return Ok(candidate);
            }
        }
    }

    /// Keeps a module for which [`Self::prepare`] has made room.
    pub fn insert(&mut self, module: ModuleMemory) {
        self.last = module.token.get();
        self.texts.insert(module.token, &module.parts);
        self.modules.push(module);
    }

    /// The module with that token.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&ModuleMemory> {
        self.modules.iter().find(|module| module.token == token)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut ModuleMemory> {
        self.modules.iter_mut().find(|module| module.token == token)
    }

    /// Notes that a module has been initialised: its parts for initialisation are gone, and so are the functions in them and
    /// the patch sites that `keep` is false for. Allocates nothing.
    pub fn end_initialisation(&mut self, token: Token, keep: impl FnMut(&PatchData) -> bool) {
        self.texts.remove_init(token);
        if let Some(module) = self.get_mut(token) {
            module.patches.retain(keep);
            module.functions.remove_init();
            module.parts.retain(|part| !part.kind.is_init());
            module.initialised = true;
        }
    }

    /// Whether a function of a module starts at VTL0's virtual address `va` that code may call which is in the text for
    /// initialisation of the module `init_of`, or in no such text: other code must not call what goes when its module has been
    /// initialised.
    #[must_use]
    pub fn has_function(&self, va: u64, init_of: Option<Token>) -> bool {
        let Some(text) = self.texts.at(va) else { return false };
        if text.init && Some(text.token) != init_of {
            return false;
        }
        self.get(text.token).is_some_and(|module| module.functions.contains(text.init, va - text.start))
    }

    /// Physical address of the byte at VTL0's virtual address `va`, and the owner of its frame, if it is one of a module's
    /// text that stays.
    #[must_use]
    pub fn text(&self, va: u64) -> Option<(Owner, u64)> {
        let token = self.texts.at(va).filter(|text| !text.init)?.token;
        let kind = ModuleMemoryKind::Text;
        let mut texts = self.get(token)?.parts.iter().filter(|part| part.kind == kind);
        Some((Owner::Module { token, kind }, texts.find_map(|part| part.physical(va))?))
    }

    /// Forgets a module.
    pub fn remove(&mut self, token: Token) {
        self.texts.remove(token);
        self.modules.retain(|module| module.token != token);
    }

    /// The first module that uses the one with that token.
    #[must_use]
    pub fn user_of(&self, token: Token) -> Option<Token> {
        self.modules.iter().find(|module| module.uses.contains(&token)).map(|module| module.token)
    }

    /// The first module that has one of the `size` bytes from VTL0's virtual address `va` on.
    #[must_use]
    pub fn at(&self, va: u64, size: u64) -> Option<Token> {
        let overlaps =
            |part: &MemoryContainer| va < part.va.saturating_add(part.size()) && part.va < va.saturating_add(size);
        self.modules.iter().find(|module| module.memory().any(overlaps)).map(|module| module.token)
    }

    /// All modules, in the order they were accepted.
    pub fn iter(&self) -> impl Iterator<Item = &ModuleMemory> {
        self.modules.iter()
    }

    /// How many modules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(token: Token, uses: &[Token]) -> ModuleMemory {
        ModuleMemory {
            token,
            parts: Vec::new(),
            thunks: Vec::new(),
            exports: SymbolTable::default(),
            uses: uses.to_vec(),
            patches: PatchDataMap::default(),
            functions: ModuleFunctions::default(),
            initialised: false,
        }
    }

    #[test]
    fn no_two_living_modules_have_one_token() {
        let mut map = ModuleMemoryMetadataMap::default();
        let first = map.prepare().unwrap();
        assert_eq!(first, map.prepare().unwrap(), "a refused module uses up no token");
        map.insert(module(first, &[]));
        let second = map.prepare().unwrap();
        map.insert(module(second, &[first]));
        assert!(first != second && map.user_of(first) == Some(second) && map.user_of(second).is_none());
        map.remove(first);
        assert!(map.get(first).is_none() && map.get(second).is_some());
        assert_ne!(map.prepare().unwrap(), first, "a token is not used again at once");
        // At the end of the tokens it starts anew, and passes over those that live.
        map.last = Token::MAX;
        let again = map.prepare().unwrap();
        assert_eq!(again.get(), 1);
        map.insert(module(again, &[]));
        map.last = 1;
        assert_eq!(map.prepare().unwrap().get(), 3, "2 lives");
    }

    #[test]
    fn there_are_so_many_modules_and_no_more() {
        let mut map = ModuleMemoryMetadataMap::default();
        for _ in 0..MAX_MODULES {
            let token = map.prepare().unwrap();
            map.insert(module(token, &[]));
        }
        assert_eq!(map.prepare(), Err(VsmError::OutOfMemory("another module")));
        map.remove(Token::new(7).unwrap());
        assert!(map.prepare().is_ok());
    }
}
