//! Calls whose depth is counted: they go to an instruction in the space before the function.

use crate::object::{A, ABS64, Object, PC32, X};
use crate::world::{Exports, PCPU_HOT, PV, PV_BUG, RETURN_THUNK, SAFE_RETURN, World, branch};

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

/// Nine NOPs are room for the shorter instruction, and none for the longer one: then Linux leaves the call.
#[test]
fn space_for_the_shorter_instruction_alone() {
    let (mut object, text) = module();
    object.sections[text].bytes[38] = 0xcc;
    for newer in [false, true] {
        let mut world = world(&object, newer);
        world.accepted();
        let function = world.address((text, 48));
        world.branch((text, 5), 0xe8, HELPER - 9);
        world.refused();
        world.put((text, 39), &counting(function));
        world.refused();
        world.branch((text, 0), 0xe8, function - 9);
        world.accepted();
        world.refused_with((text, 0), &branch(0xe8, world.address((text, 0)), function - 10));
        world.refused_with((text, 39), &[0x90; 9]);
    }
    // The longer one: the kernel's function counts, the module's does not.
    let mut world = world(&object, false);
    world.branch((text, 5), 0xe8, HELPER - 10);
    world.accepted();
    let function = world.address((text, 48));
    world.refused_with((text, 0), &branch(0xe8, world.address((text, 0)), function - 10));
    world.refused_with((text, 39), &counting(function));
}

/// NOPs that an alternative may write over are no space before a function.
#[test]
fn space_that_an_alternative_covers_counts_for_nothing() {
    let (mut object, text) = module();
    let from = object.section(".altinstr_replacement", A | X, 1, &[0x0f, 0x01, 0xca]);
    let (own, replacement) = (object.symbol_of(text), object.symbol_of(from));
    let table = object.section(".altinstructions", A, 8, &[0, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 3, 3]);
    object.relocate((table, 0), PC32, own, 40);
    object.relocate((table, 4), PC32, replacement, 0);
    let mut world = world(&object, true);
    let function = world.address((text, 48));
    world.branch((text, 5), 0xe8, HELPER - 9);
    for space in [&[0x0f, 0x1f, 0x00], &[0x0f, 0x01, 0xca]] {
        world.put((text, 40), space);
        world.accepted();
        world.refused_with((text, 0), &branch(0xe8, world.address((text, 0)), function - 9));
    }
    world.put((text, 39), &counting(function));
    world.refused();
    world.branch((text, 0), 0xe8, function - 9);
    world.refused();
}

/// A module of 6.8 or later whose text and text for initialisation call its function at 48, the kernel's, and one in the
/// latter, in this order at 0, 5 and 10; `listed` are the calls in `.call_sites`, of the one text and of the other.
fn newer(listed: [&[u64]; 2]) -> (World, usize, usize) {
    let mut object = Object::new("license=GPL|");
    let mut code = [0xe8, 0, 0, 0, 0].repeat(3);
    code.resize(64, 0xc3);
    code[32..48].fill(0x90);
    let text = object.section(".text", A | X, 16, &code);
    let init = object.section(".init.text", A | X, 16, &code);
    let (own, own_init) = (object.symbol_of(text), object.symbol_of(init));
    let mut sites = Vec::new();
    for (section, listed) in [text, init].into_iter().zip(listed) {
        object.relocate((section, 1), PC32, own, 48 - 4);
        object.branch((section, 5), 1, "helper");
        object.relocate((section, 11), PC32, own_init, 48 - 4);
        sites.extend(listed.iter().map(|at| (section, *at)));
    }
    object.list(".call_sites", &sites);
    (world(&object, true), text, init)
}

/// The same as Linux leaves it, with the calls from text counted that can be.
fn counted() -> (World, usize, usize) {
    let (mut world, text, init) = newer([&[0, 5, 10], &[0, 5, 10]]);
    let function = world.address((text, 48));
    world.put((text, 39), &counting(function));
    world.branch((text, 0), 0xe8, function - 9);
    world.branch((text, 5), 0xe8, HELPER - 9);
    (world, text, init)
}

#[test]
fn only_calls_from_text_to_text_that_stays_are_counted() {
    let (world, text, init) = counted();
    assert!(world.accepted().habits.counts_calls());
    // From text for initialisation, and to it.
    let function = world.address((text, 48));
    for (place, target) in [
        ((init, 0), function - 9),
        ((init, 5), HELPER - 9),
        ((init, 10), world.address((init, 39))),
        ((text, 10), world.address((init, 39))),
        ((text, 0), function),
        ((text, 0), function - 10),
        ((text, 5), HELPER),
        ((text, 5), HELPER - 10),
    ] {
        world.refused_with(place, &branch(0xe8, world.address(place), target));
    }
}

#[test]
fn the_space_before_a_function_counts_if_a_listed_call_from_text_does() {
    // Called from text for initialisation only, or from a call that is not listed.
    for listed in [[&[5][..], &[0]], [&[5], &[]]] {
        let (mut world, text, _) = newer(listed);
        world.branch((text, 5), 0xe8, HELPER - 9);
        world.accepted();
        let function = world.address((text, 48));
        world.refused_with((text, 39), &counting(function));
    }
    let (world, text, init) = counted();
    world.refused_with((text, 39), &[0x90; 9]);
    world.refused_with((text, 39), &counting(HELPER));
    let function = world.address((init, 48));
    world.refused_with((init, 39), &counting(function));
}

