//! What real kernels poked into their modules, and every static call and jump label of those switched on and off.
//!
//! The captures are test data that lie beside the repository; without them nothing is tested here, and that is printed.

use vsm_sim::hosted::HostedMachine;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::modules::{Call, Module, Placed};
use vsm_sim::vtl0::patcher::{INT3, poke_code};

use super::{patch, site_bytes};
use crate::linux::Linux;

/// Pokes `code` and looks at the bytes after each step.
fn poke(machine: &HostedMachine, name: &str, site: &Site, code: &[u8]) {
    let now = site_bytes(machine, site);
    let stages = [[&[INT3], &now[1..]].concat(), [&[INT3], &code[1..]].concat(), code.to_vec()];
    for (step, stage) in poke_code(site, code).into_iter().zip(stages) {
        assert_eq!(patch(machine, step), 0, "{name}: {site:x?} to {code:x?}: {step:x?}");
        assert_eq!(site_bytes(machine, site), stage, "{name}: {site:x?}: {step:x?}");
    }
}

/// The instruction that Linux writes where there is nothing to call.
fn nothing(code: &[u8]) -> &'static [u8] {
    if code[0] == 0xe8 { &[0x0f, 0x1f, 0x44, 0, 0] } else { &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc] }
}

fn text_of(module: &Module, placed: &Placed, machine: &HostedMachine) -> Vec<u8> {
    let mut text = Vec::new();
    for (_, page) in placed.memory().filter(|(kind, _)| kind.is_text()) {
        let at = text.len();
        text.resize(at + 4096, 0);
        vsm_sim::vtl0::bytes::read(machine.memory(), page, &mut text[at..]).unwrap();
    }
    assert!(!text.is_empty(), "{}", module.name);
    text
}

/// Loads all modules of a set and makes each transition that the kernel made, there, back and there again.
fn replay(which: usize, seed: Option<u64>) {
    let archives = captures::archives().unwrap();
    let Some(archive) = archives.get(which) else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return;
    };
    let set = Set::open(archive).unwrap();
    let kernel = Capture::open(archive).unwrap().kernel_data(0x100_0000).unwrap();
    let mut linux = Linux::booted(seed, &kernel);
    let (mut calls, mut changed, mut labels) = (0, 0, 0);
    for index in 0..set.len() {
        let captured = set.module(index).unwrap();
        let module = Module::captured(&captured).unwrap();
        let name = &module.name;
        let placed = linux.place(&module, 0);
        let token = linux.validate(&placed);
        assert!(token > 0, "{name}: {token}");
        let before = text_of(&module, &placed, &linux.machine);
        assert!(linux.calls(token) >= module.calls.len(), "{name}");
        let switched = captured.switched_labels().unwrap();
        let site = |call: &Call| placed.place_of(call.va, call.compiled.len()).unwrap();
        for call in module.calls.iter().chain(&switched) {
            let place = site(call);
            assert_eq!(site_bytes(&linux.machine, &place), call.compiled, "{name}: {:#x}", call.va);
            poke(&linux.machine, name, &place, &call.direct);
        }
        let after = text_of(&module, &placed, &linux.machine);
        let moved = module.calls.iter().filter(|call| call.direct != call.compiled).count();
        assert_eq!(before == after, moved + switched.len() == 0, "{name}");
        // Off, back to the trampoline, and as the kernel had it.
        for call in &module.calls {
            for code in [nothing(&call.compiled), &call.compiled, &call.direct] {
                poke(&linux.machine, name, &site(call), code);
            }
        }
        assert!(text_of(&module, &placed, &linux.machine) == after, "{name}");
        for label in &module.labels {
            let place = placed.place_of(label.va, label.jump.len()).unwrap();
            let now = site_bytes(&linux.machine, &place);
            let nop: &[u8] = if label.jump.len() == 2 { &[0x66, 0x90] } else { &[0x0f, 0x1f, 0x44, 0, 0] };
            for code in [&label.jump, nop, &now] {
                poke(&linux.machine, name, &place, code);
            }
        }
        assert!(text_of(&module, &placed, &linux.machine) == after, "{name}");
        (calls, changed, labels) =
            (calls + module.calls.len(), changed + moved + switched.len(), labels + module.labels.len());
        assert_eq!(linux.free_init(token), 0, "{name}");
    }
    println!("{}: {calls} static calls, {labels} jump labels; {changed} of them as the kernel did", set.name());
    assert!(calls > 4000 && changed > 4000 && labels > 1000, "{calls}, {changed}, {labels}");
}

#[test]
fn every_transition_of_the_first_set_is_accepted() {
    replay(0, None);
}

#[test]
fn every_transition_of_the_second_set_is_accepted_in_scattered_frames() {
    replay(1, Some(3));
}
