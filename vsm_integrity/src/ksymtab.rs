//! The export tables of VTL0's kernel, read through a view of its virtual memory.
//!
//! A table is an array of `struct kernel_symbol` with three displacements, each relative to its own field
//! (`CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`; Linux `include/linux/export-internal.h`). The names lie elsewhere, in any
//! order. [`load`] reads the tables first and then sweeps once, upwards, over the names, so that no byte is fetched
//! twice and no more than a page of the kernel is held at a time.

use alloc::vec::Vec;

use crate::addresses::is_canonical;
use crate::bytes::u32_at;
use crate::heap::{self, OutOfMemory};

/// Bytes of a `struct kernel_symbol`: value, name and namespace, 32 bits each.
pub const ENTRY_BYTES: u64 = ENTRY as u64;
const ENTRY: usize = 12;
/// The most symbols both tables may have together. A distribution's kernel has some ten thousand.
pub const MAX_SYMBOLS: u64 = 1 << 16;
/// The most bytes of a name without its NUL (Linux `KSYM_NAME_LEN` is 512 with it).
pub const MAX_NAME_BYTES: usize = 511;
/// The most bytes all names may have together. A distribution's kernel has some 250 KiB; symbols can share a name in VTL0,
/// but not where they are kept.
pub const MAX_NAMES_BYTES: usize = 4 << 20;
/// The most bytes fetched at once, but never past the end of a page.
const CHUNK: usize = 4096;

/// Where an export table lies in VTL0's virtual memory: canonical, a whole number of entries, not too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    start: u64,
    end: u64,
}

impl Table {
    /// The table in `start..end`.
    ///
    /// # Errors
    /// The rule that the bounds break.
    pub fn new(start: u64, end: u64) -> Result<Self, &'static str> {
        let bytes = end.checked_sub(start).ok_or("an export table must not end before it starts")?;
        if !bytes.is_multiple_of(ENTRY_BYTES) {
            return Err("an export table must have a whole number of entries");
        }
        if bytes / ENTRY_BYTES > MAX_SYMBOLS {
            return Err("an export table must not have more than 65536 symbols");
        }
        if !is_canonical(start) || !is_canonical(end) {
            return Err("an export table must have canonical addresses");
        }
        Ok(Self { start, end })
    }

    /// Address of the first entry.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Address after the last entry.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many entries.
    #[must_use]
    pub const fn count(&self) -> u64 {
        (self.end - self.start) / ENTRY_BYTES
    }

    /// Whether the tables share a byte.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A view of VTL0's virtual memory through which each byte can be fetched once.
pub trait VirtualMemory {
    /// Why a fetch failed.
    type Error;

    /// How many bytes from `va` on, in one piece, can be fetched: they are part of the view and have not been.
    fn available(&self, va: u64) -> u64;

