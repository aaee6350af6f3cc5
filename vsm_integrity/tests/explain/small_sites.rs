//! LOCK prefixes, ENDBR, calls of `__fentry__`, jump labels and paravirt calls; and what is between sections.

use vsm_integrity::module::patch_sites::JumpLabel;
use vsm_integrity::module::{Kind, ModuleError};

use crate::object::{A, ABS64, Object, PC32, W, X};
use crate::world::{PV, PV_BUG, World, branch};

#[test]
fn lock_prefixes_go_with_one_cpu_in_some_sections() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xf0, 0xff, 0x00, 0xf0, 0xff, 0x00, 0xf0, 0xff, 0x00]);
    let cold = object.section(".text.unlikely", A | X, 1, &[0xf0, 0xff, 0x00]);
    let init = object.section(".init.text", A | X, 1, &[0xf0, 0xff, 0x00]);
    object.list(".smp_locks", &[(text, 0), (text, 3), (cold, 0), (init, 0)]);
    let many = World::load(&object);
    many.accepted();
    // Not all of them, not only in another section, and not a prefix that is not listed.
    many.refused_with((text, 0), &[0x3e]);
    many.refused_with((cold, 0), &[0x3e]);
    many.refused_with((text, 6), &[0x3e]);
    let mut one = many.clone();
    one.put((text, 0), &[0x3e]);
    one.put((text, 3), &[0x3e]);
    one.accepted();
    one.refused_with((text, 6), &[0x3e]);
    one.refused_with((text, 0), &[0x36]);
    one.refused_with((init, 0), &[0x3e]);
    // From Linux 6.4 on, in all code that stays.
    one.accepted_with((cold, 0), &[0x3e]);
}

#[test]
fn endbr_is_kept_or_poisoned() {
    const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[ENDBR, ENDBR, ENDBR].concat());
    object.list(".ibt_endbr_seal", &[(text, 0), (text, 8)]);
    let world = World::load(&object);
    world.accepted();
    for poison in [[0x66, 0x0f, 0x1f, 0x00], [0x0f, 0x1f, 0x40, 0xd6]] {
        let mut sealed = world.clone();
        sealed.put((text, 0), &poison);
        sealed.refused();
        sealed.put((text, 8), &poison);
        sealed.accepted();
        sealed.refused_with((text, 4), &poison);
        sealed.refused_with((text, 8), &ENDBR);
    }
    world.refused_with((text, 0), &[0x0f, 0x1f, 0x40, 0x00]);
}

#[test]
fn entries_of_functions_become_nops() {
    const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xcc; 64]);
    for at in [0u64, 16, 32] {
        object.sections[text].bytes[usize::try_from(at).unwrap()..][..5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
        object.branch((text, at), 1, "__fentry__");
    }
    let list = object.section("__mcount_loc", A, 8, &[0; 16]);
    let symbol = object.symbol_of(text);
    // The list is not in order; in memory it is.
    object.relocate((list, 0), ABS64, symbol, 16);
    object.relocate((list, 8), ABS64, symbol, 0);
    let mut world = World::load(&object);
    world.refused();
    let sorted = [world.address((text, 0)), world.address((text, 16))];
    world.put((list, 0), &sorted.map(u64::to_le_bytes).concat());
    world.accepted();
    world.refused_with((list, 0), &sorted[1].to_le_bytes());
    world.refused_with((text, 0), &NOP);
    world.put((text, 0), &NOP);
    world.put((text, 16), &NOP);
    world.accepted();
    world.refused_with((text, 32), &NOP);
}

