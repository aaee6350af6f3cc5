//! Where functions start in VTL0's virtual memory: those that its kernel exports, and all of the modules that VTL1 has
//! accepted. A static call may lead there and nowhere else.
//!
//! All of it follows from what VTL0's kernel said during boot and from signed files. A look-up takes logarithmic time.

use alloc::vec::Vec;

use vsm_integrity::heap::with_room;

use crate::error::VsmError;
use crate::token::Token;

use super::container::MemoryContainer;
use super::symbols::SymbolTable;

/// Where Linux maps its kernel: the last 2 GiB (`__START_KERNEL_map`, arch/x86/include/asm/page_64_types.h).
pub const KERNEL: u64 = 0xffff_ffff_8000_0000;

/// The functions that VTL0's kernel exports.
#[derive(Debug, Default)]
pub struct KernelFunctions {
    /// Offsets from [`KERNEL`], ascending.
    offsets: Vec<u32>,
}

impl KernelFunctions {
    /// The functions among `symbols`: those below `end`, where the kernel's read-only data begin. Its text lies before them
    /// (arch/x86/kernel/vmlinux.lds.S), and everything else that it exports behind; per-CPU symbols are no addresses.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`].
    pub fn new(symbols: &SymbolTable, end: u64) -> Result<Self, VsmError> {
        let offset = |value: u64| value.checked_sub(KERNEL).filter(|_| value < end);
        let offsets = || symbols.iter().filter_map(|symbol| u32::try_from(offset(symbol.value)?).ok());
        let mut all = with_room(offsets().count())?;
        all.extend(offsets());
        all.sort_unstable();
        Ok(Self { offsets: all })
    }

    /// Whether one starts at `va`.
    #[must_use]
    pub fn contains(&self, va: u64) -> bool {
        let offset = va.checked_sub(KERNEL).and_then(|offset| u32::try_from(offset).ok());
        offset.is_some_and(|offset| self.offsets.binary_search(&offset).is_ok())
    }
}

/// The functions of a module.
#[derive(Debug, Default)]
pub struct ModuleFunctions {
    /// Offsets in its text, ascending.
    text: Vec<u32>,
    /// Offsets in its text for initialisation.
    init: Vec<u32>,
}

impl ModuleFunctions {
    /// Functions at these offsets in a module's text, and in its text for initialisation; ascending.
    #[must_use]
    pub fn new(text: Vec<u32>, init: Vec<u32>) -> Self {
        Self { text, init }
    }

    /// Whether one starts at that offset.
    pub(super) fn contains(&self, init: bool, offset: u64) -> bool {
        let offsets = if init { &self.init } else { &self.text };
        u32::try_from(offset).is_ok_and(|offset| offsets.binary_search(&offset).is_ok())
    }

    /// Forgets those for initialisation.
    pub(super) fn remove_init(&mut self) {
        self.init = Vec::new();
    }
}

/// A module's text in VTL0's virtual memory, half-open.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModuleText {
    pub start: u64,
    end: u64,
    pub token: Token,
    /// Whether it is for initialisation.
    pub init: bool,
}

/// The texts of all modules. No two of them share a byte, because no two modules do.
#[derive(Debug, Default)]
pub(super) struct ModuleTexts {
    /// By address.
    texts: Vec<ModuleText>,
}

impl ModuleTexts {
    /// Makes room for the texts of one module.
    pub fn reserve(&mut self) -> Result<(), VsmError> {
        self.texts.try_reserve(2).map_err(|_| VsmError::OutOfMemory("another module"))
    }

    /// Adds the texts among a module's parts, for which [`Self::reserve`] has made room.
    pub fn insert(&mut self, token: Token, parts: &[MemoryContainer]) {
        for part in parts.iter().filter(|part| part.kind.is_text()) {
            let text = ModuleText {
                start: part.va,
                end: part.va.saturating_add(part.size()),
                token,
                init: part.kind.is_init(),
            };
            let at = self.texts.partition_point(|other| other.start < text.start);
            self.texts.insert(at, text);
        }
    }

    /// The text that has the byte at `va`.
    pub fn at(&self, va: u64) -> Option<ModuleText> {
        let after = self.texts.partition_point(|text| text.start <= va);
        self.texts.get(after.checked_sub(1)?).copied().filter(|text| va < text.end)
    }

    pub fn remove(&mut self, token: Token) {
        self.texts.retain(|text| text.token != token);
    }

    pub fn remove_init(&mut self, token: Token) {
        self.texts.retain(|text| text.token != token || !text.init);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::FrameRange;
    use crate::owner::ModuleMemoryKind as Kind;
    use crate::vtl0::SymbolTableBuilder;

    #[test]
    fn the_kernels_functions_are_its_exports_before_its_read_only_data() {
        let end = KERNEL + 0x200_0000;
        let mut builder = SymbolTableBuilder::new(6).unwrap();
        for value in [KERNEL + 0x100, end - 1, end, 0x2_0000, KERNEL, KERNEL + 0x100] {
            builder.push(b"name", value, false).unwrap();
        }
        let functions = KernelFunctions::new(&builder.finish(), end).unwrap();
        for (va, expected) in [
            (KERNEL + 0x100, true),
            (KERNEL, true),
            (end - 1, true),
            (end, false),
            (0x2_0000, false),
            (KERNEL + 0x101, false),
            (KERNEL.wrapping_add(0x1_0000_0100), false),
            (0, false),
        ] {
            assert_eq!(functions.contains(va), expected, "{va:#x}");
        }
        assert!(!KernelFunctions::default().contains(KERNEL));
    }

    #[test]
    fn a_text_is_found_by_each_of_its_bytes_and_no_other() {
        let part = |kind, va, pages: u64| MemoryContainer {
            kind,
            va,
            frames: vec![FrameRange::from_gfns(1, 2).unwrap(), FrameRange::from_gfns(8, 7 + pages).unwrap()],
        };
        let [one, two] = [1, 2].map(|token| Token::new(token).unwrap());
        let mut texts = ModuleTexts::default();
        texts.insert(two, &[part(Kind::Text, 0x9000, 2), part(Kind::Data, 0xb000, 2)]);
        texts.insert(one, &[part(Kind::Text, 0x3000, 3), part(Kind::InitText, 0x7000, 2)]);
        let at = |texts: &ModuleTexts, va| texts.at(va).map(|text| (text.token.get(), text.start, text.init));
        for (va, expected) in [
            (0x2fff, None),
            (0x3000, Some((1, 0x3000, false))),
            (0x5fff, Some((1, 0x3000, false))),
            (0x6000, None),
            (0x7001, Some((1, 0x7000, true))),
            (0x9000, Some((2, 0x9000, false))),
            (0xb000, None),
            (u64::MAX, None),
        ] {
            assert_eq!(at(&texts, va), expected, "{va:#x}");
        }
        texts.remove_init(one);
        assert!(at(&texts, 0x7001).is_none() && at(&texts, 0x3000).is_some());
        texts.remove(two);
        assert!(at(&texts, 0x9000).is_none() && at(&texts, 0x3000).is_some());
    }
}
