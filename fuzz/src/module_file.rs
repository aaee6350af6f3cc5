//! Target: modules' files, tampered with, for memory that a kernel has loaded an honest one into.

use vsm_integrity::module::{Explained, Habits, Kind, ModuleError, ModuleMemory, Plan, Range};

use crate::explainable::module;
use crate::fixtures::{CALLED, MADE_UP};
use crate::input::Input;
use crate::world::{Exports, World};

/// # Panics
/// When a rule is broken: the same file always gives the same plan; a plan explains each byte of the memory, and not the
/// memory with a bit changed; jump labels lie in the module's text and exported symbols have names.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let (mut world, file, parts);
    let made_up;
    let memory: Vec<(Kind, u64, Vec<u8>)> = if kind & 1 == 0 {
        made_up = &MADE_UP[usize::from(kind >> 1 & 1)];
        parts = made_up.parts.iter().map(|part| (part.kind, part.va, part.bytes.clone())).collect();
        world = World::load(&crate::object::Object::new(""));
        for (name, value) in CALLED.iter() {
            world.exports.0.insert(name.clone(), (*value, false, String::new()));
        }
        file = made_up.file.clone();
        parts
    } else {
        let module = module(&mut Input::new(input.bytes(60)));
        world = module.formed(&mut |_| 0);
        file = world.file.clone();
        let loaded = world.memory().expect("sound ranges");
        loaded.iter().map(|range| (range.kind, range.va, range.bytes.to_vec())).collect()
    };
    let file = tampered(&mut input, file, kind);
    let flip = (input.short(), input.byte());
    check(&world, &file, memory, flip, kind & 0x80 == 0);
}

/// The file with a few fields changed; half of them in the headers of its sections.
fn tampered(input: &mut Input<'_>, mut file: Vec<u8>, kind: u8) -> Vec<u8> {
    const INTERESTING: [u64; 8] = [0, 1, 7, 0x1000, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX];
    if kind & 0x80 == 0 {
        return file;
    }
    let headers =
        file.get(40..48).map_or(0, |bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | usize::from(*byte)));
    for _ in 0..=input.below(6) {
        let (how, offset) = (input.byte(), usize::try_from(input.short()).unwrap_or_default());
        let Some(length) = std::num::NonZero::new(file.len()) else { break };
        let at = if how & 1 == 0 { offset % length } else { headers.saturating_add(offset % 2048) % length };
        let value = match how >> 1 & 3 {
            0 => INTERESTING[usize::from(input.byte() & 7)],
            1 => u64::from(input.byte()),
            2 => input.word(),
            _ => {
                let old = file[at..].iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                old.wrapping_add_signed(i64::from(input.byte().cast_signed()))
            }
        };
        let width = 1 << (how >> 3 & 3);
        for (into, byte) in file[at..].iter_mut().zip(value.to_le_bytes()).take(width) {
            *into = byte;
        }
        if how > 0xf8 {
            file.truncate(at);
        }
    }
    file
}

fn check(world: &World, file: &[u8], memory: Vec<(Kind, u64, Vec<u8>)>, (at, bit): (u64, u8), honest: bool) {
    let mut memory = memory;
    let verdict = judge(world, file, &memory, true);
    let again = judge(world, file, &memory, false);
    assert_eq!(format!("{verdict:?}"), format!("{again:?}"), "the same file, twice");
    let Ok(verdict) = verdict else {
        assert!(!honest, "an honest module: {verdict:?}");
        return;
    };
    let parts = || memory.iter().filter(|(kind, ..)| kind.is_explained());
    let bytes: usize = parts().map(|(.., bytes)| bytes.len()).sum();
    assert_eq!(verdict.statistics.total(), bytes as u64, "not every byte has been looked at");
    let (number, count) = (usize::from(bit >> 4), parts().count());
    let part = memory.iter_mut().filter(|(kind, ..)| kind.is_explained()).nth(number % count.max(1));
    if let Some((_, _, bytes)) = part {
        let at = usize::try_from(at).unwrap_or_default() % bytes.len();
        bytes[at] ^= 1 << (bit & 7);
        let changed = judge(world, file, &memory, false);
        assert!(changed.is_err(), "with a bit of byte {at:#x} of part {number} changed: {changed:?}");
    }
}

fn judge(world: &World, file: &[u8], memory: &[(Kind, u64, Vec<u8>)], closely: bool) -> Result<Explained, ModuleError> {
    let ranges: Vec<Range<'_>> = memory
        .iter()
        .map(|(kind, va, bytes)| Range { kind: *kind, va: *va, size: bytes.len() as u64, bytes })
        .collect();
    let memory = ModuleMemory::new(&ranges)?;
    let exports: &Exports = &world.exports;
    let plan = Plan::new(file, &memory, world.kernel(), exports)?;
    let explained = plan.explain(&memory, &Habits::default());
    if closely {
        let _ = plan.exports(None, |export| -> Result<(), ModuleError> {
            assert!(!export.name.is_empty() && !export.name.contains(&0) && !export.namespace.contains(&0));
            Ok(())
        });
        let _ = plan.jump_labels(|label| -> Result<(), ModuleError> {
            let range = memory.range(label.kind).expect("a label in a part that is there");
            let end = label.va + label.jump().len() as u64;
            assert!(label.kind.is_text() && range.va <= label.va && end <= range.va + range.size, "{label:?}");
            assert!(matches!(label.jump(), [0xeb, _] | [0xe9, _, _, _, _]), "{label:?}");
            Ok(())
        });
        let _ = plan.static_calls(|_| -> Result<(), ModuleError> { Ok(()) });
        let _ = (plan.name(), plan.info().is_gpl_compatible(), plan.info().depends());
    }
    explained
}

/// Honest modules, and some with a few fields changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let sites: Vec<u8> = [&[27, 0xcc][..], &(0..14).chain(0..14).collect::<Vec<u8>>(), &[0; 30]].concat();
    // Found: an alternative of no bytes.
    let mut empty = vec![
        0x81, 0x1b, 0xcc, 0xfa, 0xfe, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x02, 0x03, 0x04, 0x05, 0x06,
        0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d,
    ];
    empty.resize(52, 0);
    empty.extend([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1d, 0xd2, 0x0a, 0, 0, 0]);
    let mut all = vec![vec![0], vec![2], [&[1][..], &sites].concat(), empty];
    for field in 0..48u8 {
        let change = [0, 1 | (field % 4) << 1 | 3 << 3, field * 5, field % 3, 3, 4, 5];
        all.push([&[0x80][..], &change].concat());
        all.push([&[0x81][..], &sites, &change].concat());
    }
    all
}
