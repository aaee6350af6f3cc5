//! Export tables as a kernel has them, and broken ones.

use proptest::prelude::*;

use super::*;

const BASE: u64 = 0xffff_ffff_8200_0000;

/// Memory in one piece, with holes, that counts the fetches of each byte.
struct Memory {
    base: u64,
    bytes: Vec<u8>,
    holes: Vec<std::ops::Range<usize>>,
    fetched: Vec<u8>,
}

impl Memory {
    fn new(base: u64, bytes: Vec<u8>) -> Self {
        Self { base, fetched: vec![0; bytes.len()], bytes, holes: Vec::new() }
    }

    fn usable(&self, index: usize) -> bool {
        self.fetched.get(index) == Some(&0) && !self.holes.iter().any(|hole| hole.contains(&index))
    }
}

impl VirtualMemory for Memory {
    type Error = u64;

    fn available(&self, va: u64) -> u64 {
        let Some(first) = va.checked_sub(self.base).and_then(|offset| usize::try_from(offset).ok()) else { return 0 };
        (first..self.bytes.len()).take_while(|index| self.usable(*index)).count() as u64
    }

    fn fetch(&mut self, va: u64, into: &mut [u8]) -> Result<(), u64> {
        let first = usize::try_from(va.checked_sub(self.base).ok_or(va)?).map_err(|_| va)?;
        for (byte, index) in into.iter_mut().zip(first..) {
            if !self.usable(index) {
                return Err(self.base + index as u64);
            }
            *byte = self.bytes[index];
            self.fetched[index] += 1;
        }
        Ok(())
    }
}

/// A kernel of two tables and their names. `names` gives each name's offset behind the tables.
struct Kernel {
    tables: [Vec<(String, u64)>; 2],
    /// Bytes between the tables and the first name.
    gap: usize,
}

impl Kernel {
    fn build(&self) -> (Memory, Table, Table) {
        let entries = self.tables[0].len() + self.tables[1].len();
        let mut bytes = vec![0; entries * 12 + self.gap];
        // Names in an order of their own, so that the sweep has something to sort.
        let mut order: Vec<usize> = (0..entries).collect();
        order.sort_by_key(|index| (index * 7919) % entries.max(1));
        let mut namespaces = std::collections::HashMap::new();
        let all: Vec<&(String, u64)> = self.tables.iter().flatten().collect();
        for index in order {
            let (name, value) = all[index];
            let entry = BASE + 12 * index as u64;
            let name_at = BASE + bytes.len() as u64;
            bytes.extend(name.as_bytes());
            bytes.push(0);
            let mut put = |field: usize, target: u64| {
                let displacement = target.wrapping_sub(entry + field as u64);
                let displacement = i32::try_from(displacement.cast_signed()).unwrap();
                bytes[12 * index + field..][..4].copy_from_slice(&displacement.to_le_bytes());
            };
            put(0, *value);
            put(4, name_at);
            // No namespace: the end of some name, the symbol's own here, as string merging leaves it.
            let namespace = namespace_of(name);
            let place = if namespace.is_empty() {
                name_at + name.len() as u64
            } else {
                *namespaces.entry(namespace.clone()).or_insert_with(|| {
                    let at = BASE + bytes.len() as u64;
                    bytes.extend(namespace.as_bytes());
                    bytes.push(0);
                    at
                })
            };
            let displacement = i32::try_from(place.wrapping_sub(entry + 8).cast_signed()).unwrap();
            bytes[12 * index + 8..][..4].copy_from_slice(&displacement.to_le_bytes());
        }
        let middle = BASE + 12 * self.tables[0].len() as u64;
        let end = BASE + 12 * entries as u64;
        (Memory::new(BASE, bytes), Table::new(BASE, middle).unwrap(), Table::new(middle, end).unwrap())
    }

    fn sorted(&self) -> Vec<(String, u64, bool)> {
        let mut all = Vec::new();
        for (table, gpl) in self.tables.iter().zip([false, true]) {
            all.extend(table.iter().map(|(name, value)| (name.clone(), *value, gpl)));
        }
        all.sort();
        all
    }
}

type Loaded = Result<Vec<(String, u64, bool)>, LoadError<u64>>;

fn collect(memory: &mut Memory, ksymtab: &Table, ksymtab_gpl: &Table) -> Loaded {
    let mut kept = Kept::default();
    load(memory, ksymtab, ksymtab_gpl, &mut kept)?;
    let mut found: Vec<_> = kept.symbols.into_iter().map(|(name, value, gpl, _)| (name, value, gpl)).collect();
    found.sort();
    Ok(found)
}

/// Symbols with their namespaces.
#[derive(Default)]
struct Kept {
    symbols: Vec<(String, u64, bool, String)>,
    namespaces: Vec<String>,
}

impl Keeper for Kept {
    type Error = u64;

