//! Indirect branches: kept, plain, behind a fence, or by a thunk against ITS.

use crate::object::{A, Object, X};
use crate::world::{REGISTERS, World, branch};

/// A call by RAX, a call by R11 with a prefix, a jump by RDX, a jump under a condition by R8.
const SITES: [(&str, u64, &[u8]); 4] =
    [("rax", 0, &[0xe8]), ("r11", 64, &[0x2e, 0xe8]), ("rdx", 128, &[0xe9]), ("r8", 192, &[0x0f, 0x84])];

fn module() -> (Object, usize) {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 64, &[0xcc; 256]);
    for (register, at, opcode) in SITES {
        let start = usize::try_from(at).unwrap();
        let code = &mut object.sections[text].bytes[start..start + opcode.len() + 4];
        code.fill(0);
        code[..opcode.len()].copy_from_slice(opcode);
        object.branch((text, at), opcode.len() as u64, &format!("__x86_indirect_thunk_{register}"));
    }
    object.list(".retpoline_sites", &SITES.map(|(_, at, _)| (text, at)));
    (object, text)
}

const PLAIN: [&[u8]; 4] = [
    &[0xff, 0xd0, 0x0f, 0x1f, 0x00],
    &[0x41, 0xff, 0xd3, 0x0f, 0x1f, 0x00],
    &[0xff, 0xe2, 0xcc, 0x66, 0x90],
    &[0x75, 0x04, 0x41, 0xff, 0xe0, 0xcc],
];
/// A fence and an indirect jump under a condition have no room: that one stays.
const FENCED: [&[u8]; 3] =
    [&[0x0f, 0xae, 0xe8, 0xff, 0xd0], &[0x0f, 0xae, 0xe8, 0x41, 0xff, 0xd3], &[0x0f, 0xae, 0xe8, 0xff, 0xe2]];

#[test]
fn all_are_kept_or_plain_or_fenced() {
    let (object, text) = module();
    let kept = World::load(&object);
    kept.accepted();
    let mut plain = kept.clone();
    let mut fenced = kept.clone();
    for ((_, at, _), bytes) in SITES.iter().zip(PLAIN) {
        plain.put((text, *at), bytes);
        kept.refused_with((text, *at), bytes);
    }
    plain.accepted();
    for ((_, at, _), bytes) in SITES.iter().zip(FENCED) {
        fenced.put((text, *at), bytes);
        kept.refused_with((text, *at), bytes);
        plain.refused_with((text, *at), bytes);
    }
    fenced.accepted();
    // Another register, and another target.
    plain.refused_with((text, 0), &[0xff, 0xd1, 0x0f, 0x1f, 0x00]);
    plain.refused_with((text, 192), &[0x74, 0x04, 0x41, 0xff, 0xe0, 0xcc]);
    kept.refused_with((text, 0), &branch(0xe8, kept.address((text, 0)), crate::world::THUNKS + 32));
}

/// `__x86_indirect_call_thunk_array` and `__x86_indirect_jump_thunk_array`.
const COUNTING: [u64; 2] = [0xffff_ffff_81e0_2000, 0xffff_ffff_81e0_3000];

#[test]
fn to_thunks_that_count_go_calls_and_jumps_each_to_their_own() {
    let (object, text) = module();
    let mut exports = World::load(&object).exports;
    for (name, array) in ["call", "jump"].into_iter().zip(COUNTING) {
        exports.0.insert(format!("__x86_indirect_{name}_thunk_rax"), (array, false, String::new()));
    }
    let mut world = World::load_with(&object, exports, 0);
    let kept = world.clone();
    for (register, at, opcode) in SITES {
        let number = REGISTERS.iter().position(|name| *name == register).unwrap() as u64;
        let own = usize::from(!opcode.contains(&0xe8));
        let prefix = opcode.len() as u64 - 1;
        let place = (text, at + prefix);
        let to = |target: u64| branch(opcode[opcode.len() - 1], world.address(place), target);
        let code = to(COUNTING[own] + 32 * number);
        kept.refused_with(place, &code);
        world.put(place, &code);
    }
    world.accepted();
    let to = |target: u64| branch(0xe8, world.address((text, 0)), target);
    for target in [COUNTING[0] + 32, COUNTING[0] + 1, COUNTING[1], crate::world::THUNKS] {
        world.refused_with((text, 0), &to(target));
    }
    world.refused_with((text, 0), PLAIN[0]);
}

#[test]
fn without_the_kernels_thunks_only_the_original_is_accepted() {
    let (mut object, text) = module();
    let helper = object.undefined("helper");
    object.sections[text].relocations[0].symbol = helper;
    let world = World::load(&object);
    world.accepted();
    world.refused_with((text, 0), PLAIN[0]);
}

/// Where the thunk of each site is in its page, by hand from the kernel's rule: the upper half of a line, one after the
/// other; the branch by RDX at 128 would be in the lower half of one as all others.
const THUNKS_AT: [u64; 4] = [32, 35, 39, 42];
const PAGE: u64 = 0xffff_ffff_c0b0_0000;

