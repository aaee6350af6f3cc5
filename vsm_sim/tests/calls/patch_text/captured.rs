//! What real kernels poked into their modules, and every static call and jump label of those switched on and off.
//!
//! The captures are test data that lie beside the repository; without them nothing is tested here, and that is printed.

use litebox_platform_lvbs::Errno;
use vsm_integrity::kernel_info;
use vsm_integrity::module::{Instruction, Shape};
use vsm_sim::hosted::HostedMachine;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::modules::{Call, Module, Placed};
use vsm_sim::vtl0::patcher::{INT3, poke_code};

use super::modules::branch;
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
fn nothing(linux: &Linux, call: &Call) -> Vec<u8> {
    if call.compiled[0] == 0xe8 {
        return vec![0x0f, 0x1f, 0x44, 0, 0];
    }
    let vtl0 = linux.machine.platform().vtl0();
    let returns = vtl0.modules().lock().habits.returns(call.va);
    if returns.plain {
        return vec![0xc3, 0xcc, 0xcc, 0xcc, 0xcc];
    }
    let arch = kernel_info::arch_info(&vtl0.kernel_data().unwrap().arch).unwrap();
    branch(call, arch.return_thunk)
}

/// Pokes a call to a function behind space in which its depth is counted: `function - 9`, which VTL1 refuses. The function
/// itself it takes, and the call can be put back as it was.
fn refuse_counted(machine: &HostedMachine, name: &str, site: &Site, call: &Call, function: u64) {
    let steps = poke_code(site, &call.direct);
    assert_eq!(
        [patch(machine, steps[0]), patch(machine, steps[1])],
        [0, Errno::Einval.to_result()],
        "{name}: {call:x?}"
    );
    for step in &poke_code(site, &call.compiled)[1..] {
        assert_eq!(patch(machine, *step), 0, "{name}: {call:x?} back");
    }
    poke(machine, name, site, &branch(call, function));
    poke(machine, name, site, &call.compiled);
}

fn text_of(placed: &Placed, machine: &HostedMachine) -> Vec<u8> {
    let mut text = Vec::new();
    for (_, page) in placed.memory().filter(|(kind, _)| kind.is_text()) {
        let at = text.len();
        text.resize(at + 4096, 0);
        vsm_sim::vtl0::bytes::read(machine.memory(), page, &mut text[at..]).unwrap();
    }
    text
}

/// Loads all modules of a set and makes each transition that the kernel made, there, back and there again.
fn replay(which: usize, seed: Option<u64>, least: [usize; 3]) {
    let archives = captures::all_archives().unwrap();
    let Some(archive) = archives.get(which) else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return;
    };
    let set = Set::open(archive).unwrap();
    let mut linux = Linux::captured(seed, &Capture::open(archive).unwrap());
    let (mut calls, mut changed, mut labels, mut counted) = (0, 0, 0, 0);
    for index in 0..set.len() {
        let captured = set.module(index).unwrap();
        let module = Module::captured(&captured).unwrap();
        let name = &module.name;
        let placed = linux.place(&module, 0);
        let token = linux.validate(&placed);
        assert!(token > 0, "{name}: {token}");
        let before = text_of(&placed, &linux.machine);
        assert!(linux.calls(token) >= module.calls.len(), "{name}");
        let switched = captured.switched_labels().unwrap();
        let site = |call: &Call| placed.place_of(call.va, call.compiled.len()).unwrap();
        let counts = linux.machine.platform().vtl0().modules().lock().habits.counts_calls();
        let counted_function = |call: &Call| call.counted_function().filter(|_| counts);
        let (refused, uncounted): (Vec<&Call>, Vec<&Call>) =
            module.calls.iter().partition(|call| counted_function(call).is_some());
        for call in refused {
            let function = counted_function(call).unwrap();
            refuse_counted(&linux.machine, name, &site(call), call, function);
            counted += 1;
        }
        for call in uncounted.iter().copied().chain(&switched) {
            let place = site(call);
            assert_eq!(site_bytes(&linux.machine, &place), call.compiled, "{name}: {:#x}", call.va);
            poke(&linux.machine, name, &place, &call.direct);
        }
        let after = text_of(&placed, &linux.machine);
        let moved = uncounted.iter().filter(|call| call.direct != call.compiled).count();
        assert_eq!(before == after, moved + switched.len() == 0, "{name}");
        // Off, back to the trampoline, and as the kernel had it.
        for call in uncounted {
            for code in [&nothing(&linux, call), &call.compiled, &call.direct] {
                poke(&linux.machine, name, &site(call), code);
            }
        }
        assert!(text_of(&placed, &linux.machine) == after, "{name}");
        for label in &module.labels {
            let place = placed.place_of(label.va, label.jump.len()).unwrap();
            let now = site_bytes(&linux.machine, &place);
            let nop: &[u8] = if label.jump.len() == 2 { &[0x66, 0x90] } else { &[0x0f, 0x1f, 0x44, 0, 0] };
            for code in [&label.jump, nop, &now] {
                poke(&linux.machine, name, &place, code);
            }
        }
        assert!(text_of(&placed, &linux.machine) == after, "{name}");
        (calls, changed, labels) =
            (calls + module.calls.len(), changed + moved + switched.len(), labels + module.labels.len());
        assert_eq!(linux.free_init(token), 0, "{name}");
    }
    println!(
        "{}: {calls} static calls, {labels} jump labels; {changed} of them as the kernel did, {counted} counted",
        set.name()
    );
    assert!([calls, changed + counted, labels].iter().zip(least).all(|(found, least)| *found >= least));
}

