//! Target: the export tables, read through a view of memory with holes in which each byte can be fetched once, and the
//! table of symbols that VTL1 keeps of them.

use litebox_platform_lvbs::vtl0::{Symbol as Kept, SymbolTableBuilder};
use vsm_integrity::ksymtab::{ENTRY_BYTES, Export, Keeper, MAX_NAME_BYTES, Table, VirtualMemory, load};

use crate::input::Input;

/// Places for the view: in the kernel's half, at the end of the user's, at the very end.
const BASES: [u64; 3] = [0xffff_ffff_8200_0000, 0x0000_7fff_ffff_0000, 0xffff_ffff_ffff_0000];

/// A symbol as it was handed over: name, value, whether it is for GPL-compatible modules, namespace.
type Symbol = (Vec<u8>, u64, bool, Vec<u8>);
/// Where an entry's name lies, its value, whether it is in the second table, where its namespace's name lies.
type Entry = (u64, u64, bool, Option<u64>);

/// # Panics
/// When a rule is broken: the symbols are those of the tables, and whatever lies in the view, outside of the tables and
/// holes, is accepted; the table that is kept of them is sorted, and finds each by its name.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let base = BASES[usize::from(input.byte()) % BASES.len()] + u64::from(input.byte());
    let counts = [input.below(12), input.below(12)];
    let gap = input.below(16);
    let holes = [0; 2].map(|_| (input.short() & 0x1fff, u64::from(input.byte())));
    let bytes = input.bytes(usize::MAX);
    let first = base..base + counts[0] * ENTRY_BYTES;
    let second = first.end + gap..first.end + gap + counts[1] * ENTRY_BYTES;
    let (Ok(ksymtab), Ok(ksymtab_gpl)) = (Table::new(first.start, first.end), Table::new(second.start, second.end))
    else {
        panic!("tables at {first:x?} and {second:x?} are refused");
    };

    let mut view = View { base, bytes, usable: vec![true; bytes.len()] };
    for (start, len) in holes {
        view.usable
            .iter_mut()
            .skip(usize::try_from(start).unwrap_or_default())
            .take(len.try_into().unwrap_or_default())
            .for_each(|byte| *byte = false);
    }
    let expected = model(&view, [(first, false), (second, true)]);

    let mut kept = Collected::default();
    let result = load(&mut view, &ksymtab, &ksymtab_gpl, &mut kept);
    let mut symbols = kept.symbols;
    match (result, expected) {
        (Ok(()), Some(mut model)) => {
            model.sort_unstable();
            symbols.sort_unstable();
            assert_eq!(symbols, model);
            check_table(&symbols);
        }
        (Err(_), None) => {}
        (result, expected) => panic!("{result:?}, the model has {expected:?}"),
    }
}

/// The symbols of both tables; `None` when a byte of theirs is not there, or is one of the tables'.
fn model(view: &View<'_>, tables: [(std::ops::Range<u64>, bool); 2]) -> Option<Vec<Symbol>> {
    let mut names = view.usable.clone();
    let mut entries: Vec<Entry> = Vec::new();
    for (range, gpl) in tables {
        for at in range.step_by(12) {
            let index = usize::try_from(at - view.base).ok()?;
            let field = |offset: usize| {
                let place = index + offset..index + offset + 4;
                let usable = view.usable.get(place.clone())?.iter().all(|usable| *usable);
                let bytes = view.bytes.get(place).filter(|_| usable)?.try_into().ok()?;
                let distance = i32::from_le_bytes(bytes);
                let target = at.wrapping_add(offset as u64).wrapping_add_signed(distance.into());
                // Neither without a distance nor with a null pointer is there anything.
                Some((target, distance != 0 && target != 0))
            };
            let ((value, _), (name, _), (namespace, is_there)) = (field(0)?, field(4)?, field(8)?);
            entries.push((name, value, gpl, is_there.then_some(namespace)));
            names[index..index + 12].fill(false);
        }
    }
    let text = |va: u64| {
        let index = usize::try_from(va.checked_sub(view.base)?).ok()?;
        let rest = view.bytes.get(index..)?;
        let length = rest.iter().take(MAX_NAME_BYTES + 1).position(|byte| *byte == 0)?;
        let name = &rest[..length];
        let whole = names[index..=index + length].iter().all(|usable| *usable);
        (whole && name.iter().all(u8::is_ascii_graphic)).then(|| name.to_vec())
    };
    let symbol = |(name, value, gpl, namespace): Entry| {
        let name = text(name).filter(|name| !name.is_empty())?;
        Some((name, value, gpl, namespace.map_or(Some(Vec::new()), text)?))
    };
    entries.into_iter().map(symbol).collect()
}

