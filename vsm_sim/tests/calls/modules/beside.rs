//! One step beside each rule for modules of 6.2 and later, as an attack through the handlers: a real kernel's modules, whose
//! calls are counted, with one branch, one instruction or one page that is not what Linux would have made of them.
//!
//! | rule | here | with made-up modules (`vsm_integrity/tests/explain`) |
//! |---|---|---|
//! | calls of `__fentry__` in two lists | `a_call_of_fentry…` | `pairs::a_call_of_fentry_in_both_lists_is_never_counted` |
//! | the size of DATA | `data_is…` | `pairs::data_is_as_long_as_sections_and_symbols_make_it` |
//! | only calls from TEXT | `calls_from…` | `call_depth::only_calls_from_text_to_text_that_stays_are_counted` |
//! | only calls to text that stays | `calls_from…` | the same |
//! | the space before a function | `the_space…` | `call_depth::the_space_before_a_function_counts_if_a_listed_call_from_text_does` |
//! | functions without space before them | `nine_bytes…` | `call_depth::what_lies_before_the_kernels_functions_is_read_from_sealed_text` |
//! | the instruction that counts | `the_space…` | `call_depth::the_shorter_instruction_is_relative_to_itself`, `calls_count_all_or_not_at_all` |
//! | thunks that count, returns | `branches_and_returns…` | `retpolines::to_thunks_that_count…`, `returns::the_thunk_in_use_is_the_only_other_target` |
//! | calls at alternatives and paravirt sites | `a_call_that_an_alternative…` | `call_depth::calls_that_alternatives_start_with…`, `calls_that_paravirt_sites_have_become…` |
//!
//! The captures are test data that lie beside the repository; without them nothing is tested here, and that is printed.

use std::collections::HashMap;

use litebox_platform_lvbs::Errno;
use vsm_integrity::module::Kind;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::modules::Module;

use crate::linux::Linux;

const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;
/// Bytes of the instruction that counts, and its first ones: `sarq $5, pcpu_hot+16(%rip)`.
const COUNTING: usize = 9;
const TEMPLATE: [u8; 4] = [0x65, 0x48, 0xc1, 0x3d];

/// A machine with a kernel that counts calls, up to a module that has not been loaded yet.
struct World {
    linux: Linux,
    kallsyms: HashMap<String, Vec<u64>>,
    module: Module,
}

impl World {
    /// Before the module of that name; nothing where there are no captures.
    fn before(name: &str) -> Option<Self> {
        let archives = captures::all_archives().unwrap();
        let Some(archive) = archives.get(4) else {
            println!("SKIPPED: there are no captures of real modules beside the repository");
            return None;
        };
        let (set, capture) = (Set::open(archive).unwrap(), Capture::open(archive).unwrap());
        let mut linux = Linux::captured(Some(9), &capture);
        for index in 0..set.len() {
            let module = Module::captured(&set.module(index).unwrap()).unwrap();
            if module.name == name {
                let kallsyms = capture.kallsyms().unwrap();
                let world = Self { linux, kallsyms, module };
                // What the kernel exports under each name is there to go by.
                assert!(world.is_function(world.symbol("__fentry__")));
                return Some(world);
            }
            let placed = linux.place(&module, 0);
            let token = linux.validate(&placed);
            assert!(token > 0, "{}", module.name);
            assert_eq!(linux.free_init(token), 0);
        }
        panic!("no {name}")
    }

    fn symbol(&self, name: &str) -> u64 {
        self.kallsyms[name][0]
    }

    fn is_function(&self, va: u64) -> bool {
        self.linux.machine.platform().vtl0().kernel_data().unwrap().functions.contains(va)
    }

    fn part(&self, kind: Kind) -> (u64, &[u8]) {
        let part = self.module.parts.iter().find(|part| part.kind == kind).unwrap();
        (part.va, &part.bytes)
    }

    /// The first branch of five bytes whose target is wanted: its offset and the target.
    fn branch(&self, kind: Kind, opcode: u8, wanted: impl Fn(u64) -> bool) -> (usize, u64) {
        let (va, bytes) = self.part(kind);
        let found = bytes.windows(5).zip(va..).enumerate().find_map(|(at, (code, va))| {
            let distance = i32::from_le_bytes(code[1..].try_into().unwrap());
            let target = (va + 5).wrapping_add_signed(i64::from(distance));
            (code[0] == opcode && wanted(target)).then_some((at, target))
        });
        found.unwrap_or_else(|| panic!("no such branch in {kind:?}"))
    }