    /// Fetches the bytes from `va` on.
    ///
    /// # Errors
    /// When one of them is not part of the view, has been fetched, or cannot be.
    fn fetch(&mut self, va: u64, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// Where the symbols are kept.
pub trait Keeper {
    /// Why something cannot be kept.
    type Error;

    /// Keeps a symbol. Symbols are numbered from 0 in the order of these calls.
    ///
    /// # Errors
    /// The keeper's.
    fn symbol(&mut self, export: Export<'_>) -> Result<(), Self::Error>;

    /// The keeper's number for a namespace, which is the same for the same name.
    ///
    /// # Errors
    /// The keeper's.
    fn namespace(&mut self, name: &[u8]) -> Result<u8, Self::Error>;

    /// The symbol with the number `symbol` belongs to a namespace. Called after all other methods; symbols that it is
    /// not called for belong to none.
    fn assign(&mut self, symbol: usize, namespace: u8);
}

/// A symbol of a table, to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export<'a> {
    /// The name, printable ASCII, 1 to [`MAX_NAME_BYTES`] bytes.
    pub name: &'a [u8],
    /// What the symbol stands for: an address, or an offset within the per-CPU area.
    pub value: u64,
    /// Whether it comes from the second table, for GPL-compatible modules.
    pub gpl: bool,
}

/// Why [`load`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError<E> {
    /// VTL0 broke a rule; at the virtual address.
    Rule {
        /// Where.
        va: u64,
        /// Which.
        rule: &'static str,
    },
    /// The heap does not hold the tables.
    OutOfMemory,
    /// The view or the keeper failed.
    Other(E),
}

impl<E> From<OutOfMemory> for LoadError<E> {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// An entry whose name is still to be read; ordered by where that lies.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    name: u64,
    value: u64,
    /// Where the namespace's name lies; 0 for none.
    namespace: u64,
    gpl: bool,
}

/// The name of a namespace: where it lies, and the keeper's number for it if it is not empty.
struct Namespace {
    at: u64,
    number: Option<u8>,
}

/// Reads both tables and hands every symbol to `keeper`, in the order of the addresses of the names.
///
/// Takes 32 bytes of heap for each symbol and 24 for each place with a namespace's name while it runs, and some 4.5 KiB
/// besides.
///
/// # Errors
/// [`LoadError`]; `keeper` may have been called for some symbols by then.
pub fn load<M: VirtualMemory>(
    memory: &mut M,
    ksymtab: &Table,
    ksymtab_gpl: &Table,
    keeper: &mut impl Keeper<Error = M::Error>,
) -> Result<(), LoadError<M::Error>> {
    let count = ksymtab.count().saturating_add(ksymtab_gpl.count());
    if count > MAX_SYMBOLS {
        let rule = "both export tables together must not have more than 65536 symbols";
        return Err(LoadError::Rule { va: ksymtab.start, rule });
    }
    let mut window = Window::new()?;
    let mut pending = heap::with_room(usize::try_from(count).map_err(|_| LoadError::OutOfMemory)?)?;
    for (table, gpl) in [(ksymtab, false), (ksymtab_gpl, true)] {
        read_table(memory, table, gpl, &mut window.bytes, &mut pending)?;
    }
    let mut names = 0_usize;
    // By address, so that the window only ever moves up.
    pending.sort_unstable_by(Pending::cmp);
    let mut namespaces = places_of_namespaces(&pending)?;
    let mut next = namespaces.iter_mut().peekable();
    for Pending { name: va, value, gpl, .. } in &pending {
        while let Some(namespace) = next.next_if(|namespace| namespace.at < *va) {
            namespace.read(memory, &mut window, keeper)?;
        }
        let name = window.text(memory, *va)?;
        check_name(name).map_err(|rule| LoadError::Rule { va: *va, rule })?;
        names = names.saturating_add(name.len());
        if names > MAX_NAMES_BYTES {
            return Err(LoadError::Rule { va: *va, rule: "the symbols' names must not have more than 4 MiB together" });
        }
        keeper.symbol(Export { name, value: *value, gpl: *gpl }).map_err(LoadError::Other)?;
    }
    for namespace in next {
        namespace.read(memory, &mut window, keeper)?;
    }
    for (symbol, Pending { namespace, .. }) in pending.iter().enumerate() {
        let place = namespaces.binary_search_by_key(namespace, |place| place.at).ok();
        if let Some(number) = place.and_then(|index| namespaces.get(index)).and_then(|place| place.number) {
            keeper.assign(symbol, number);
        }
    }
    Ok(())
}

/// Where names of namespaces lie, ascending, each place once.
fn places_of_namespaces<E>(pending: &[Pending]) -> Result<Vec<Namespace>, LoadError<E>> {
    let mut places = heap::with_room(pending.len())?;
    let named = pending.iter().map(|entry| entry.namespace).filter(|namespace| *namespace != 0);
    places.extend(named.map(|at| Namespace { at, number: None }));
    places.sort_unstable_by_key(|place: &Namespace| place.at);
    places.dedup_by(|one, other| one.at == other.at);
    Ok(places)
}

impl Namespace {
    fn read<M: VirtualMemory>(
        &mut self,
        memory: &mut M,
        window: &mut Window,
        keeper: &mut impl Keeper<Error = M::Error>,
    ) -> Result<(), LoadError<M::Error>> {
        let name = window.text(memory, self.at)?;
        if !name.is_empty() {
            check_name(name).map_err(|rule| LoadError::Rule { va: self.at, rule })?;
            self.number = Some(keeper.namespace(name).map_err(LoadError::Other)?);
        }
        Ok(())
    }
}

/// Appends the entries of `table`, of which `pending` has room for all.
fn read_table<M: VirtualMemory>(
    memory: &mut M,
    table: &Table,
    gpl: bool,
    buffer: &mut [u8],
    pending: &mut Vec<Pending>,
) -> Result<(), LoadError<M::Error>> {
    /// Entries fetched at a time.
    const ENTRIES: u64 = CHUNK as u64 / ENTRY_BYTES;
    let mut at = table.start;
    while at < table.end {
        let bytes = (table.end - at).min(ENTRIES * ENTRY_BYTES);
        let chunk = usize::try_from(bytes).ok().and_then(|bytes| buffer.get_mut(..bytes));
        let chunk = chunk.ok_or(LoadError::OutOfMemory)?;
        memory.fetch(at, chunk).map_err(LoadError::Other)?;
        for entry in chunk.as_chunks::<ENTRY>().0 {
            pending.push(decode(entry, at, gpl));
            at = at.wrapping_add(ENTRY_BYTES);
        }
    }
    Ok(())
}

/// The entry at address `at`. Displacements wrap: a per-CPU symbol's value is a small number, far below its entry.
fn decode(entry: &[u8; ENTRY], at: u64, gpl: bool) -> Pending {
    let target = |field: usize| {
        // Both lossless: the field is within the entry.
        let displacement = u32_at(entry, field).unwrap_or_default().cast_signed();
        at.wrapping_add(field as u64).wrapping_add_signed(i64::from(displacement))
    };
    // Linux `kernel_symbol_namespace`: no displacement, no namespace.
    let namespace = if u32_at(entry, 8).unwrap_or_default() == 0 { 0 } else { target(8) };
    Pending { value: target(0), name: target(4), namespace, gpl }
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a symbol must have a name");
    }
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err("a symbol's name must be printable ASCII");
    }
    Ok(())
}

