//! Static calls, trampolines and functions, as the signed file has them.

use vsm_integrity::module::static_calls::MAX_FUNCTIONS;
use vsm_integrity::module::{Kind, ModuleError, Shape, StaticCall};

use crate::object::{A, Object, PC32, Symbol, W, X};
use crate::world::World;

/// Of a call, a tail call and one under a condition: offset, opcode, whether it is a jump.
const CALLS: [(u64, &[u8], i64); 3] = [(0, &[0xe8], 0), (16, &[0xe9], 1), (32, &[0x0f, 0x85], 1)];
const MARK: [u8; 8] = [0xe9, 0, 0, 0, 0, 0x0f, 0xb9, 0xcc];

/// Numbers of the text, the init text, the trampolines and the list.
struct Sections {
    text: usize,
    init: usize,
    trampolines: usize,
    list: usize,
}

fn module() -> (Object, Sections) {
    let mut object = Object::new("license=GPL|");
    let mut code = vec![0x90; 64];
    for (offset, opcode, _) in CALLS {
        let at = usize::try_from(offset).unwrap();
        code[at..at + opcode.len() + 4].copy_from_slice(&[opcode, &[0; 4]].concat());
    }
    let text = object.section(".text", A | X, 16, &code);
    let init = object.section(".init.text", A | X, 16, &[0xe8, 0, 0, 0, 0, 0xc3]);
    let returns = [0xc3, 0xcc, 0, 0, 0, 0x0f, 0xb9, 0xcc];
    let trampolines = object.section(".static_call.text", A | X, 4, &[MARK, returns, MARK].concat());
    let data = object.section(".data", A | W, 16, &[0; 64]);
    let list = object.section(".static_call_sites", A | W, 4, &[0; 32]);
    let target = object.symbol_of(trampolines);
    let key = object.symbol_of(data);
    let sites = CALLS.map(|(offset, opcode, tail)| (text, offset, opcode.len() as u64, tail));
    for (index, (section, offset, opcode, flags)) in (0..).zip(sites.into_iter().chain([(init, 0, 1, 2)])) {
        object.relocate((section, offset + opcode), PC32, target, -4);
        let symbol = object.symbol_of(section);
        object.relocate((list, index * 8), PC32, symbol, i64::try_from(offset).unwrap());
        object.relocate((list, index * 8 + 4), PC32, key, 32 + flags);
    }
    let helper = object.undefined("helper");
    object.relocate((trampolines, 1), PC32, helper, -4);
    for (name, section, value) in [
        ("__SCT__one", trampolines, 0),
        ("__SCT__two", trampolines, 8),
        ("no_trampoline", trampolines, 16),
        ("first", text, 0),
        ("last", text, 48),
        ("again", text, 48),
        ("beyond", text, 64),
        ("start", init, 0),
    ] {
        function(&mut object, name, section, value);
    }
    (object, Sections { text, init, trampolines, list })
}

fn function(object: &mut Object, name: &str, section: usize, value: u64) {
    let section = u16::try_from(section + 1).unwrap();
    object.symbols.push(Symbol { name: name.into(), info: 2, section, value });
}

fn static_calls(world: &World) -> Result<Vec<StaticCall>, ModuleError> {
    let mut found = Vec::new();
    world.plan().static_calls(|call| {
        found.push(call);
        Ok::<_, ModuleError>(())
    })?;
    Ok(found)
}