    fn symbol(&mut self, export: Export<'_>) -> Result<(), u64> {
        let name = String::from_utf8(export.name.to_vec()).unwrap();
        self.symbols.push((name, export.value, export.gpl, String::new()));
        Ok(())
    }

    fn namespace(&mut self, name: &[u8]) -> Result<u8, u64> {
        let name = String::from_utf8(name.to_vec()).unwrap();
        if !self.namespaces.contains(&name) {
            self.namespaces.push(name.clone());
        }
        Ok(u8::try_from(self.namespaces.iter().position(|known| *known == name).unwrap()).unwrap())
    }

    fn assign(&mut self, symbol: usize, namespace: u8) {
        self.symbols[symbol].3.clone_from(&self.namespaces[usize::from(namespace)]);
    }
}

/// The namespace of a made-up symbol, by its name: that of every third is one of four.
fn namespace_of(name: &str) -> String {
    let number: usize = name.split('_').nth(1).and_then(|number| number.parse().ok()).unwrap_or(1);
    if number.is_multiple_of(3) { format!("NAMESPACE{}", number % 4) } else { String::new() }
}

fn some_kernel(count: usize) -> Kernel {
    let name = |index: usize| format!("sym_{index}_{}", "x".repeat(index % 40));
    // Every seventh is a per-CPU offset, which lies 2^31 and more below: the displacement wraps around.
    let value =
        |index: usize| if index.is_multiple_of(7) { 0x1000 + index as u64 } else { BASE - 0x100_0000 + index as u64 };
    let half = count / 2;
    Kernel {
        tables: [
            (0..half).map(|index| (name(index), value(index))).collect(),
            (half..count).map(|index| (name(index), value(index))).collect(),
        ],
        gap: 0,
    }
}

#[test]
fn each_symbol_has_its_namespace() {
    let (mut memory, ksymtab, gpl) = some_kernel(5000).build();
    let mut kept = Kept::default();
    load(&mut memory, &ksymtab, &gpl, &mut kept).unwrap();
    assert_eq!((kept.symbols.len(), kept.namespaces.len()), (5000, 4));
    for (name, .., namespace) in kept.symbols {
        assert_eq!(namespace, namespace_of(&name), "{name}");
    }
    assert!(memory.fetched.iter().all(|count| *count <= 1));
}

#[test]
fn all_symbols_of_both_tables_are_found_and_no_byte_fetched_twice() {
    for count in [0, 1, 2, 341, 342, 5000] {
        let kernel = some_kernel(count);
        let (mut memory, ksymtab, gpl) = kernel.build();
        assert_eq!(collect(&mut memory, &ksymtab, &gpl).unwrap(), kernel.sorted());
        assert!(memory.fetched.iter().all(|count| *count <= 1));
    }
}

#[test]
fn names_that_share_their_ends_are_told_apart() {
    let mut kernel = some_kernel(3);
    kernel.tables[0] = vec![("long_name".to_owned(), 1)];
    kernel.tables[1] = vec![("name".to_owned(), 2)];
    let (mut memory, ksymtab, gpl) = kernel.build();
    // The second entry's name becomes the tail of the first one's.
    let text = b"long_name\0";
    let place = memory.bytes.windows(text.len()).position(|window| window == text).unwrap() + 5;
    let displacement = i32::try_from(place).unwrap() - 16;
    memory.bytes[16..20].copy_from_slice(&displacement.to_le_bytes());
    let found = collect(&mut memory, &ksymtab, &gpl).unwrap();
    assert_eq!(found, kernel.sorted());
    assert!(memory.fetched.iter().all(|count| *count <= 1));
}

#[test]
fn names_may_be_long_but_not_endless() {
    for (length, fine) in [(1, true), (511, true), (512, false), (5000, false)] {
        // At every place of a page, so that pages and window end anywhere in the name.
        for gap in (0..4096).step_by(61) {
            let kernel = Kernel { tables: [vec![("n".repeat(length), 5), ("z".to_owned(), 6)], Vec::new()], gap };
            let (mut memory, ksymtab, gpl) = kernel.build();
            let result = collect(&mut memory, &ksymtab, &gpl);
            if fine {
                assert_eq!(result.unwrap(), kernel.sorted());
            } else {
                let LoadError::Rule { rule, .. } = result.unwrap_err() else { panic!("no rule") };
                assert!(rule.contains("511"), "{rule}");
            }
            assert!(memory.fetched.iter().all(|count| *count <= 1));
        }
    }
}

#[test]
fn names_outside_of_the_view_or_in_the_tables_are_refused() {
    let kernel = some_kernel(10);
    let end = 120;
    for (what, target) in [
        ("in the tables", 0),
        ("at the end of the tables", end - 1),
        ("before the view", -1),
        ("far before the view", -0x7000_0000),
        ("behind the view", 1 << 20),
        ("in a hole", end + 40),
    ] {
        let (mut memory, ksymtab, gpl) = kernel.build();
        memory.holes.push(150..180);
        let displacement: i32 = target - (36 + 4);
        memory.bytes[40..44].copy_from_slice(&displacement.to_le_bytes());
        assert!(matches!(collect(&mut memory, &ksymtab, &gpl), Err(LoadError::Rule { .. })), "{what}");
        assert!(memory.fetched.iter().all(|count| *count <= 1));
    }
}

