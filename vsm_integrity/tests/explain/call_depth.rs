//! Calls whose depth is counted: they go to an instruction in the space before the function.

use crate::object::{A, Object, PC32, X};
use crate::world::{Exports, PCPU_HOT, PV_BUG, SAFE_RETURN, World, branch};

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

/// A function of the kernel.
const HELPER: u64 = 0xffff_ffff_8100_5000;

/// The kernel of 6.2 to 6.7 or the one of 6.8 and later, where returns go to a thunk; NOPs are before its function.
fn world(object: &Object, newer: bool) -> World {
    let mut exports: Exports = World::load(object).exports;
    exports.0.insert("pcpu_hot".into(), (PCPU_HOT, false, String::new()));
    if newer {
        exports.0.insert("BUG_func".into(), (PV_BUG, false, String::new()));
    }
    let mut world = World::load_with(object, exports, 0);
    world.return_thunk = SAFE_RETURN;
    world.text.0.push((HELPER - 16, vec![0x90; 16]));
    world
}

/// The shorter instruction before a function.
fn counting(function: u64) -> [u8; 9] {
    let [a, b, c, d, ..] = (PCPU_HOT + 16).wrapping_sub(function).to_le_bytes();
    [0x65, 0x48, 0xc1, 0x3d, a, b, c, d, 5]
}

#[test]
fn calls_count_all_or_not_at_all() {
    let (object, text) = module();
    let mut world = world(&object, false);
    world.accepted();
    let operand = u32::try_from(PCPU_HOT + 16).unwrap().to_le_bytes();
    let counting = [&[0x65, 0x48, 0xc1, 0x3c, 0x25][..], &operand, &[5]].concat();
    world.refused_with((text, 38), &counting);
    world.put((text, 38), &counting);
    let calls = [(0, world.address((text, 38))), (5, HELPER - 10)];
    for (at, target) in calls {
        world.branch((text, at), 0xe8, target);
    }
    world.accepted();
    for (at, target) in [(0, world.address((text, 48))), (5, HELPER), (5, HELPER - 9)] {
        world.refused_with((text, at), &branch(0xe8, world.address((text, at)), target));
    }
    world.refused_with((text, 38), &[0x90; 10]);
    // Another variable of the per-CPU area.
    world.refused_with((text, 43), &(PCPU_HOT + 24).to_le_bytes()[..4]);
}

#[test]
fn the_shorter_instruction_is_relative_to_itself() {
    let (object, text) = module();
    let mut world = world(&object, true);
    world.put((text, 39), &counting(world.address((text, 48))));
    let calls = [(0, world.address((text, 39))), (5, HELPER - 9)];
    for (at, target) in calls {
        world.branch((text, at), 0xe8, target);
    }
    world.accepted();
    world.refused_with((text, 38), &[0x91]);
}