/// A static call to what only the kernel's own trampoline of it names.
#[test]
fn what_nobody_exports_is_called_where_the_kernels_sealed_trampoline_goes() {
    let archives = captures::all_archives().unwrap();
    let Some(archive) = archives.get(3) else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return;
    };
    let (set, capture) = (Set::open(archive).unwrap(), Capture::open(archive).unwrap());
    for sealed in [true, false] {
        let mut linux = Linux::captured_with(Some(6), &capture, sealed);
        let mut found = 0;
        for index in 0..set.len() {
            let module = Module::captured(&set.module(index).unwrap()).unwrap();
            let placed = linux.place(&module, 0);
            let token = linux.validate(&placed);
            assert!(token > 0, "{}", module.name);
            for call in &module.calls {
                let decode = |code| Shape::of_code(&call.compiled).unwrap().decode(code, call.va);
                let (Some(Instruction::Branch(trampoline)), Some(Instruction::Branch(target))) =
                    (decode(&call.compiled), decode(&call.direct))
                else {
                    continue;
                };
                let machine = &linux.machine;
                let kernel = machine.platform().vtl0().kernel_data().unwrap();
                if !kernel.text.contains(target) || kernel.functions.contains(target) || target == trampoline {
                    continue;
                }
                found += 1;
                let site = placed.place_of(call.va, call.compiled.len()).unwrap();
                // Beside it, and what the trampoline of another call may go to.
                let beside = [target - 1, target + 1, target + 16, trampoline + 8].map(|other| branch(call, other));
                for code in beside.iter().chain((!sealed).then_some(&call.direct)) {
                    let [int3, tail, _] = poke_code(&site, code);
                    assert_eq!(
                        [patch(machine, int3), patch(machine, tail)],
                        [0, Errno::Einval.to_result()],
                        "{call:x?}"
                    );
                    for step in &poke_code(&site, &call.compiled)[1..] {
                        assert_eq!(patch(machine, *step), 0, "{call:x?} back");
                    }
                }
                if sealed {
                    poke(machine, &module.name, &site, &call.direct);
                    poke(machine, &module.name, &site, &call.compiled);
                }
            }
            assert_eq!(linux.free_init(token), 0);
        }
        println!("{found} static calls to what nobody exports");
        assert!(found >= 3, "kvm_intel has three");
    }
}

#[test]
fn every_transition_of_the_first_set_is_accepted() {
    replay(0, None, [4000, 4000, 1000]);
}

#[test]
fn every_transition_of_the_second_set_is_accepted_in_scattered_frames() {
    replay(1, Some(3), [4000, 4000, 1000]);
}

#[test]
fn every_transition_of_6_12_against_its_is_accepted_in_scattered_frames() {
    replay(2, Some(4), [1, 1, 1]);
}

#[test]
fn every_transition_of_6_12_is_accepted_in_scattered_frames() {
    replay(3, Some(5), [1, 1, 1]);
}

#[test]
fn of_6_12_that_counts_calls_all_but_the_counted_transitions_are_accepted() {
    replay(4, None, [1, 1, 1]);
}
