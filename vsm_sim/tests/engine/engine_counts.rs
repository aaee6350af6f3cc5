//! Instruction counts are exact: known loops, counts per context, emulated instructions, interruptions by other VPs' wake-ups.

use crate::common::{CODE, machine, run, run_to_hypercall, start_state, with_code};
use vsm_sim::engine::{Engine, Reason, SharedState};

#[test]
fn known_loops_count_exactly() {
    let engine = machine(1, true);
    assert!(engine.instruction_counts());
    // dec rcx; jnz -; vmmcall
    let mut vcpu = with_code(&engine, b"\x48\xff\xc9\x75\xfb\x0f\x01\xd9");
    let mut expected = 0;
    for count in [1u64, 2, 3, 100, 12_345, 1_000_000] {
        vcpu.set_state(0, &start_state(0, CODE));
        vcpu.set_shared(&SharedState { rcx: count, ..SharedState::default() });
        run_to_hypercall(&mut *vcpu, 0);
        // The hypercall was skipped by us and counts as one.
        expected += 2 * count + 1;
        assert_eq!(vcpu.instructions(0), expected, "{count} turns");
    }
    assert_eq!(vcpu.instructions(1), 0);
}

#[test]
fn contexts_and_all_kinds_of_instructions_count() {
    let engine = machine(1, true);
    // push rax; pop rbx; call +0; lea rsp,[rsp+8]; movdqu xmm0,[rsp-16]; fninit; cpuid; rdtsc; mov rax,cr3; mov cr3,rax; mov rdi,0x300000; mov ecx,5; rep stosb; vmmcall
    let code = b"\x50\x5b\xe8\x00\x00\x00\x00\x48\x8d\x64\x24\x08\xf3\x0f\x6f\x44\x24\xf0\xdb\xe3\x0f\xa2\x0f\x31\x0f\x20\xd8\x0f\x22\xd8\xbf\x00\x00\x30\x00\xb9\x05\x00\x00\x00\xf3\xaa\x0f\x01\xd9";
    let mut vcpu = with_code(&engine, code);
    let mut counts = Vec::new();
    for _ in 0..3 {
        vcpu.set_state(1, &start_state(0, CODE));
        let before = vcpu.instructions(1);
        let exit = run(&mut *vcpu, 1);
        assert!(matches!(exit.reason, Reason::Cpuid { .. }));
        assert_eq!(vcpu.instructions(1) - before, 6, "up to CPUID");
        vcpu.advance(1, exit.instruction_len);
        assert_eq!(run(&mut *vcpu, 1).reason, Reason::Hypercall);
        counts.push(vcpu.instructions(1) - before);
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "the same each time: {counts:?}");
    // Each turn of a repeated string instruction is one for the emulator, and leaving the loop another.
    assert!((13..=13 + 5).contains(&counts[0]), "{counts:?}");
    assert_eq!(vcpu.instructions(0), 0);
}

#[test]
fn wake_ups_do_not_count() {
    let engine = machine(2, true);
    let mut vcpu = with_code(&engine, b"\x48\xff\xc9\x75\xfb\x0f\x01\xd9");
    let count = 20_000_000;
    vcpu.set_shared(&SharedState { rcx: count, ..SharedState::default() });
    std::thread::scope(|scope| {
        let guest = scope.spawn(move || {
            run_to_hypercall(&mut *vcpu, 0);
            vcpu.instructions(0)
        });
        // Changes of rights interrupt the guest many times.
        let mut rounds = 0;
        while !guest.is_finished() {
            engine.protect(0, 0x700, 1, vsm_sim::engine::Access::ALL).unwrap();
            rounds += 1;
        }
        assert!(rounds > 1);
        assert_eq!(guest.join().unwrap(), 2 * count + 1);
    });
}

#[test]
fn vps_that_run_in_turn_count_exactly() {
    let engine = machine(4, true);
    let mut vcpus: Vec<_> = (0..4).map(|vp| engine.vcpu(vp).unwrap()).collect();
    engine.ram().write(CODE, b"\x48\xff\xc9\x75\xfb\x0f\x01\xd9").unwrap();
    let mut expected = 0;
    for count in (1..200).step_by(7) {
        expected += 2 * count + 1;
        for vcpu in &mut vcpus {
            let vp = vcpu.vp();
            vcpu.set_state(0, &start_state(vp, CODE));
            vcpu.set_shared(&SharedState { rcx: count, ..SharedState::default() });
            run_to_hypercall(&mut **vcpu, 0);
            assert_eq!(vcpu.instructions(0), expected, "VP {vp}, {count} turns");
        }
    }
}
