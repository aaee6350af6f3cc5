//! The symbols VTL0's kernel exports, as LoadKData found them: names sorted, for both export tables.
//!
//! The table holds VTL1's own copies of what VTL0's kernel said during boot; nothing VTL0 does later changes it. All
//! names lie in one buffer, without separators.

use alloc::vec::Vec;

use vsm_integrity::heap::{OutOfMemory, TryPush, with_room};

use crate::error::VsmError;

/// The names' buffer grows by this many bytes, so that it never has much more than it needs.
const NAMES_STEP: usize = 64 << 10;

/// Where a symbol's name lies, and what it stands for.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: u64,
    name: u32,
    name_len: u16,
    gpl: bool,
    /// Index into the namespaces, counted from 1; 0 for none.
    namespace: u8,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// A symbol of VTL0's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name, printable ASCII.
    pub name: &'a str,
    /// An address, or an offset within the per-CPU area.
    pub value: u64,
    /// Whether only GPL-compatible modules may use it.
    pub gpl: bool,
    /// The namespace that a module has to import to use it; empty for none.
    pub namespace: &'a str,
}

/// All exported symbols of VTL0's kernel, sorted by name.
#[derive(Debug, Default)]
pub struct SymbolTable {
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// Their names.
    namespaces: Vec<Vec<u8>>,
}

impl SymbolTable {
    /// How many symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of the symbols are for GPL-compatible modules only.
    #[must_use]
    pub fn gpl_count(&self) -> usize {
        self.entries.iter().filter(|entry| entry.gpl).count()
    }

    /// The symbol called `name`. Where both tables export the name it is that of the first, as in Linux.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Symbol<'_>> {
        let at = self.entries.partition_point(|entry| self.name(entry) < name);
        let entry = self.entries.get(at).filter(|entry| self.name(entry) == name)?;
        self.symbol(entry)
    }

    /// All symbols, by name.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.entries.iter().filter_map(|entry| self.symbol(entry))
    }

    fn symbol(&self, entry: &Entry) -> Option<Symbol<'_>> {
        let name = core::str::from_utf8(self.name(entry)).ok()?;
        let namespace = usize::from(entry.namespace).checked_sub(1).and_then(|index| self.namespaces.get(index));
        let namespace = core::str::from_utf8(namespace.map_or(&[], Vec::as_slice)).ok()?;
        Some(Symbol { name, value: entry.value, gpl: entry.gpl, namespace })
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        name_of(&self.names, entry)
    }
}

fn name_of<'a>(names: &'a [u8], entry: &Entry) -> &'a [u8] {
    let Ok(start) = usize::try_from(entry.name) else { return &[] };
    names.get(start..).and_then(|rest| rest.get(..usize::from(entry.name_len))).unwrap_or_default()
}

/// Builds a table.
#[derive(Debug, Default)]
pub struct SymbolTableBuilder {
    table: SymbolTable,
}

impl SymbolTableBuilder {
    /// A table with room for `symbols`, so that adding them moves nothing.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`].
    pub fn new(symbols: usize) -> Result<Self, VsmError> {
        Ok(Self { table: SymbolTable { entries: with_room(symbols)?, ..SymbolTable::default() } })
    }

    /// How many symbols have been added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none has been.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds a symbol. A name must be ASCII; one that is not is never found.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`], also for a name or a table too long to count.
    pub fn push(&mut self, name: &[u8], value: u64, gpl: bool) -> Result<(), VsmError> {
        let SymbolTable { names, entries, .. } = &mut self.table;
        let name_len = u16::try_from(name.len()).map_err(|_| OutOfMemory)?;
        let at = u32::try_from(names.len()).map_err(|_| OutOfMemory)?;
        if names.capacity() - names.len() < name.len() {
            names.try_reserve_exact(name.len().max(NAMES_STEP)).map_err(|_| OutOfMemory)?;
        }
        entries.try_push(Entry { value, name: at, name_len, gpl, namespace: 0 })?;
        names.extend_from_slice(name);
        Ok(())
    }

