//! Calls whose depth is counted: they go to an instruction in the space before the function.

use crate::object::{A, Object, PC32, X};
use crate::world::{Exports, PCPU_HOT, World, branch};

/// A function at 0 that calls one at 48 with space before it, and one of the kernel.
fn module() -> (Object, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xc3; 64]);
    object.sections[text].bytes[32..48].fill(0x90);
    for at in [0usize, 5] {
        object.sections[text].bytes[at..at + 5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
    }
    let symbol = object.symbol_of(text);
    object.relocate((text, 1), PC32, symbol, 48 - 4);
    object.branch((text, 5), 1, "helper");
    object.list(".call_sites", &[(text, 0), (text, 5)]);
    (object, text)
}

fn world(object: &Object) -> World {
    let mut exports: Exports = World::load(object).exports;
    exports.0.insert("pcpu_hot".into(), (PCPU_HOT, false, String::new()));
    World::load_with(object, exports, 0)
}

#[test]
fn calls_count_all_or_not_at_all() {
    let (object, text) = module();
    let mut world = world(&object);
    world.accepted();
    let helper = 0xffff_ffff_8100_5000;
    let operand = u32::try_from(PCPU_HOT + 16).unwrap().to_le_bytes();
    let counting = [&[0x65, 0x48, 0xc1, 0x3c, 0x25][..], &operand, &[5]].concat();
    world.refused_with((text, 38), &counting);
    world.put((text, 38), &counting);
    let calls = [(0, world.address((text, 38))), (5, helper - 10)];
    for (at, target) in calls {
        world.branch((text, at), 0xe8, target);
    }
    world.accepted();
    for (at, target) in [(0, world.address((text, 48))), (5, helper), (5, helper - 9)] {
        world.refused_with((text, at), &branch(0xe8, world.address((text, at)), target));
    }
    world.refused_with((text, 38), &[0x90; 10]);
    // Another variable of the per-CPU area.
    world.refused_with((text, 43), &(PCPU_HOT + 24).to_le_bytes()[..4]);
}

#[test]
fn the_shorter_instruction_is_relative_to_itself() {
    let (object, text) = module();
    let mut world = world(&object);
    let distance = (PCPU_HOT + 16).wrapping_sub(world.address((text, 48)));
    let operand = &distance.to_le_bytes()[..4];
    world.put((text, 39), &[&[0x65, 0x48, 0xc1, 0x3d][..], operand, &[5]].concat());
    let calls = [(0, world.address((text, 39))), (5, 0xffff_ffff_8100_5000 - 9)];
    for (at, target) in calls {
        world.branch((text, at), 0xe8, target);
    }
    world.accepted();
    world.refused_with((text, 38), &[0x91]);
}
