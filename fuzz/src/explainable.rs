//! Modules in which a kernel has rewritten code, in every way that it could have.

use vsm_integrity::module::Kind;

use crate::input::Input;
use crate::object::{A, ABS64, Object, PC32, Place, S32, Symbol, W, X};
use crate::world::World;

/// `R_X86_64_PLT32`, `R_X86_64_32`, `R_X86_64_PC64`.
const PLT32: u32 = 4;
const U32: u32 = 10;
const PC64: u32 = 24;
/// `SHN_ABS`.
const ABSOLUTE: u16 = 0xfff1;
/// Bytes of text for each thing that is in it.
const SLOT: u64 = 16;
/// Most of them.
const MAX_SLOTS: u64 = 40;
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

/// Code that a kernel rewrites everywhere or nowhere: the places, and its forms. What is in the file is the first one, where
/// a kernel leaves it like that.
struct Rewrite {
    places: Vec<Place>,
    forms: Vec<Option<Vec<u8>>>,
}

/// A module with its forms.
pub struct Module {
    /// The module as it is before any code is rewritten.
    pub world: World,
    rewrites: Vec<Rewrite>,
}

impl Module {
    /// The module in memory, by what `choose` says of the number of forms that a piece of code has.
    pub fn formed(&self, choose: &mut impl FnMut(usize) -> usize) -> World {
        let mut world = self.world.clone();
        for rewrite in self.rewrites.iter().filter(|rewrite| !rewrite.places.is_empty()) {
            let form = rewrite.forms.get(choose(rewrite.forms.len()));
            if let Some(bytes) = form.and_then(Option::as_ref) {
                rewrite.places.iter().for_each(|place| world.put(*place, bytes));
            }
        }
        world
    }

    /// The module in the forms that the first place of each piece of code in `found` has.
    pub fn nearest(&self, found: &mut World) -> World {
        let mut world = self.world.clone();
        for Rewrite { places, forms } in &self.rewrites {
            let Some(first) = places.first() else { continue };
            let has =
                |form: &&Option<Vec<u8>>| form.as_ref().is_some_and(|form| found.bytes(*first, form.len()) == form);
            // Where none is there, the one in the file, or any, is the one that is missed.
            if let Some(form) = forms.iter().find(has).unwrap_or(&forms[0]) {
                for place in places {
                    world.put(*place, form);
                }
            }
        }
        world
    }
}

/// Bytes of the parts of a module that must be explained.
pub fn explained(world: &World) -> Vec<&[u8]> {
    let memory = world.memory().expect("sound ranges");
    Kind::ALL.into_iter().filter(|kind| kind.is_explained()).map(|kind| memory.bytes(kind)).collect()
}

