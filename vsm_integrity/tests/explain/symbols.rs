//! Which symbols a module may use, and what it gives to others.

use vsm_integrity::module::ModuleError;
use vsm_integrity::module::exports::ModuleExport;

use crate::object::{A, ABS64, Object, PC32, W, X};
use crate::world::World;

fn needing(info: &str) -> Object {
    let mut object = Object::new(info);
    let data = object.section(".data", A | W, 8, &[0; 8]);
    let symbol = object.undefined("special");
    object.relocate((data, 0), ABS64, symbol, 0);
    object
}

fn explain(object: &Object, gpl: bool, namespace: &str) -> Result<(), ModuleError> {
    let mut exports = World::load(object).exports;
    exports.0.insert("special".into(), (0xffff_ffff_8100_7000, gpl, namespace.into()));
    World::load_with(object, exports, 0).explain().map(|_| ())
}

#[track_caller]
fn rule(result: Result<(), ModuleError>) -> &'static str {
    match result {
        Err(ModuleError::Symbol { symbol, rule }) => {
            assert_eq!(symbol.as_slice(), b"special");
            rule
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn licenses_decide_about_symbols() {
    for license in ["GPL", "GPL v2", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL", "GPL and additional rights"] {
        explain(&needing(&format!("license={license}|")), true, "").unwrap();
    }
    for info in ["license=Proprietary|", "license=BSD|", "license=GPL v3|", "license=gpl|", "author=GPL|"] {
        assert!(rule(explain(&needing(info), true, "")).contains("GPL"));
        explain(&needing(info), false, "").unwrap();
    }
}

#[test]
fn namespaces_are_imported() {
    assert!(rule(explain(&needing("license=GPL|"), false, "DMA")).contains("namespace"));
    assert!(rule(explain(&needing("license=GPL|import_ns=DMAX|"), false, "DMA")).contains("namespace"));
    explain(&needing("license=GPL|import_ns=USB|import_ns=DMA|"), true, "DMA").unwrap();
}

#[test]
fn an_unknown_symbol_is_an_error_unless_it_is_weak() {
    let mut object = needing("license=GPL|");
    assert!(rule(World::load(&object).explain().map(|_| ())).contains("neither the kernel"));
    object.symbols.last_mut().unwrap().info = 0x20;
    World::load(&object).accepted();
}

#[test]
fn common_and_strange_symbols_are_refused() {
    for section in [0xfff2, 0xffff, 0xff20, 0xff00, 900] {
        let mut object = needing("license=GPL|");
        object.symbols.last_mut().unwrap().section = section;
        assert!(World::load(&needing("license=GPL|")).exports.0.len() > 1);
        let file = object.write();
        let mut world = World::load(&needing("license=GPL|"));
        world.file = file;
        assert!(matches!(world.explain(), Err(ModuleError::Symbol { .. })));
    }
}

#[test]
fn exports_come_from_the_file() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xc3; 32]);
    let strings = object.section("__ksymtab_strings", A, 1, b"first\0second\0SPACE\0\0");
    let (code, names) = (object.symbol_of(text), object.symbol_of(strings));
    for (name, at, text, space) in [("__ksymtab", 4, 0, 19), ("__ksymtab_gpl", 20, 6, 13)] {
        let table = object.section(name, A, 4, &[0; 12]);
        object.relocate((table, 0), PC32, code, at);
        object.relocate((table, 4), PC32, names, text);
        object.relocate((table, 8), PC32, names, space);
    }
    let world = World::load(&object);
    world.accepted();
    let mut found = Vec::new();
    world
        .plan()
        .exports(None, |export| -> Result<(), ModuleError> {
            found.push(export);
            Ok(())
        })
        .unwrap();
    let start = world.address((text, 0));
    let expected = [
        ModuleExport { name: &b"first"[..], value: start + 4, gpl: false, namespace: b"" },
        ModuleExport { name: b"second", value: start + 20, gpl: true, namespace: b"SPACE" },
    ];
    assert_eq!(found, expected);
}
