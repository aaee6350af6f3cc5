//! Tables that the kernel sorts: any order in the file, one in memory.

use vsm_integrity::module::ModuleError;

use crate::object::{A, Object, PC32, X};
use crate::world::World;

/// A module with four pieces of unwinding data for addresses in descending order in the file, one of which is an end.
fn module() -> (Object, usize, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xc3; 64]);
    let data: Vec<u8> = (1..=4u8).flat_map(|index| [index, 0, 0, 0, if index == 2 { 0 } else { 5 }, 0]).collect();
    let orc = object.section(".orc_unwind", A, 1, &data);
    let index = object.section(".orc_unwind_ip", A, 1, &[0; 16]);
    let symbol = object.symbol_of(text);
    for (entry, at) in [(0u64, 32i64), (1, 16), (2, 16), (3, 0)] {
        object.relocate((index, entry * 4), PC32, symbol, at);
    }
    (object, orc, index)
}

fn put(world: &mut World, orc: usize, index: usize, order: [(u64, u8); 4]) {
    let text = world.address((1, 0));
    for ((at, number), entry) in order.into_iter().zip(0u64..) {
        let slot = world.address((index, entry * 4));
        world.put((index, entry * 4), &(text + at).wrapping_sub(slot).to_le_bytes()[..4]);
        world.put((orc, entry * 6), &[number, 0, 0, 0, if number == 2 { 0 } else { 5 }, 0]);
    }
}

#[test]
fn unwinding_data_is_sorted_with_its_index() {
    let (object, orc, index) = module();
    let mut beyond = object.clone();
    beyond.relocate((index, 16), PC32, object.symbol_of(1), 0);
    let mut world = World::load(&beyond);
    put(&mut world, orc, index, [(0, 4), (16, 2), (16, 3), (32, 1)]);
    assert!(matches!(world.explain(), Err(ModuleError::Section { .. })));
    let mut world = World::load(&object);
    world.refused();
    put(&mut world, orc, index, [(0, 4), (16, 2), (16, 3), (32, 1)]);
    world.accepted();
    // The end of something comes before what starts at the same address.
    for wrong in [
        [(0, 4), (16, 3), (16, 2), (32, 1)],
        [(0, 4), (16, 2), (16, 2), (32, 1)],
        [(0, 4), (16, 3), (16, 3), (32, 1)],
        [(0, 1), (16, 2), (16, 3), (32, 4)],
        [(16, 2), (16, 3), (0, 4), (32, 1)],
        [(0, 4), (16, 2), (16, 3), (33, 1)],
    ] {
        let mut changed = world.clone();
        put(&mut changed, orc, index, wrong);
        changed.refused();
    }
}

#[test]
fn exceptions_are_sorted_by_instruction() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xc3; 64]);
    let table = object.section("__ex_table", A, 4, &[0; 36]);
    let symbol = object.symbol_of(text);
    let entries = [(20i64, 40i64, 7u8), (4, 50, 1), (8, 60, 7)];
    for (index, (instruction, handler, data)) in entries.into_iter().enumerate() {
        let at = index as u64 * 12;
        object.relocate((table, at), PC32, symbol, instruction);
        object.relocate((table, at + 4), PC32, symbol, handler);
        object.sections[table].bytes[index * 12 + 8] = data;
    }
    let mut world = World::load(&object);
    world.refused();
    let start = world.address((text, 0));
    let mut order = |order: [usize; 3], handler: i64| {
        for (slot, entry) in order.into_iter().enumerate() {
            let (instruction, other, data) = entries[entry];
            let at = slot as u64 * 12;
            let place = world.address((table, at));
            let distance =
                |to: i64, field: u64| start.wrapping_add_signed(to).wrapping_sub(place + field).to_le_bytes();
            world.put((table, at), &distance(instruction, 0)[..4]);
            world.put((table, at + 4), &distance(other + handler, 4)[..4]);
            world.put((table, at + 8), &[data, 0, 0, 0]);
        }
        world.explain().is_ok()
    };
    assert!(order([1, 2, 0], 0));
    assert!(!order([1, 2, 0], 1));
    assert!(!order([2, 1, 0], 0));
    assert!(!order([1, 1, 0], 0));
}

#[test]
fn an_entry_counts_as_often_as_the_file_has_it() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xc3; 64]);
    let table = object.section("__ex_table", A, 4, &[0; 36]);
    let symbol = object.symbol_of(text);
    // The first one twice.
    for (at, instruction) in [(0, 4), (12, 4), (24, 8)] {
        object.relocate((table, at), PC32, symbol, instruction);
        object.relocate((table, at + 4), PC32, symbol, 32);
    }
    let mut world = World::load(&object);
    world.accepted();
    let second = world.address((table, 12));
    let other = world.address((text, 8)).wrapping_sub(second).to_le_bytes();
    world.put((table, 12), &other[..4]);
    world.refused();
}