/// A module of whatever `input` says.
pub fn module(input: &mut Input<'_>) -> Module {
    let slots = 1 + input.below(MAX_SLOTS);
    // What code is does not matter where no site is.
    let fill = input.byte();
    let length = usize::try_from(slots * SLOT).unwrap_or_default();
    let mut object = Object::new("license=GPL|name=it|");
    let text = object.section(".text", A | X, 16, &vec![fill; length]);
    let init = object.section(".init.text", A | X, 16, &[0xc3; 40]);
    let data = object.section(".rodata", A, 8, &[&[0; 64][..], &[fill; 30]].concat());
    let init_data = object.section(".init.rodata", A, 8, b"a text");
    object.section(".data", A | W, 8, &[1; 16]);
    let replacements = object.section(".altinstr_replacement", A | X, 1, &[0x31, 0xdb]);
    object.symbols.push(Symbol { name: "small".into(), info: 0x10, section: ABSOLUTE, value: 0x1234 });
    let small = object.symbols.len();
    let [of_text, of_data] = [text, data].map(|section| object.symbol_of(section));
    let (mut locks, mut seals, mut returns, mut alternatives, mut entries) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut long, mut short) = (vec![], vec![]);
    for at in (0..slots).map(|slot| slot * SLOT) {
        let place = (text, at);
        let kind = input.below(14);
        let (code, list): (&[u8], _) = match kind {
            0 => (&[0xe8, 0, 0, 0, 0], None),
            1 => (&[0xf0, 0xff, 0x00], Some(&mut locks)),
            2 => (&ENDBR, Some(&mut seals)),
            3 => (&[0xe9, 0, 0, 0, 0], Some(&mut returns)),
            4 => (&[0x31, 0xc0, 0x90, 0x90, 0x90], Some(&mut alternatives)),
            5 => (&[0xe8, 0, 0, 0, 0], Some(&mut entries)),
            6 => (&NOP5, Some(&mut long)),
            7 => (&[0xeb, 2], Some(&mut short)),
            8..=11 => (&[0; 8], None),
            _ => continue,
        };
        let start = usize::try_from(at).unwrap_or_default();
        object.sections[text].bytes[start..start + code.len()].copy_from_slice(code);
        if let Some(list) = list {
            list.push(place);
        }
        match kind {
            0 => {
                let helper = object.undefined("helper");
                object.relocate((text, at + 1), PLT32, helper, -4);
            }
            3 => object.branch(place, 1, "__x86_return_thunk"),
            5 => object.branch(place, 1, "__fentry__"),
            8 => object.relocate(place, ABS64, of_data, i64::from(input.byte())),
            9 => object.relocate(place, S32, of_text, i64::from(input.byte())),
            10 => object.relocate(place, U32, small, i64::from(input.byte())),
            11 => object.relocate(place, PC64, of_data, i64::from(input.byte())),
            _ => {}
        }
    }
    let helper = object.undefined("helper");
    object.sections[init].bytes[1..5].fill(0);
    object.relocate((init, 1), PC32, helper, -4);
    object.relocate((data, 0), ABS64, of_text, 8);
    object.relocate((data, 8), ABS64, helper, 0);
    object.relocate((data, 16), PC32, of_data, 3);
    let _ = init_data;
    for (name, sites) in [(".smp_locks", &locks), (".ibt_endbr_seal", &seals), (".return_sites", &returns)] {
        if !sites.is_empty() {
            object.list(name, sites);
        }
    }
    list_entries(&mut object, &entries);
    list_alternatives(&mut object, &alternatives, replacements);
    list_labels(&mut object, &long, &short);
    let kept = |others: &[&[u8]]| [None].into_iter().chain(others.iter().map(|form| Some(form.to_vec()))).collect();
    let rewrites = vec![
        Rewrite { places: locks, forms: kept(&[&[0x3e]]) },
        Rewrite { places: seals, forms: kept(&[&[0x66, 0x0f, 0x1f, 0], &[0x0f, 0x1f, 0x40, 0xd6]]) },
        Rewrite { places: returns, forms: kept(&[&[0xc3, 0xcc, 0xcc, 0xcc, 0xcc]]) },
        // The NOPs are always merged.
        Rewrite {
            places: alternatives,
            forms: vec![Some(vec![0x31, 0xc0, 0x0f, 0x1f, 0]), Some(vec![0x31, 0xdb, 0x0f, 0x1f, 0])],
        },
        Rewrite { places: entries, forms: kept(&[&NOP5]) },
        Rewrite { places: short, forms: kept(&[&[0x66, 0x90]]) },
    ];
    Module { world: World::load(&object), rewrites }
}

/// `__mcount_loc`, in order.
fn list_entries(object: &mut Object, sites: &[Place]) {
    if sites.is_empty() {
        return;
    }
    let list = object.section("__mcount_loc", A, 8, &vec![0; sites.len() * 8]);
    for (at, (section, offset)) in (0..).step_by(8).zip(sites) {
        let symbol = object.symbol_of(*section);
        object.relocate((list, at), ABS64, symbol, offset.cast_signed());
    }
}

/// `.altinstructions`, with entries as from Linux 6.3 on, all about one feature.
fn list_alternatives(object: &mut Object, sites: &[Place], replacements: usize) {
    if sites.is_empty() {
        return;
    }
    let entry = [0, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 5, 2];
    let table = object.section(".altinstructions", A, 8, &entry.repeat(sites.len()));
    for (at, (section, offset)) in (0..).step_by(14).zip(sites) {
        let [code, replacement] = [*section, replacements].map(|section| object.symbol_of(section));
        object.relocate((table, at), PC32, code, offset.cast_signed());
        object.relocate((table, at + 4), PC32, replacement, 0);
    }
}

/// `__jump_table`: jumps of five bytes that are not taken yet, and jumps of two that are.
fn list_labels(object: &mut Object, long: &[Place], short: &[Place]) {
    if long.is_empty() && short.is_empty() {
        return;
    }
    let table = object.section("__jump_table", A | W, 8, &vec![0; (long.len() + short.len()) * 16]);
    let key = object.undefined("helper");
    let targets = long.iter().map(|place| (place, 0x300)).chain(short.iter().map(|place| (place, 4)));
    for (at, ((section, offset), distance)) in (0..).step_by(16).zip(targets) {
        let symbol = object.symbol_of(*section);
        object.relocate((table, at), PC32, symbol, offset.cast_signed());
        object.relocate((table, at + 4), PC32, symbol, (offset + distance).cast_signed());
        object.relocate((table, at + 8), PC64, key, 2);
    }
}