/// The piece of VTL0's memory that has been fetched last; it moves upwards only.
struct Window {
    bytes: Vec<u8>,
    /// Address of the first byte, and how many there are.
    start: u64,
    len: usize,
}

impl Window {
    fn new<E>() -> Result<Self, LoadError<E>> {
        Ok(Self { bytes: heap::filled(MAX_NAME_BYTES + 1 + CHUNK, 0)?, start: 0, len: 0 })
    }

    /// The NUL-terminated text at `va`, which is not below that of the call before.
    fn text<M: VirtualMemory>(&mut self, memory: &mut M, va: u64) -> Result<&[u8], LoadError<M::Error>> {
        loop {
            let held = va.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
            let held = held.filter(|offset| *offset < self.len);
            if let Some(offset) = held {
                let rest = self.bytes.get(offset..self.len).unwrap_or_default();
                if let Some(length) = rest.iter().take(MAX_NAME_BYTES + 1).position(|byte| *byte == 0) {
                    // Written out once more, for the borrow would not end before the loop's next round.
                    return Ok(self.bytes.get(offset..offset + length).unwrap_or_default());
                }
                if rest.len() > MAX_NAME_BYTES {
                    return Err(LoadError::Rule { va, rule: "a symbol's name must not have more than 511 bytes" });
                }
                // Only what may still be needed stays.
                self.bytes.copy_within(offset..self.len, 0);
                self.len -= offset;
            } else {
                self.len = 0;
            }
            self.start = va;
            self.extend(memory)?;
        }
    }

    /// Fetches what comes after the window, up to the end of a page.
    fn extend<M: VirtualMemory>(&mut self, memory: &mut M) -> Result<(), LoadError<M::Error>> {
        let rule = "a symbol's name must lie within the kernel data, and outside of what else VTL0 has named";
        let next = self.start.checked_add(self.len as u64);
        let next = next.ok_or(LoadError::Rule { va: self.start, rule })?;
        let page = CHUNK as u64;
        let bytes = memory.available(next).min(page - next % page);
        let end = usize::try_from(bytes).ok().and_then(|bytes| self.len.checked_add(bytes));
        let fresh = end.and_then(|end| self.bytes.get_mut(self.len..end)).unwrap_or_default();
        if fresh.is_empty() {
            return Err(LoadError::Rule { va: next, rule });
        }
        memory.fetch(next, fresh).map_err(LoadError::Other)?;
        self.len += fresh.len();
        Ok(())
    }
}

#[cfg(test)]
#[path = "ksymtab_tests.rs"]
mod tests;
