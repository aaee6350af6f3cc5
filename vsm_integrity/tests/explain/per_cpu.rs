//! Per-CPU variables: Linux chooses where they are; that is one number for all references.

use crate::object::{A, ABS64, Object, S32, W, X};
use crate::world::World;

const BASE: u64 = 0x36040;

fn module() -> (Object, usize, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0; 32]);
    let variables = object.section(".data..percpu", A | W, 64, &[0; 128]);
    let table = object.section(".rodata", A, 8, &[0; 8]);
    let symbol = object.symbol_of(variables);
    object.relocate((text, 4), S32, symbol, 8);
    object.relocate((text, 12), S32, symbol, 64);
    object.relocate((table, 0), ABS64, symbol, 16);
    (object, text, table)
}

#[test]
fn all_references_agree() {
    let (object, text, table) = module();
    let world = World::load(&object).exports;
    let world = World::load_with(&object, world, BASE);
    assert_eq!(world.accepted().per_cpu, Some((BASE, 128)));
    world.refused_with((text, 4), &(BASE + 16).to_le_bytes()[..4]);
    world.refused_with((text, 12), &(BASE + 72).to_le_bytes()[..4]);
    world.refused_with((table, 0), &BASE.to_le_bytes());
}

#[test]
fn the_place_is_aligned_and_within_the_area() {
    let (object, ..) = module();
    let exports = World::load(&object).exports;
    for base in [BASE + 8, 1 << 28, (1 << 28) - 64, 0x7fff_ffc0] {
        World::load_with(&object, exports.clone(), base).refused();
    }
    World::load_with(&object, exports, (1 << 28) - 128).accepted();
}