    /// Refuses the module with other bytes there; nothing else has changed then.
    fn refuse(&mut self, what: &str, kind: Kind, at: usize, bytes: &[u8]) {
        let mut changed = self.module.clone();
        let place = &mut changed.part_mut(kind).unwrap().bytes[at..at + bytes.len()];
        assert_ne!(place, bytes, "{what}");
        place.copy_from_slice(bytes);
        self.refuse_module(what, &changed);
    }

    fn refuse_module(&mut self, what: &str, module: &Module) {
        let placed = self.linux.place(module, 0);
        let before = self.linux.snapshot();
        assert_eq!(self.linux.validate(&placed), Errno::Einval.to_result(), "{what}");
        assert!(self.linux.snapshot() == before, "{what}");
        placed.free(&mut self.linux.frames, |_| true);
    }

    /// Refuses the module with the branch going elsewhere.
    fn redirect(&mut self, what: &str, kind: Kind, at: usize, target: u64) {
        let (va, bytes) = self.part(kind);
        let distance = target.wrapping_sub(va + at as u64 + 5).cast_signed();
        let code = [&bytes[at..=at], &i32::try_from(distance).unwrap().to_le_bytes()].concat();
        self.refuse(what, kind, at, &code);
    }

    /// As it is, the module is accepted.
    fn accept(mut self) {
        let placed = self.linux.place(&self.module, 0);
        assert!(self.linux.validate(&placed) > 0, "{}", self.module.name);
    }
}

#[test]
fn nine_bytes_before_a_function_without_space_there_are_refused() {
    let Some(mut world) = World::before("kvm_intel") else { return };
    world.linux.machine.keep_log();
    let function = world.symbol("asm_exc_nmi_kvm_vmx");
    let (at, _) = world.branch(Kind::Text, CALL, |target| target == function);
    world.redirect("nine bytes before", Kind::Text, at, function - COUNTING as u64);
    let address = format!("({:#x}): a site must have a form", world.part(Kind::Text).0 + at as u64);
    let log = world.linux.machine.log_lines();
    assert!(log.iter().any(|line| line.contains(&address)), "{address}: {log:#?}");
    for before in [1, 8, 10, 16] {
        world.redirect(&format!("{before} before"), Kind::Text, at, function - before);
    }
    // A function with space before it: the space and nothing else.
    let counted = |target: u64| world.is_function(target + COUNTING as u64);
    let (at, target) = world.branch(Kind::Text, CALL, counted);
    for beside in [target - 1, target + 1, target + COUNTING as u64] {
        world.redirect("beside the space", Kind::Text, at, beside);
    }
    world.accept();
}

#[test]
fn a_call_of_fentry_is_a_nop_and_never_counted() {
    let Some(mut world) = World::before("kvm_intel") else { return };
    let fentry = world.symbol("__fentry__");
    // The entry of a function whose calls count: ENDBR, or what it was sealed with, and the NOP.
    let (_, text) = world.part(Kind::Text);
    let entries = text.windows(32).enumerate().step_by(16);
    let found = entries.filter(|(_, code)| code[16 - COUNTING..].starts_with(&TEMPLATE)).find_map(|(at, code)| {
        [16, 20].into_iter().find(|start| code[*start..*start + 5] == [0x0f, 0x1f, 0x44, 0, 0]).map(|start| at + start)
    });
    let at = found.expect("a function that ftrace knows");
    let va = world.part(Kind::Text).0 + at as u64;
    for target in [fentry, fentry - COUNTING as u64, fentry - 1] {
        let distance = i32::try_from(target.wrapping_sub(va + 5).cast_signed()).unwrap();
        world.refuse("a call", Kind::Text, at, &[&[CALL][..], &distance.to_le_bytes()].concat());
    }
    world.accept();
}

#[test]
fn data_is_a_page_too_long() {
    let Some(mut world) = World::before("kvm_intel") else { return };
    for kind in [Kind::Data, Kind::InitData] {
        let mut longer = world.module.clone();
        let bytes = &mut longer.part_mut(kind).unwrap().bytes;
        bytes.resize(bytes.len() + 4096, 0);
        world.refuse_module(&format!("{kind:?}"), &longer);
    }
    world.accept();
}