#[test]
fn jump_labels_are_as_in_the_file_or_all_nops() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xeb, 0x10, 0x0f, 0x1f, 0x44, 0, 0, 0xe9, 0x20, 0, 0, 0, 0xc3]);
    object.sections[text].bytes.resize(64, 0xcc);
    let table = object.section("__jump_table", A | W, 8, &[0; 48]);
    let (symbol, key) = (object.symbol_of(text), object.undefined("helper"));
    for (index, (site, target)) in [(0u64, 18u64), (2, 40), (7, 44)].into_iter().enumerate() {
        let entry = index as u64 * 16;
        object.relocate((table, entry), PC32, symbol, i64::try_from(site).unwrap());
        object.relocate((table, entry + 4), PC32, symbol, i64::try_from(target).unwrap());
        object.relocate((table, entry + 8), 24, key, 2);
    }
    let mut world = World::load(&object);
    world.accepted();
    let mut labels = Vec::new();
    world
        .plan()
        .jump_labels(|label| -> Result<(), ModuleError> {
            labels.push(label);
            Ok(())
        })
        .unwrap();
    let jumps: Vec<&[u8]> = labels.iter().map(JumpLabel::jump).collect();
    assert_eq!(jumps, [&[0xeb, 0x10][..], &[0xe9, 33, 0, 0, 0], &[0xe9, 32, 0, 0, 0]]);
    assert!(labels.iter().all(|label| label.key_bits == 2 && label.kind == Kind::Text));
    world.refused_with((text, 2), &[0xe9, 33, 0, 0, 0]);
    world.refused_with((text, 0), &[0x66, 0x90]);
    world.put((text, 0), &[0x66, 0x90]);
    world.put((text, 7), &[0x0f, 0x1f, 0x44, 0, 0]);
    world.accepted();
}

#[test]
fn paravirt_calls_go_where_the_kernels_operations_do() {
    let mut object = Object::new("license=GPL|");
    let site = [0xff, 0x15, 0, 0, 0, 0, 0x90];
    let text = object.section(".text", A | X, 16, &site.repeat(3));
    let (symbol, operations) = (object.symbol_of(text), object.undefined("pv_ops"));
    let table = object.section(".parainstructions", A, 8, &[0; 48]);
    for index in 0..3u8 {
        let at = u64::from(index);
        object.relocate((text, at * 7 + 2), PC32, operations, i64::from(index) * 8 - 4);
        object.relocate((table, at * 16), ABS64, symbol, i64::from(index) * 7);
        let entry = usize::from(index) * 16 + 8;
        object.sections[table].bytes[entry..entry + 2].copy_from_slice(&[index, 7]);
    }
    let mut world = World::load(&object);
    world.accepted();
    let call = |world: &World, at: u64, target: u64| {
        let mut code = branch(0xe8, world.address((text, at)), target).to_vec();
        code.extend([0x66, 0x90]);
        code
    };
    world.refused_with((text, 0), &call(&world, 0, PV[0]));
    let nothing = [0x0f, 0x1f, 0x80, 0, 0, 0, 0];
    let (first, last) = (call(&world, 0, PV[0]), call(&world, 14, PV_BUG));
    world.put((text, 0), &first);
    world.put((text, 7), &nothing);
    world.put((text, 14), &last);
    world.accepted();
    world.refused_with((text, 0), &call(&world, 0, PV[1]));
    world.refused_with((text, 0), &nothing);
    world.refused_with((text, 14), &call(&world, 14, PV[0]));
}

#[test]
fn what_is_between_sections_is_zero() {
    let mut object = Object::new("license=GPL|");
    object.section(".text", A | X, 16, &[0xc3]);
    object.section(".text.unlikely", A | X, 16, &[0xc3]);
    object.section(".rodata", A, 8, &[1]);
    object.section(".init.rodata", A, 8, &[1]);
    let world = World::load(&object);
    world.accepted();
    for (kind, at) in
        [(Kind::Text, 1), (Kind::Text, 17), (Kind::Text, 4095), (Kind::RoData, 1), (Kind::InitRoData, 4095)]
    {
        let mut changed = world.clone();
        *changed.raw(kind, at) = 0xcc;
        changed.refused();
    }
}
