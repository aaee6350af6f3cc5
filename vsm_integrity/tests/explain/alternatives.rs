//! Alternatives: both formats of the table, replacements with branches, NOPs in the form of each version, several entries
//! about one place, and calls through `pv_ops` that become direct.

use crate::object::{A, Object, PC32, Place, X};
use crate::world::{FENTRY, PV, World, branch};

/// A CPU feature.
const FEATURE: u16 = 300;
const NOP3: [u8; 3] = [0x0f, 0x1f, 0x00];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// An entry of the table.
struct Entry {
    site: u64,
    replacement: u64,
    feature: u16,
    flags: u16,
    length: u8,
    replacement_length: u8,
}

/// A module with alternatives, its `.text`, its replacements and its table. Entries have 12 or 14 bytes.
fn module(code: &[u8], replacement: &[u8], entries: &[Entry], stride: usize) -> (Object, usize, usize, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 16, code);
    let from = object.section(".altinstr_replacement", A | X, 1, replacement);
    let table = object.section(".altinstructions", A, 8, &[]);
    for (index, entry) in entries.iter().enumerate() {
        let mut bytes = vec![0; 8];
        if stride == 12 {
            bytes.extend((entry.feature | entry.flags << 15).to_le_bytes());
        } else {
            bytes.extend(entry.feature.to_le_bytes());
            bytes.extend(entry.flags.to_le_bytes());
        }
        bytes.extend([entry.length, entry.replacement_length]);
        object.sections[table].bytes.extend(bytes);
        let at = (index * stride) as u64;
        let (text, from) = (object.symbol_of(text), object.symbol_of(from));
        object.relocate((table, at), PC32, text, entry.site.cast_signed());
        object.relocate((table, at + 4), PC32, from, entry.replacement.cast_signed());
    }
    (object, text, from, table)
}

#[test]
fn an_alternative_without_bytes_changes_nothing() {
    let entry =
        |site, length| Entry { site, replacement: 0, feature: FEATURE, flags: 0, length, replacement_length: 0 };
    for entries in [&[entry(1, 0)][..], &[entry(1, 0), entry(1, 0)], &[entry(0, 0), entry(2, 1)]] {
        let (object, text, ..) = module(&[0x31, 0xc0, 0xc3], &[0x31, 0xdb], entries, 14);
        let world = World::load(&object);
        world.accepted();
        world.refused_with((text, 1), &[0x90]);
    }
}

#[test]
fn a_feature_is_there_everywhere_or_nowhere() {
    let code = [0x31, 0xc0, 0x90, 0x90, 0x90, 0x31, 0xc0, 0x90, 0x90, 0x90, 0xc3];
    let entry = |site, flags| Entry { site, replacement: 0, feature: FEATURE, flags, length: 5, replacement_length: 2 };
    for stride in [12, 14] {
        let (object, text, ..) = module(&code, &[0x31, 0xdb], &[entry(0, 0), entry(5, 0)], stride);
        let mut world = World::load(&object);
        let (absent, there) = ([&[0x31, 0xc0], &NOP3[..]].concat(), [&[0x31, 0xdb], &NOP3[..]].concat());
        // NOPs are always merged.
        world.refused();
        world.put((text, 0), &absent);
        world.put((text, 5), &absent);
        world.accepted();
        world.refused_with((text, 0), &there);
        world.refused_with((text, 0), &[0x31, 0xdb, 0x90, 0x90, 0x90]);
        world.refused_with((text, 0), &[0x31, 0xc9, 0x0f, 0x1f, 0x00]);
        world.put((text, 0), &there);
        world.put((text, 5), &there);
        world.accepted();
        // Where the feature's absence counts, the places differ.
        let (object, text, ..) = module(&code, &[0x31, 0xdb], &[entry(0, 0), entry(5, 1)], stride);
        let mut world = World::load(&object);
        world.put((text, 0), &there);
        world.put((text, 5), &absent);
        world.accepted();
        world.refused_with((text, 5), &there);
    }
}

#[test]
fn always_is_a_feature_that_is_there() {
    let entry = Entry { site: 0, replacement: 0, feature: 3 * 32 + 21, flags: 0, length: 2, replacement_length: 2 };
    let (object, text, ..) = module(&[0x31, 0xc0], &[0x31, 0xdb], &[entry], 12);
    let world = World::load(&object);
    world.refused();
    world.accepted_with((text, 0), &[0x31, 0xdb]);
}