#[test]
fn a_name_that_is_no_name_is_refused() {
    for (text, rule) in [("", "must have a name"), ("a b", "printable"), ("a\u{7f}", "printable"), ("é", "printable")]
    {
        let kernel = Kernel { tables: [vec![(text.to_owned(), 5)], Vec::new()], gap: 0 };
        let (mut memory, ksymtab, gpl) = kernel.build();
        let LoadError::Rule { va, rule: got } = collect(&mut memory, &ksymtab, &gpl).unwrap_err() else {
            panic!("no rule")
        };
        assert!(got.contains(rule), "{got}");
        assert_eq!(va, BASE + 12);
    }
}

#[test]
fn a_table_outside_of_the_view_is_refused() {
    let (mut memory, ksymtab, gpl) = some_kernel(100).build();
    memory.holes.push(600..601);
    assert_eq!(collect(&mut memory, &ksymtab, &gpl), Err(LoadError::Other(BASE + 600)));
}

#[test]
fn the_bounds_of_a_table_are_checked() {
    let refused = |start: u64, end: u64| Table::new(start, end).unwrap_err();
    assert!(refused(BASE + 12, BASE).contains("end before"));
    assert!(refused(BASE, BASE + 11).contains("whole number"));
    assert!(refused(BASE, BASE + 12 * (MAX_SYMBOLS + 1)).contains("65536"));
    assert!(refused(1 << 47, (1 << 47) + 12).contains("canonical"));
    assert!(refused((1 << 47) - 12, 1 << 47).contains("canonical"));
    assert_eq!(Table::new(BASE, BASE).unwrap().count(), 0);
    let many = Table::new(BASE, BASE + 12 * MAX_SYMBOLS).unwrap();
    let one = Table::new(many.end(), many.end() + 12).unwrap();
    let mut memory = Memory::new(BASE, Vec::new());
    assert!(matches!(collect(&mut memory, &many, &one), Err(LoadError::Rule { .. })));
}

#[test]
fn the_end_of_the_address_space_is_an_end() {
    // The last page there is, with a name that runs up to its very end.
    let mut bytes = vec![b'a'; 4096];
    let base = u64::MAX - 4095;
    bytes[..12].copy_from_slice(&[0; 12]);
    bytes[4..8].copy_from_slice(&(4096i32 - 10 - 4).to_le_bytes());
    let mut memory = Memory::new(base, bytes);
    let (table, none) = (Table::new(base, base + 12).unwrap(), Table::new(base, base).unwrap());
    assert!(matches!(collect(&mut memory, &table, &none), Err(LoadError::Rule { .. })));
}

proptest! {
    #[test]
    fn any_tables_end_in_a_verdict(
        bytes in prop::collection::vec(any::<u8>(), 48..400),
        first in 0u64..4, second in 0u64..4,
        near in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if near {
            // Displacements that hit the memory now and then.
            for entry in bytes.chunks_mut(4) {
                for byte in entry.iter_mut().skip(1) { *byte = 0; }
            }
        }
        let mut memory = Memory::new(BASE, bytes);
        let middle = BASE + 12 * first;
        let (table, gpl) = (Table::new(BASE, middle).unwrap(), Table::new(middle, middle + 12 * second).unwrap());
        if let Ok(found) = collect(&mut memory, &table, &gpl) {
            prop_assert_eq!(found.len() as u64, first + second);
        }
        prop_assert!(memory.fetched.iter().all(|count| *count <= 1));
    }
}

#[test]
fn names_that_symbols_share_count_as_often_as_they_are_kept() {
    // One name of the greatest length for all: 8208 times 511 bytes are just below 4 MiB, once more is too much.
    for (count, fine) in [(8208, true), (8209, false)] {
        let mut bytes = vec![0; 12 * count];
        let name_at = BASE + bytes.len() as u64;
        bytes.extend([b'x'; MAX_NAME_BYTES]);
        bytes.push(0);
        for index in 0..count {
            let field = BASE + 12 * index as u64 + 4;
            let displacement = u32::try_from(name_at - field).unwrap();
            bytes[12 * index + 4..][..4].copy_from_slice(&displacement.to_le_bytes());
        }
        let end = BASE + 12 * count as u64;
        let (table, none) = (Table::new(BASE, end).unwrap(), Table::new(end, end).unwrap());
        let loaded = collect(&mut Memory::new(BASE, bytes), &table, &none);
        if fine {
            assert_eq!(loaded.unwrap().len(), count);
        } else {
            assert!(matches!(loaded, Err(LoadError::Rule { rule, .. }) if rule.contains("4 MiB")));
        }
    }
}