/// What VTL1 keeps of `symbols`, which are sorted by name and value.
fn check_table(symbols: &[Symbol]) {
    let mut builder = SymbolTableBuilder::new(symbols.len()).expect("memory");
    for (number, (name, value, gpl, namespace)) in symbols.iter().rev().enumerate() {
        builder.push(name, *value, *gpl).expect("memory");
        if !namespace.is_empty() {
            let namespace = builder.namespace(namespace).expect("memory");
            builder.assign(number, namespace);
        }
    }
    let table = builder.finish();
    assert!(table.iter().is_sorted_by_key(|symbol| symbol.name));
    let symbol = |Kept { name, value, gpl, namespace }| {
        let bytes = |text: &str| text.as_bytes().to_vec();
        (bytes(name), value, gpl, bytes(namespace))
    };
    let mut kept: Vec<Symbol> = table.iter().map(symbol).collect();
    kept.sort_unstable();
    assert_eq!(kept, symbols);
    assert_eq!((table.len(), table.is_empty()), (symbols.len(), symbols.is_empty()));
    assert_eq!(table.gpl_count(), symbols.iter().filter(|(_, _, gpl, _)| *gpl).count());
    for (name, ..) in symbols {
        // Of several of the name the first table's, and there the least.
        let named = symbols.iter().filter(|(other, ..)| other == name).map(|(_, value, gpl, _)| (*gpl, *value));
        let found = table.find(name).map(|symbol| (symbol.gpl, symbol.value));
        assert_eq!(found, named.min(), "{name:x?}");
        for other in [&name[1..], &[name, &b"~"[..]].concat()] {
            let is_there = symbols.iter().any(|(name, ..)| name == other);
            assert_eq!(table.find(other).is_some(), is_there, "{other:x?}");
        }
    }
}

/// Keeps what it is given, and numbers namespaces as they come.
#[derive(Default)]
struct Collected {
    symbols: Vec<Symbol>,
    namespaces: Vec<Vec<u8>>,
}

impl Keeper for Collected {
    type Error = u64;

    fn symbol(&mut self, Export { name, value, gpl }: Export<'_>) -> Result<(), u64> {
        self.symbols.push((name.to_vec(), value, gpl, Vec::new()));
        Ok(())
    }

    fn namespace(&mut self, name: &[u8]) -> Result<u8, u64> {
        let known = self.namespaces.iter().position(|known| known == name).unwrap_or_else(|| {
            self.namespaces.push(name.to_vec());
            self.namespaces.len() - 1
        });
        Ok(u8::try_from(known).expect("24 at most"))
    }

    fn assign(&mut self, symbol: usize, namespace: u8) {
        self.symbols[symbol].3.clone_from(&self.namespaces[usize::from(namespace)]);
    }
}

/// A piece of VTL0's virtual memory.
struct View<'a> {
    base: u64,
    bytes: &'a [u8],
    /// Which bytes are there and have not been fetched.
    usable: Vec<bool>,
}

impl View<'_> {
    fn index(&self, va: u64) -> Option<usize> {
        usize::try_from(va.checked_sub(self.base)?).ok()
    }
}

impl VirtualMemory for View<'_> {
    type Error = u64;

    fn available(&self, va: u64) -> u64 {
        let rest = self.index(va).and_then(|index| self.usable.get(index..)).unwrap_or_default();
        rest.iter().take_while(|usable| **usable).count() as u64
    }

    fn fetch(&mut self, va: u64, into: &mut [u8]) -> Result<(), u64> {
        let index = self.index(va).ok_or(va)?;
        let place = index..index.checked_add(into.len()).ok_or(va)?;
        let usable = self.usable.get_mut(place.clone()).ok_or(va)?;
        if usable.contains(&false) {
            return Err(va);
        }
        usable.fill(false);
        into.copy_from_slice(&self.bytes[place]);
        Ok(())
    }
}

/// Two tables with their names behind them; the same with a hole; one whose names share their ends.
pub fn seeds() -> Vec<Vec<u8>> {
    let kernel = |names: &[(&str, i32)], hole: [u8; 3]| {
        let tables = names.len() * 12;
        let strings: Vec<u8> = names.iter().flat_map(|(name, _)| [name.as_bytes(), &[0]].concat()).collect();
        let mut bytes = Vec::new();
        let mut behind = 0;
        for (index, (name, value)) in names.iter().enumerate() {
            let to_name = i32::try_from(tables + behind - (12 * index + 4)).unwrap_or_default();
            bytes.extend([*value, to_name, 0].iter().flat_map(|field| field.to_le_bytes()));
            behind += name.len() + 1;
        }
        let second = u8::try_from(names.len() / 2).unwrap_or_default();
        let first = u8::try_from(names.len()).unwrap_or_default() - second;
        [vec![0, 0, first, second, 0], hole.to_vec(), vec![0; 3], bytes, strings].concat()
    };
    let names = [("zap_page", 77), ("kmalloc", -5), ("a", 0), ("printk", 0x1234), ("_end", i32::MIN)];
    let mut shared = kernel(&[("long_name", 1), ("x", 2)], [0; 3]);
    // The second name's displacement: into the middle of the first.
    shared[11 + 16] -= 5;
    // The first symbol's namespace is the second one's name.
    let mut with_namespace = kernel(&names, [0; 3]);
    with_namespace[11 + 8] = 5 * 12 - 8 + 9;
    vec![with_namespace, kernel(&names, [0; 3]), kernel(&names, [70, 0, 3]), shared, kernel(&[("only", 3)], [0; 3])]
}
