//! Bytes that two lists name: the pairs that are known, and others. And the sizes of a module's data.

use std::path::Path;

use vsm_integrity::module::{Kind, ModuleError};

use crate::object::{A, ABS64, Object, PC32, Relocation, Section, Symbol, W, X};
use crate::world::{FENTRY, PCPU_HOT, PV_BUG, SAFE_RETURN, World, branch};

const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// A call of `__fentry__` in `__mcount_loc` and in `.call_sites`.
fn module() -> (Object, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xe8, 0, 0, 0, 0, 0xc3, 0xe8, 0, 0, 0, 0]);
    object.branch((text, 0), 1, "__fentry__");
    object.branch((text, 6), 1, "__fentry__");
    let list = object.section("__mcount_loc", A, 8, &[0; 8]);
    let symbol = object.symbol_of(text);
    object.relocate((list, 0), ABS64, symbol, 0);
    object.list(".call_sites", &[(text, 0), (text, 6)]);
    (object, text)
}

/// The sections, symbols and relocations of a file.
fn read(file: &[u8]) -> Object {
    let elf = vsm_integrity::elf::Elf::parse(file).unwrap();
    let mut object = Object::default();
    for section in elf.sections() {
        let mut bytes = elf.bytes(&section).to_vec();
        bytes.resize(usize::try_from(section.size).unwrap(), 0);
        let name = String::from_utf8(section.name.to_vec()).unwrap();
        let (kind, flags, align) = (section.kind, section.flags, section.align);
        object.sections.push(Section { name, kind, flags, align, bytes, relocations: Vec::new() });
    }
    for table in elf.sections().filter(|section| section.kind == vsm_integrity::elf::SHT_RELA) {
        object.sections[table.info - 1].relocations = elf
            .relocations(&table)
            .iter()
            .map(|found| {
                let (offset, kind, symbol, addend) = (found.offset, found.kind, found.symbol, found.addend);
                Relocation { offset, kind, symbol, addend: addend.cast_signed() }
            })
            .collect();
    }
    for index in 1..elf.symbol_count() {
        let symbol = elf.symbol(index).unwrap();
        let section = match symbol.place {
            vsm_integrity::elf::Place::Undefined => 0,
            vsm_integrity::elf::Place::Absolute => 0xfff1,
            vsm_integrity::elf::Place::Section(section) => u16::try_from(section).unwrap(),
        };
        let name = String::from_utf8(elf.symbol_name(&symbol).unwrap().to_vec()).unwrap();
        object.symbols.push(Symbol { name, info: 0, section, value: symbol.value });
    }
    object
}

#[test]
fn a_call_of_fentry_in_both_lists_is_never_counted() {
    let (object, text) = module();
    let mut exports = World::load(&object).exports;
    exports.0.insert("pcpu_hot".into(), (PCPU_HOT, false, String::new()));
    exports.0.insert("BUG_func".into(), (PV_BUG, false, String::new()));
    let mut counting = World::load_with(&object, exports, 0);
    counting.return_thunk = SAFE_RETURN;
    counting.text.0.push((FENTRY - 16, vec![0x90; 16]));
    for mut world in [World::load(&object), counting] {
        world.accepted();
        for at in [0, 6] {
            world.refused_with((text, at), &branch(0xe8, world.address((text, at)), FENTRY - 9));
        }
        world.put((text, 0), &NOP);
        world.accepted();
        // The other one is in one list only.
        world.refused_with((text, 6), &NOP);
    }
}

#[test]
fn other_pairs_are_errors() {
    let (object, text) = module();
    let refused = |name: &str, at: u64| {
        let mut object = object.clone();
        object.list(name, &[(text, at)]);
        matches!(World::load(&object).explain(), Err(ModuleError::Section { .. }))
    };
    for at in [0, 2, 6, 9] {
        assert!(refused(".smp_locks", at), "{at}");
    }
    for name in [".return_sites", ".retpoline_sites"] {
        assert!(refused(name, 6), "{name}");
    }
    // A list that names a place twice.
    let mut twice = object.clone();
    let list = twice.sections.iter().position(|section| section.name == ".call_sites").unwrap();
    let symbol = twice.symbol_of(text);
    twice.sections[list].bytes.extend([0; 4]);
    twice.relocate((list, 8), PC32, symbol, 6);
    assert!(matches!(World::load(&twice).explain(), Err(ModuleError::Section { .. })));
}

#[test]
fn an_alternative_holds_code_of_some_lists_only() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xf3, 0x0f, 0x1e, 0xfa, 0xc3]);
    let table = object.section(".altinstructions", A, 8, &[0, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 4, 0]);
    let symbol = object.symbol_of(text);
    object.relocate((table, 0), PC32, symbol, 0);
    object.relocate((table, 4), PC32, symbol, 0);
    World::load(&object).accepted();
    object.list(".ibt_endbr_seal", &[(text, 0)]);
    World::load(&object).refused();
}

#[test]
fn modules_made_for_this_are_explained() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/inputs/module");
    for name in ["both_lists.ko", "one_list.ko"] {
        let Ok(file) = std::fs::read(place.join(name)) else {
            println!("skipped: there is no {name} in ../shared/inputs/module");
            continue;
        };
        let object = read(&file);
        let text = object.sections.iter().position(|section| section.name == ".text").unwrap();
        let mut world = World::load(&object);
        world.file = file;
        world.accepted();
        world.refused_with((text, 0x14), &[0xe8, 0, 0, 0, 0]);
        world.put((text, 0x14), &NOP);
        world.put((text, 0x1b), &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc]);
        world.accepted();
        world.refused_with((text, 0x14), &[0x0f, 0x1f, 0x44, 0x00, 0x01]);
    }
}

/// The most bytes that Linux makes of DATA and INIT_DATA, and what is more by a page.
#[test]
fn data_is_as_long_as_sections_and_symbols_make_it() {
    let mut object = Object::new("license=GPL|vermagic=6.12.0 SMP|");
    let text = object.section(".text", A | X, 16, &[0xc3; 16]);
    object.section(".data", A | W, 8, &[0; 8]);
    object.section(".init.data", A | W, 8, &[0; 8]);
    // Symbol 0 and 157 with names of 4 bytes: 8 + 26 + 157 * 30 = 4744 bytes.
    let symbol = u16::try_from(text + 1).unwrap();
    for number in 0..157 {
        object.symbols.push(Symbol { name: format!("{number:04}"), info: 2, section: symbol, value: 0 });
    }
    let accepted = |object: &Object, kind: Kind, pages: u64| {
        let mut world = World::load(object);
        world.grow(kind, pages);
        world.explain().is_ok()
    };
    assert!(accepted(&object, Kind::Data, 2) && !accepted(&object, Kind::Data, 3));
    // 21 fewer: 8 + 26 + 135 * 30 = 4084.
    let mut fewer = object.clone();
    fewer.symbols.truncate(object.symbols.len() - 22);
    assert!(accepted(&fewer, Kind::Data, 1) && !accepted(&fewer, Kind::Data, 2));
    // All symbols, their names and a byte for each.
    let all = object.symbols.len() + 1;
    let bytes = 8 + all * 24 + (1 + 157 * 5) + 32 + all + 8;
    let pages = (bytes as u64).div_ceil(4096);
    assert!(accepted(&object, Kind::InitData, pages) && !accepted(&object, Kind::InitData, pages + 1));
}
