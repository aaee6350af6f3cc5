//! Files that are no modules, damaged ones, and relocations that no kernel would apply.

use proptest::prelude::*;
use vsm_integrity::module::{Habits, ModuleError, Plan};

use crate::object::{A, ABS64, Object, PC32, S32, W, X};
use crate::world::World;

fn module() -> Object {
    let mut object = Object::new("license=GPL|depends=|name=small|");
    let text = object.section(".text", A | X, 16, &[0xc3; 64]);
    let rodata = object.section(".rodata", A, 8, &[0; 32]);
    object.section(".data", A | W, 8, &[1; 32]);
    let symbol = object.symbol_of(text);
    object.relocate((rodata, 0), ABS64, symbol, 16);
    object.relocate((rodata, 8), PC32, symbol, 0);
    object.list(".return_sites", &[]);
    object
}

#[test]
fn every_shortened_file_is_refused() {
    let world = World::load(&module());
    world.accepted();
    for length in 0..world.file.len() {
        let mut cut = world.clone();
        cut.file.truncate(length);
        assert!(matches!(cut.explain(), Err(ModuleError::File(_))), "{length}");
    }
}

#[test]
fn what_follows_the_object_does_not_matter() {
    let mut world = World::load(&module());
    world.file.extend(b"~Module signature appended~\n");
    world.accepted();
}

#[test]
fn relocations_that_linux_refuses_are_errors() {
    let broken = |offset: u64, kind: u32, symbol: &str, addend: i64, bytes: &[u8]| {
        let mut object = Object::new("license=GPL|");
        let rodata = object.section(".rodata", A, 8, bytes);
        let symbol = object.undefined(symbol);
        object.relocate((rodata, offset), kind, symbol, addend);
        World::load(&object).explain()
    };
    let zero = [0u8; 16];
    assert!(broken(8, ABS64, "helper", 0, &zero).is_ok());
    assert!(matches!(broken(9, ABS64, "helper", 0, &zero), Err(ModuleError::Section { .. })));
    assert!(matches!(broken(u64::MAX, ABS64, "helper", 0, &zero), Err(ModuleError::Section { .. })));
    assert!(matches!(broken(0, ABS64, "helper", 0, &[0, 0, 0, 1, 0, 0, 0, 0]), Err(ModuleError::Section { .. })));
    assert!(matches!(broken(0, 9, "helper", 0, &zero), Err(ModuleError::Section { .. })));
    // As an unsigned number it does not fit, as a signed one it does, and a distance of 4 GiB does not.
    assert!(matches!(broken(0, 10, "helper", 0, &zero), Err(ModuleError::Section { .. })));
    assert!(broken(0, S32, "helper", 0, &zero).is_ok());
    assert!(matches!(broken(0, PC32, "helper", 1 << 32, &zero), Err(ModuleError::Section { .. })));
}

#[test]
fn relocations_may_be_in_any_order_but_not_overlap() {
    let mut object = Object::new("license=GPL|");
    let rodata = object.section(".rodata", A, 8, &[0; 32]);
    let symbol = object.undefined("helper");
    for at in [16, 0, 24, 8] {
        object.relocate((rodata, at), ABS64, symbol, 0);
    }
    let world = World::load(&object);
    world.accepted();
    world.refused_with((rodata, 8), &[0; 8]);
    object.relocate((rodata, 20), PC32, symbol, 0);
    assert!(World::load(&object).explain().is_err());
}

#[test]
fn writable_code_is_refused() {
    let mut object = Object::new("license=GPL|");
    object.section(".text", A | X | W, 16, &[0xc3]);
    assert!(matches!(World::load(&object).explain(), Err(ModuleError::Section { .. })));
}

#[test]
fn ranges_must_be_those_of_the_file() {
    let world = World::load(&module());
    let mut other = module();
    other.section(".text.more", A | X, 1, &[0xc3; 8192]);
    let file = other.write();
    let memory = world.memory().unwrap();
    let plan = Plan::new(&file, &memory, world.kernel(), &world.exports);
    assert!(matches!(plan, Err(ModuleError::Memory { .. })));
}

proptest! {
    #[test]
    fn a_damaged_file_is_an_answer(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut world = World::load(&module());
        for (place, byte) in &changes {
            let at = place.index(world.file.len());
            world.file[at] = *byte;
        }
        let memory = world.memory().unwrap();
        if let Ok(plan) = Plan::new(&world.file, &memory, world.kernel(), &world.exports) {
            let _ = plan.explain(&memory, &Habits::default());
            let _ = plan.exports(None, |_| Ok::<(), ModuleError>(()));
            let _ = plan.jump_labels(|_| Ok::<(), ModuleError>(()));
            let _ = plan.static_calls(|_| Ok::<(), ModuleError>(()));
        }
    }
}