#[test]
fn calls_and_trampolines_are_found_with_their_instructions() {
    let (object, sections) = module();
    let world = World::load(&object);
    world.accepted();
    let Sections { text, init, trampolines, .. } = sections;
    let found = static_calls(&world).unwrap();
    let jump = Shape::Jump;
    let expected = [
        (text, 0, Kind::Text, Shape::Call),
        (text, 16, Kind::Text, jump),
        (text, 32, Kind::Text, Shape::Conditional(0x85)),
        (init, 0, Kind::InitText, Shape::Call),
        (trampolines, 0, Kind::Text, jump),
        (trampolines, 8, Kind::Text, jump),
    ];
    let mut in_memory = world.clone();
    for (call, (section, offset, kind, shape)) in found.iter().zip(expected) {
        let place = (section, offset);
        assert_eq!((call.va, call.kind, call.shape), (world.address(place), kind, shape), "{place:?}");
        assert_eq!(call.compiled(), in_memory.bytes(place, shape.size()), "{place:?}");
    }
    assert_eq!(found.len(), expected.len());
    // Without Linux's mark, in another section, or of another name it is no trampoline.
    for change in 0..3 {
        let (mut object, sections) = module();
        match change {
            0 => object.sections[sections.trampolines].bytes[7] = 0,
            1 => object.sections[sections.trampolines].name = ".text.other".into(),
            _ => {
                object.symbols.iter_mut().filter(|symbol| symbol.name == "__SCT__one").for_each(|one| one.name.clear());
            }
        }
        let found = static_calls(&World::load(&object)).unwrap();
        let expected = if change == 1 { 4 } else { 5 };
        assert_eq!(found.len(), expected, "change {change}");
    }
}

#[test]
fn a_list_that_names_no_branch_is_refused() {
    let refused = |change: &dyn Fn(&mut Object, &Sections), rule: &str| {
        let (mut object, sections) = module();
        change(&mut object, &sections);
        match static_calls(&World::load(&object)) {
            Err(ModuleError::Section { rule: found, .. }) => assert!(found.contains(rule), "{found} for {rule}"),
            other => panic!("{other:?} for {rule}"),
        }
    };
    let site = |addend: i64| {
        move |object: &mut Object, sections: &Sections| object.sections[sections.list].relocations[0].addend = addend
    };
    let flags = |entry: usize, flag: i64| {
        move |object: &mut Object, sections: &Sections| {
            object.sections[sections.list].relocations[entry * 2 + 1].addend = 32 + flag;
        }
    };
    refused(&site(6), "a call, or a jump");
    refused(&site(1 << 20), "in the module's code");
    refused(&flags(0, 1), "a call, or a jump");
    refused(&flags(1, 0), "a call, or a jump");
    refused(&flags(2, 0), "a call, or a jump");
    refused(&|object, sections| object.sections[sections.list].relocations.truncate(7), "must be relocated");
    // Up to the end of its section, and not beyond.
    refused(&|object, sections| object.sections[sections.text].bytes.truncate(36), "within its section");
}

#[test]
fn functions_are_what_the_file_calls_so_and_what_it_exports() {
    let (mut object, Sections { text, .. }) = module();
    let table = object.section("__ksymtab", A, 4, &[0; 12]);
    let names = object.section("__ksymtab_strings", A, 1, b"exported\0\0");
    for (field, (section, offset)) in (0..).zip([(text, 20), (names, 0), (names, 9)]) {
        let symbol = object.symbol_of(section);
        object.relocate((table, field * 4), PC32, symbol, offset);
    }
    let world = World::load(&object);
    let trampolines = u32::try_from(world.address((3, 0)) - world.address((text, 0))).unwrap();
    let plan = world.plan();
    let expected = [0, 20, 48, trampolines, trampolines + 8, trampolines + 16];
    assert_eq!(plan.functions(Kind::Text).unwrap(), expected);
    assert_eq!(plan.functions(Kind::InitText).unwrap(), [0]);
}

#[test]
fn functions_are_bounded() {
    let (mut object, Sections { text, .. }) = module();
    let there = object.symbols.iter().filter(|symbol| symbol.info == 2 && symbol.name != "beyond").count() - 1;
    (there..MAX_FUNCTIONS).for_each(|_| function(&mut object, "", text, 8));
    assert!(World::load(&object).plan().functions(Kind::Text).is_ok());
    function(&mut object, "", text, 8);
    let world = World::load(&object);
    assert!(matches!(world.plan().functions(Kind::Text), Err(ModuleError::Section { .. })));
}