fn with_thunks(object: &Object, text: usize, page: u64) -> World {
    let mut world = World::load(object);
    for ((_, at, opcode), thunk) in SITES.iter().zip(THUNKS_AT) {
        let prefix = opcode.len() as u64 - 1;
        let address = world.address((text, at + prefix));
        let code = branch(opcode[opcode.len() - 1], address, page + thunk);
        world.put((text, at + prefix), &code);
    }
    world
}

#[test]
fn against_its_each_branch_has_its_own_thunk() {
    let (object, text) = module();
    let world = with_thunks(&object, text, PAGE);
    assert_eq!(world.accepted().thunk_pages, [PAGE]);
    let mut expected = vec![0xcc; 4096];
    for ((register, _, _), at) in SITES.iter().zip(THUNKS_AT) {
        let number = u8::try_from(REGISTERS.iter().position(|name| name == register).unwrap()).unwrap();
        let at = usize::try_from(at).unwrap();
        if number < 8 {
            expected[at..at + 2].copy_from_slice(&[0xff, 0xe0 + number]);
        } else {
            expected[at..at + 3].copy_from_slice(&[0x41, 0xff, 0xe0 + number - 8]);
        }
    }
    let mut page = vec![0; 4096];
    world.plan().write_thunk_page(0, &mut page).unwrap();
    assert_eq!(page, expected);
    // Another branch's thunk, and a page of its own.
    let at = world.address((text, 0));
    for target in [PAGE + 35, PAGE + 4096 + 32, PAGE + 31] {
        world.refused_with((text, 0), &branch(0xe8, at, target));
    }
    world.refused_with((text, 0), PLAIN[0]);
}

/// What Linux uses when it has no page: the kernel's own thunk of the register, and no other one, even where a page of the
/// module's own would have the branch's.
#[test]
fn of_the_kernels_thunks_against_its_a_branch_takes_its_own_register_s() {
    let (object, text) = module();
    // The thunk of RCX, the second, lies where the page before the array would have that of the first branch.
    let array = 0xffff_ffff_81e1_0000 + THUNKS_AT[0] - 64;
    let mut world = World::load(&object);
    let own = world.exports.0["__x86_indirect_thunk_rax"].clone();
    world.exports.0.insert("__x86_indirect_its_thunk_rax".to_owned(), (array, own.1, own.2));
    for (register, at, opcode) in SITES {
        let number = REGISTERS.iter().position(|name| *name == register).unwrap() as u64;
        let prefix = opcode.len() as u64 - 1;
        let code = branch(opcode[opcode.len() - 1], world.address((text, at + prefix)), array + number * 64);
        world.put((text, at + prefix), &code);
    }
    assert!(world.accepted().thunk_pages.iter().all(|page| *page == 0));
    world.refused_with((text, 0), &branch(0xe8, world.address((text, 0)), array + 64));
}

#[test]
fn a_page_of_thunks_is_a_page_outside_of_the_module() {
    let (object, text) = module();
    with_thunks(&object, text, PAGE + 16).refused();
    with_thunks(&object, text, 0xffff_ffff_c000_0000).refused();
    with_thunks(&object, text, PAGE - 4096).accepted();
}

#[test]
fn branches_in_the_upper_half_need_no_thunk() {
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 64, &[0xcc; 128]);
    for at in [0u64, 40, 64] {
        object.sections[text].bytes[usize::try_from(at).unwrap()..][..5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
        object.branch((text, at), 1, "__x86_indirect_thunk_rbx");
    }
    // The list's order decides which thunk is first.
    object.list(".retpoline_sites", &[(text, 64), (text, 0), (text, 40)]);
    let mut world = World::load(&object);
    world.branch((text, 64), 0xe8, PAGE + 32);
    world.branch((text, 0), 0xe8, PAGE + 35);
    world.put((text, 40), &[0xff, 0xd3, 0x0f, 0x1f, 0x00]);
    assert_eq!(world.accepted().thunk_pages, [PAGE]);
    world.branch((text, 64), 0xe8, PAGE + 35);
    world.branch((text, 0), 0xe8, PAGE + 32);
    world.refused();
}

#[test]
fn many_thunks_fill_several_pages() {
    // 700 calls by RAX, all at the start of a line: ten thunks in each upper half, 640 in a page.
    let count = 700u64;
    let mut object = Object::new("license=GPL|");
    let text = object.section(".text", A | X, 64, &vec![0xcc; 64 * 700]);
    let sites: Vec<(usize, u64)> = (0..count).map(|index| (text, index * 64)).collect();
    for (_, at) in &sites {
        object.sections[text].bytes[usize::try_from(*at).unwrap()..][..5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
        object.branch((text, *at), 1, "__x86_indirect_thunk_rax");
    }
    object.list(".retpoline_sites", &sites);
    let mut world = World::load(&object);
    let second = PAGE - 0x10_000;
    for index in 0..count {
        let (page, within) = if index < 640 { (PAGE, index) } else { (second, index - 640) };
        let target = page + within / 10 * 64 + 32 + within % 10 * 3;
        world.branch((text, index * 64), 0xe8, target);
    }
    assert_eq!(world.accepted().thunk_pages, [PAGE, second]);
}
