//! Target: a module's memory as a kernel leaves it, with bytes changed, against the file that it was loaded from.
//!
//! The model is a kernel that loads the module: what it can have in memory, in any of its forms, is accepted, and nothing
//! else is.

use vsm_integrity::module::{Explained, Habits, Kind, ModuleError, Plan};

use crate::explainable::{explained, module};
use crate::input::Input;
use crate::world::World;

/// # Panics
/// When a rule is broken: the memory is accepted exactly when some kernel would have it like that; each byte is then
/// explained, and the same is accepted again by the habits that were seen.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let module = module(&mut input);
    let mut world = module.formed(&mut |forms| usize::from(input.byte()) % forms);
    let edits = input.below(4);
    for _ in 0..edits {
        edit(&mut input, &mut world);
    }
    let expected = edits == 0 || explained(&module.nearest(&mut world)) == explained(&world);
    let verdict = judge(&world, &Habits::default());
    match verdict {
        Ok(verdict) => {
            assert!(expected, "accepted after changes that no kernel makes: {:?}", verdict.statistics);
            let bytes: usize = explained(&world).into_iter().map(<[u8]>::len).sum();
            assert_eq!(verdict.statistics.total(), bytes as u64, "not every byte has been looked at");
            let again = judge(&world, &verdict.habits).expect("the same by its own habits");
            assert_eq!(again.statistics, verdict.statistics);
        }
        Err(ModuleError::Unexplained(_)) if !expected => {}
        Err(error) => panic!("{error}, after {edits} changes"),
    }
}

fn judge(world: &World, habits: &Habits) -> Result<Explained, ModuleError> {
    let memory = world.memory()?;
    Plan::new(&world.file, &memory, world.kernel(), &world.exports)?.explain(&memory, habits)
}

/// Changes a byte, or a few, of a part that must be explained.
fn edit(input: &mut Input<'_>, world: &mut World) {
    let kinds = [Kind::Text, Kind::Text, Kind::RoData, Kind::InitText, Kind::InitRoData];
    let kind = kinds[usize::from(input.byte()) % kinds.len()];
    let length = world.memory().expect("sound ranges").bytes(kind).len();
    let (at, how) = (usize::try_from(input.short()).unwrap_or_default(), input.below(8));
    let bytes: &[u8] = match how {
        0 => &[0x3e],
        1 => &[0x66, 0x0f, 0x1f, 0],
        2 => &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc],
        3 => &[0x0f, 0x1f, 0x44, 0, 0],
        4 => input.bytes(5),
        _ => &[],
    };
    if bytes.is_empty() {
        *world.raw(kind, at % length) ^= input.byte();
    }
    for (at, byte) in (at..).zip(bytes) {
        *world.raw(kind, at % length) = *byte;
    }
}

/// A module with each kind of site in each of its forms, and with some bytes changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let sites: Vec<u8> = (0..14).chain(0..14).collect();
    let parts = |form: u8| [&[27, 0xcc][..], &sites, &[form; 14]].concat();
    let mut all: Vec<Vec<u8>> = (0..3).map(parts).collect();
    for at in 0..32u8 {
        all.push([&parts(0)[..], &[1, 0, at * 8, 0, 5, 1]].concat());
        all.push([&parts(1)[..], &[1, 2, at * 2, 0, 5, 0x80]].concat());
    }
    for how in 0..5 {
        all.push([&parts(0)[..], &[1, 0, 16, 0, how, 1, 2, 3, 4, 5]].concat());
    }
    all
}