#[test]
fn what_lies_before_the_kernels_functions_is_read_from_sealed_text() {
    let (mut world, text, _) = counted();
    let plain = branch(0xe8, world.address((text, 5)), HELPER);
    let before = |bytes: &[u8]| vec![(HELPER - bytes.len() as u64, bytes.to_vec())];
    // The instruction, or NOPs that Linux would put it over: only a counted call is right.
    for space in [counting(HELPER), [0x90; 9]] {
        world.text.0 = before(&space);
        world.accepted();
        world.refused_with((text, 5), &plain);
    }
    // What is before `asm_exc_nmi_kvm_vmx`, other bytes, and no sealed text: nothing but the plain call.
    let inside_of_a_jump = [0xe2, 0xe8, 0xff, 0xe9, 0xe1, 0x09, 0x00, 0x00, 0x90];
    for space in [before(&inside_of_a_jump), before(&counting(HELPER + 1)), before(&[0x90; 8]), Vec::new()] {
        world.text.0 = space;
        world.refused();
        world.accepted_with((text, 5), &plain);
    }
}

#[test]
fn calls_are_counted_where_returns_go_to_a_thunk() {
    let (mut world, ..) = counted();
    world.return_thunk = RETURN_THUNK;
    world.refused();
}

/// A module with a call of its function that an alternative starts with: as compiled, or as its replacement.
fn alternative(original: bool) -> (Object, usize) {
    let mut object = Object::new("license=GPL|");
    let mut code = vec![0xcc; 128];
    code[48..64].fill(0x90);
    let start = if original { [0xe8, 0, 0, 0, 0] } else { [0x0f, 0x1f, 0x44, 0, 0] };
    code[..5].copy_from_slice(&start);
    let text = object.section(".text", A | X, 16, &code);
    let from = object.section(".altinstr_replacement", A | X, 1, &[0xe8, 0, 0, 0, 0]);
    let own = object.symbol_of(text);
    if original {
        object.relocate((text, 1), PC32, own, 64 - 4);
    }
    // The other one calls the kernel.
    if original {
        object.branch((from, 0), 1, "helper");
    } else {
        object.relocate((from, 1), PC32, own, 64 - 4);
    }
    // Always there, or never: the feature and its opposite.
    let feature = 3 * 32 + 21u16;
    let [low, high] = feature.to_le_bytes();
    let table =
        object.section(".altinstructions", A, 8, &[0, 0, 0, 0, 0, 0, 0, 0, low, high, u8::from(original), 0, 5, 5]);
    let replacement = object.symbol_of(from);
    object.relocate((table, 0), PC32, own, 0);
    object.relocate((table, 4), PC32, replacement, 0);
    (object, text)
}

#[test]
fn calls_that_alternatives_start_with_are_counted_from_6_8_on() {
    for original in [true, false] {
        let (object, text) = alternative(original);
        let mut newer = world(&object, true);
        let function = newer.address((text, 64));
        newer.branch((text, 0), 0xe8, function);
        newer.accepted();
        // What is counted, and where: both or neither.
        newer.refused_with((text, 55), &counting(function));
        newer.branch((text, 0), 0xe8, function - 9);
        newer.put((text, 55), &counting(function));
        newer.accepted();
        newer.refused_with((text, 0), &branch(0xe8, newer.address((text, 0)), function - 8));
        newer.refused_with((text, 55), &counting(function + 1));
        let mut older = world(&object, false);
        older.branch((text, 0), 0xe8, function);
        older.accepted();
        older.refused_with((text, 0), &branch(0xe8, older.address((text, 0)), function - 9));
        older.refused_with((text, 0), &branch(0xe8, older.address((text, 0)), function - 10));
    }
}

#[test]
fn a_replacement_is_copied_before_its_calls_are_counted() {
    let (mut object, text) = alternative(false);
    let from = text + 1;
    // The same into text for initialisation, where calls are not counted.
    object.list(".call_sites", &[(from, 0)]);
    let init = object.section(".init.text", A | X, 16, &[0x0f, 0x1f, 0x44, 0, 0]);
    let symbol = object.symbol_of(init);
    let table = object.sections.iter().position(|section| section.name == ".altinstructions").unwrap();
    object.sections[table].relocations[0].symbol = symbol;
    let mut world = world(&object, true);
    let function = world.address((text, 64));
    world.branch((init, 0), 0xe8, function);
    world.branch((from, 0), 0xe8, function - 9);
    world.put((text, 55), &counting(function));
    world.accepted();
    world.refused_with((init, 0), &branch(0xe8, world.address((init, 0)), function - 9));
}

#[test]
fn calls_that_paravirt_sites_have_become_are_counted_up_to_6_7() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, &[0xff, 0x15, 0, 0, 0, 0, 0x90]);
    let (symbol, operations) = (object.symbol_of(text), object.undefined("pv_ops"));
    object.relocate((text, 2), PC32, operations, -4);
    let table = object.section(".parainstructions", A, 8, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]);
    object.relocate((table, 0), ABS64, symbol, 0);
    for (newer, counted, plain) in [(false, true, true), (true, false, true)] {
        let mut world = world(&object, newer);
        world.text.0.push((PV[0] - 16, vec![0x90; 16]));
        let mut put = |target: u64| {
            world.branch((text, 0), 0xe8, target);
            world.put((text, 5), &[0x66, 0x90]);
            world.explain().is_ok()
        };
        assert_eq!((put(PV[0] - 10), put(PV[0])), (counted, plain));
        assert!(!put(PV[0] - 8) && !put(PV[1]));
    }
}
