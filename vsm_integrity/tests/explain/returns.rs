//! Returns: a thunk, RET, or what depends on the place in a cache line; the same everywhere.

use crate::object::{A, Object, X};
use crate::world::{PV, RETURN_THUNK, SAFE_RETURN, World, branch};

const RET: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];

/// Two returns in the lower half of a cache line and one in the upper; and one that is no listed site.
fn module() -> (Object, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 64, &[0x90; 96]);
    for at in [0u64, 16, 40, 60] {
        object.sections[text].bytes[usize::try_from(at).unwrap()..][..5].copy_from_slice(&[0xe9, 0, 0, 0, 0]);
        object.branch((text, at), 1, "__x86_return_thunk");
    }
    object.list(".return_sites", &[(text, 0), (text, 16), (text, 40)]);
    (object, text)
}

#[test]
fn all_stay_or_all_become_plain() {
    let (object, text) = module();
    let mut world = World::load(&object);
    world.accepted();
    // One alone would be VTL0's choice.
    world.refused_with((text, 0), &RET);
    world.refused_with((text, 16), &RET);
    for at in [0, 16, 40] {
        world.put((text, at), &RET);
    }
    assert_ne!(world.accepted().statistics.total(), 0);
    world.refused_with((text, 0), &branch(0xe9, world.address((text, 0)), RETURN_THUNK));
    // What is not listed stays.
    world.refused_with((text, 60), &RET);
    world.refused_with((text, 0), &[0xc3, 0xcc, 0xcc, 0xcc, 0x90]);
    world.refused_with((text, 0), &[0xc3, 0x90, 0x90, 0x90, 0x90]);
}

#[test]
fn the_thunk_in_use_is_the_only_other_target() {
    let (object, text) = module();
    let mut world = World::load(&object);
    world.return_thunk = SAFE_RETURN;
    for at in [0, 16, 40] {
        world.branch((text, at), 0xe9, SAFE_RETURN);
    }
    world.accepted();
    for target in [SAFE_RETURN + 1, PV[0], world.address((text, 60))] {
        world.refused_with((text, 16), &branch(0xe9, world.address((text, 16)), target));
    }
    world.refused_with((text, 16), &branch(0xe8, world.address((text, 16)), SAFE_RETURN));
    // Without such a thunk in the kernel there is none.
    world.return_thunk = RETURN_THUNK;
    world.refused();
}

#[test]
fn against_its_the_place_in_the_cache_line_decides() {
    let (object, text) = module();
    let mut world = World::load(&object);
    world.return_thunk = SAFE_RETURN;
    for at in [0, 16] {
        world.branch((text, at), 0xe9, SAFE_RETURN);
    }
    world.put((text, 40), &RET);
    world.accepted();
    let mut other = world.clone();
    other.put((text, 0), &RET);
    other.branch((text, 40), 0xe9, SAFE_RETURN);
    other.refused();
}

#[test]
fn a_branch_to_something_else_is_no_return() {
    let (mut object, text) = module();
    let helper = object.undefined("helper");
    object.sections[text].relocations[0].symbol = helper;
    let world = World::load(&object);
    world.accepted();
    world.refused_with((text, 0), &RET);
}