#[test]
fn a_branch_in_a_replacement_keeps_its_target() {
    let mut replacement = vec![0xe8, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
    replacement.extend([0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0]);
    let entry = |site, replacement, length, feature| Entry {
        site,
        replacement,
        feature,
        flags: 0,
        length,
        replacement_length: length,
    };
    let entries = [entry(0, 0, 5, 1), entry(5, 5, 5, 1), entry(10, 10, 12, 2)];
    let (mut object, text, from, _) = module(&[0x90; 40], &replacement, &entries, 12);
    object.branch((from, 0), 1, "__fentry__");
    let symbol = object.symbol_of(text);
    object.relocate((from, 6), PC32, symbol, 36 - 4);
    object.relocate((from, 13), PC32, symbol, 16);
    object.branch((from, 17), 1, "helper");
    let mut world = World::load(&object);
    world.put((text, 0), &NOP5);
    world.put((text, 5), &NOP5);
    let twelve = [&[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0][..], &[0x0f, 0x1f, 0x40, 0]].concat();
    world.put((text, 10), &twelve);
    world.accepted();
    let call = |place: Place, target: u64| branch(0xe8, world.address(place), target);
    // The version up to 6.4 makes the jump a short one with a NOP, the later one with INT3s.
    let (first, jump_nop, jump_int3) =
        (call((text, 0), FENTRY), [0xeb, 29, 0x0f, 0x1f, 0x00], [0xeb, 29, 0xcc, 0xcc, 0xcc]);
    let mut applied = world.clone();
    applied.put((text, 0), &first);
    applied.refused();
    applied.accepted_with((text, 5), &jump_nop);
    applied.refused_with((text, 5), &[0xeb, 28, 0x0f, 0x1f, 0x00]);
    // A call to the replacement's own distance, as if nothing had been relocated.
    let own = branch(0xe8, world.address((from, 0)), FENTRY);
    let mut wrong = applied.clone();
    wrong.put((text, 5), &jump_nop);
    wrong.refused_with((text, 0), &own);
    // The later version also relocates what is not the first instruction, and merges twelve bytes into a jump.
    applied.put((text, 5), &jump_int3);
    applied.accepted();
    let jumped = [&[0xeb, 10][..], &[0xcc; 10]].concat();
    applied.accepted_with((text, 10), &jumped);
    let mut load = vec![0x48, 0x8b, 0x05];
    let target = world.address((text, 20));
    load.extend(i32::try_from(target.wrapping_sub(world.address((text, 17))).cast_signed()).unwrap().to_le_bytes());
    load.extend(branch(0xe8, world.address((text, 17)), 0xffff_ffff_8100_5000));
    applied.accepted_with((text, 10), &load);
    // What it writes where the operand is not relocated.
    let mut copied = world.clone();
    let bytes = copied.bytes((from, 10), 12).to_vec();
    applied.refused_with((text, 10), &bytes);
}

#[test]
fn several_entries_about_a_place_are_applied_in_order() {
    let code = [0x31, 0xc0, 0x90, 0x90, 0x90, 0x90];
    let entry =
        |replacement, feature, length| Entry { site: 0, replacement, feature, flags: 0, length, replacement_length: 2 };
    let entries = [entry(0, 10, 4), entry(2, 11, 6)];
    let (object, text, _, table) = module(&code, &[0x31, 0xdb, 0x31, 0xc9], &entries, 14);
    let mut world = World::load(&object);
    // Neither; the first; the second, whether or not the first.
    for first in [[0x31, 0xc0], [0x31, 0xdb], [0x31, 0xc9]] {
        world.put((text, 0), &[&first[..], &[0x0f, 0x1f, 0x40, 0x00]].concat());
        world.accepted();
    }
    world.refused_with((text, 0), &[0x31, 0xd2]);
    // From Linux 6.10 on the lengths in the table become the longest.
    world.refused_with((table, 12), &[5]);
    world.accepted_with((table, 12), &[6]);
    world.refused_with((table, 26), &[4]);
}

#[test]
fn a_call_through_an_operation_becomes_a_direct_one() {
    let mut code = [0xff, 0x15, 0, 0, 0, 0].repeat(2);
    code.push(0xc3);
    let entry = |site| Entry { site, replacement: 0, feature: 3 * 32 + 21, flags: 2, length: 6, replacement_length: 5 };
    let (mut object, text, from, _) = module(&code, &[0xe8, 0, 0, 0, 0], &[entry(0), entry(6)], 14);
    object.branch((from, 0), 1, "helper");
    let operations = object.undefined("pv_ops");
    object.relocate((text, 2), PC32, operations, -4);
    object.relocate((text, 8), PC32, operations, 8 - 4);
    let mut world = World::load(&object);
    world.refused();
    let direct = |at: u64, target: u64| [&branch(0xe8, world.address((text, at)), target)[..], &[0x90]].concat();
    let (first, other) = (direct(0, PV[0]), direct(0, PV[1]));
    world.put((text, 0), &first);
    world.put((text, 6), &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00]);
    world.accepted();
    world.refused_with((text, 0), &other);
    world.refused_with((text, 0), &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00]);
}

#[test]
fn broken_entries_are_errors() {
    let entry = |length, replacement_length, replacement| Entry {
        site: 0,
        replacement,
        feature: 1,
        flags: 0,
        length,
        replacement_length,
    };
    // Longer than its site, out of the module's code, over the end of the section.
    for entry in [entry(2, 3, 0), entry(5, 2, 0)] {
        let (object, ..) = module(&[0x31, 0xc0], &[0x31, 0xdb, 0xc3], &[entry], 12);
        assert!(World::load(&object).explain().is_err());
    }
    let (object, text, ..) = module(&[0x31, 0xc0], &[0x31, 0xdb], &[entry(2, 2, 1 << 20)], 12);
    let world = World::load(&object);
    world.accepted();
    world.refused_with((text, 0), &[0x31, 0xdb]);
}