#[test]
fn calls_from_init_text_and_to_it_are_not_counted() {
    let Some(mut world) = World::before("kvm_intel") else { return };
    let (start, size) = (world.part(Kind::InitText).0, world.part(Kind::InitText).1.len() as u64);
    let (at, target) = world.branch(Kind::InitText, CALL, |target| world.is_function(target));
    world.redirect("from init text to the kernel", Kind::InitText, at, target - COUNTING as u64);
    let inside = |target: u64| target.is_multiple_of(16) && target >= start && target - start < size;
    let (at, target) = world.branch(Kind::InitText, CALL, inside);
    world.redirect("within init text", Kind::InitText, at, target - COUNTING as u64);
    let (start, size) = (world.part(Kind::Text).0, world.part(Kind::Text).1.len() as u64);
    let inside = |target: u64| target.is_multiple_of(16) && target >= start && target - start < size;
    let (at, target) = world.branch(Kind::InitText, CALL, inside);
    world.redirect("from init text to text", Kind::InitText, at, target - COUNTING as u64);
    world.accept();
}

#[test]
fn the_space_before_a_function_holds_the_instruction_or_nops() {
    let Some(mut world) = World::before("kvm_intel") else { return };
    let (va, text) = world.part(Kind::Text);
    let text = text.to_vec();
    let at = text.windows(COUNTING).position(|code| code.starts_with(&TEMPLATE) && code[8] == 5).unwrap();
    world.refuse("NOPs", Kind::Text, at, &[0x90; COUNTING]);
    world.refuse("another instruction", Kind::Text, at + 3, &[0x3c]);
    world.refuse("another count", Kind::Text, at + 8, &[6]);
    let operand = u32::from_le_bytes(text[at + 4..at + 8].try_into().unwrap());
    world.refuse("another variable", Kind::Text, at + 4, &operand.wrapping_add(8).to_le_bytes());
    // A function that no listed call from TEXT goes to: its space stays.
    let ends = text.windows(17).enumerate().step_by(16);
    let mut uncounted = ends.filter(|(_, code)| code[..16] == [0x90; 16] && code[16] != 0x90).map(|(at, _)| at + 16);
    let end = uncounted.next_back().expect("a function that is not called");
    let hot = operand.wrapping_add(u32::try_from(at + COUNTING).unwrap()).wrapping_sub(u32::try_from(end).unwrap());
    let code = [&TEMPLATE[..], &hot.to_le_bytes(), &[5]].concat();
    world.refuse(&format!("at {:#x}", va + end as u64), Kind::Text, end - COUNTING, &code);
    world.accept();
}

#[test]
fn branches_and_returns_go_to_the_thunks_that_count() {
    let Some(mut world) = World::before("kvm_intel") else { return };
    let [calls, plain, returns, counting] =
        ["__x86_indirect_call_thunk_rax", "__x86_indirect_thunk_rax", "__x86_return_thunk", "call_depth_return_thunk"]
            .map(|name| world.symbol(name));
    let is_thunk = |target: u64| target >= calls && target - calls < 16 * 32 && (target - calls).is_multiple_of(32);
    let (at, target) = world.branch(Kind::Text, CALL, is_thunk);
    let register = target - calls;
    let other = if register == 0 { 32 } else { 0 };
    let jumps = world.symbol("__x86_indirect_jump_thunk_rax");
    for (what, target) in [
        ("another register", calls + other),
        ("a thunk that does not count", plain + register),
        ("the thunk of jumps", jumps + register),
        ("within the thunk", target + 1),
    ] {
        world.redirect(what, Kind::Text, at, target);
    }
    let (at, _) = world.branch(Kind::Text, JUMP, |target| target == counting);
    for (what, target) in [("the thunk as compiled", returns), ("within the thunk", counting + 1)] {
        world.redirect(what, Kind::Text, at, target);
    }
    world.refuse("a plain return", Kind::Text, at, &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc]);
    world.accept();
}

/// The first such call of KVM, which 6.8 and later count once alternatives are applied.
#[test]
fn a_call_that_an_alternative_starts_with_is_counted() {
    const AT: usize = 0x73e5;
    let Some(mut world) = World::before("kvm") else { return };
    let (va, text) = world.part(Kind::Text);
    let (opcode, va) = (text[AT], va + AT as u64);
    let distance = i32::from_le_bytes(text[AT + 1..AT + 5].try_into().unwrap());
    let target = (va + 5).wrapping_add_signed(i64::from(distance));
    assert!(opcode == CALL && (target + COUNTING as u64).is_multiple_of(16), "{va:#x} calls {target:#x}");
    for beside in [target + COUNTING as u64, target + 1, target - 1] {
        world.redirect("beside the space", Kind::Text, AT, beside);
    }
    world.accept();
}