    /// The number of a namespace, for [`Self::assign`].
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`], also for more than 255 namespaces.
    pub fn namespace(&mut self, name: &[u8]) -> Result<u8, VsmError> {
        let namespaces = &mut self.table.namespaces;
        let index = if let Some(index) = namespaces.iter().position(|known| known == name) {
            index
        } else {
            let mut copy = with_room(name.len())?;
            copy.extend_from_slice(name);
            // Not kept beyond what can be counted.
            u8::try_from(namespaces.len() + 1).map_err(|_| OutOfMemory)?;
            namespaces.try_push(copy)?;
            namespaces.len() - 1
        };
        Ok(u8::try_from(index + 1).map_err(|_| OutOfMemory)?)
    }

    /// Puts the symbol that was added as number `symbol`, counted from 0, into a namespace.
    pub fn assign(&mut self, symbol: usize, namespace: u8) {
        if let Some(entry) = self.table.entries.get_mut(symbol) {
            entry.namespace = namespace;
        }
    }

    /// The finished table.
    #[must_use]
    pub fn finish(self) -> SymbolTable {
        let SymbolTable { names, mut entries, namespaces } = self.table;
        entries.sort_unstable_by(|left, right| {
            let [left, right] = [left, right].map(|entry| (name_of(&names, entry), entry.gpl, entry.value));
            left.cmp(&right)
        });
        SymbolTable { names: trimmed(names), entries, namespaces }
    }
}

/// The same names in a buffer of their own size if at least half of the present one is unused, as for a module, and if there
/// is memory for it.
fn trimmed(names: Vec<u8>) -> Vec<u8> {
    if names.capacity() / 2 < names.len() {
        return names;
    }
    let Ok(mut exact) = with_room(names.len()) else { return names };
    exact.extend_from_slice(&names);
    exact
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(&str, u64, bool)]) -> SymbolTable {
        let mut builder = SymbolTableBuilder::new(symbols.len()).unwrap();
        for (name, value, gpl) in symbols {
            builder.push(name.as_bytes(), *value, *gpl).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn symbols_are_found_by_their_whole_name() {
        let table = table(&[("vmalloc", 1, false), ("kmalloc", 2, false), ("kmalloc_", 3, true), ("k", 4, true)]);
        for (name, value, gpl) in [("vmalloc", 1, false), ("kmalloc", 2, false), ("kmalloc_", 3, true), ("k", 4, true)]
        {
            assert_eq!(table.find(name.as_bytes()), Some(Symbol { name, value, gpl, namespace: "" }));
        }
        for name in ["", "kmallo", "kmalloc__", "z", "a"] {
            assert_eq!(table.find(name.as_bytes()), None, "{name}");
        }
        assert_eq!(table.iter().map(|symbol| symbol.value).collect::<Vec<_>>(), [4, 2, 3, 1]);
        assert_eq!((table.len(), table.gpl_count()), (4, 2));
        assert!(SymbolTable::default().find(b"k").is_none());
    }

    #[test]
    fn a_name_in_both_tables_is_the_first_tables() {
        assert_eq!(table(&[("a", 1, true), ("a", 2, false)]).find(b"a").unwrap().value, 2);
    }

    #[test]
    fn names_take_little_more_memory_than_they_have_bytes() {
        let mut builder = SymbolTableBuilder::new(20_000).unwrap();
        for index in 0..20_000u64 {
            builder.push(format!("a_symbol_{index}").as_bytes(), index, false).unwrap();
        }
        let table = builder.finish();
        assert!(table.names.capacity() - table.names.len() <= NAMES_STEP);
        assert_eq!(table.entries.capacity(), 20_000);
        assert_eq!(table.find(b"a_symbol_777").unwrap().value, 777);
    }
}
