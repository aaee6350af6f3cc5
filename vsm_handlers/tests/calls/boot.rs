//! EnableAPsVtl and SignalEndOfBoot through the real table.

use crate::common::{BOOT_VP, CPUS, Machine, VTL1_END, VTL1_START, call, kernel};
use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode};
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vsm::{PhaseRule, Refusal, TableIndex, VsmFunction};
use vsm_handlers::{GATE, ROWS};

const ENABLE_APS_VTL: u64 = 0x1_ffe0;
const SIGNAL_END_OF_BOOT: u64 = 0x1_ffe3;
/// Frame of the cpumask.
const FRAME: u64 = 0x1234;

/// A machine whose page at [`FRAME`] is a cpumask with the bits of `cpus`.
fn machine(cpus: &[u32]) -> Machine {
    let mut mask = vec![0_u8; 4096];
    for cpu in cpus {
        mask[*cpu as usize / 8] |= 1 << (cpu % 8);
    }
    let machine = Machine::default();
    machine.0.lock().unwrap().page = Some((FRAME << 12, mask));
    machine
}

/// The processors that were to be enabled, by the hypercalls' inputs (LVBS contract §7: EnableVpVtl).
fn enabled(machine: &Machine) -> Vec<u32> {
    let state = machine.0.lock().unwrap();
    let one = |input: &[u8]| {
        let vp = u32::from_le_bytes(input[8..12].try_into().unwrap());
        assert_eq!(input.len(), 240);
        assert_eq!(input[..8], [0xff; 8], "the own partition");
        assert_eq!(input[12], 1, "VTL1");
        assert_eq!(input[16..24], (0x1000 + u64::from(vp)).to_le_bytes(), "the processor's own context");
        vp
    };
    state
        .hypercalls
        .iter()
        .map(|(control, input)| {
            assert_eq!(control.code(), HypercallCode::ENABLE_VP_VTL);
            one(input)
        })
        .collect()
}

#[test]
fn enables_the_processors_of_the_mask_but_the_caller() {
    let machine = machine(&[0, BOOT_VP, 7, 8, 11]);
    assert_eq!(call(&kernel(&machine), BOOT_VP, [ENABLE_APS_VTL, FRAME, 0, 0]), 0);
    assert_eq!(enabled(&machine), [0, 7, 8, 11]);
    assert_eq!(machine.0.lock().unwrap().reads, [(FRAME << 12, 4096)], "the mask is fetched once, as a whole");
}

#[test]
fn a_processor_that_has_vtl1_already_is_a_success_and_any_other_status_is_not() {
    let both = machine(&[0, BOOT_VP, 2]);
    both.0.lock().unwrap().status = Some(HvStatus::VTL_ALREADY_ENABLED);
    assert_eq!(call(&kernel(&both), BOOT_VP, [ENABLE_APS_VTL, FRAME, 0, 0]), 0);
    assert_eq!(enabled(&both), [0, 2]);

    let refused = machine(&[0, 2]);
    refused.0.lock().unwrap().status = Some(HvStatus::ACCESS_DENIED);
    assert_eq!(call(&kernel(&refused), BOOT_VP, [ENABLE_APS_VTL, FRAME, 0, 0]), -5);
    assert_eq!(enabled(&refused), [0], "nothing is tried after a failure");
}

#[test]
fn a_processor_that_is_not_possible_is_refused_before_any_is_enabled() {
    for cpu in [CPUS, 4096 * 8 - 1] {
        let machine = machine(&[0, 2, cpu]);
        assert_eq!(call(&kernel(&machine), BOOT_VP, [ENABLE_APS_VTL, FRAME, 0, 0]), -22, "CPU {cpu}");
        assert_eq!(enabled(&machine), []);
    }
}

#[test]
fn a_bad_frame_number_is_refused_unread() {
    for (frame, errno) in
        [(VTL1_START, -13), (VTL1_END - 1, -13), (1 << 40, -14), (u64::MAX, -14), (FRAME | 1 << 52, -14)]
    {
        let machine = machine(&[0]);
        assert_eq!(call(&kernel(&machine), BOOT_VP, [ENABLE_APS_VTL, frame, 0, 0]), errno, "{frame:#x}");
        assert_eq!(machine.0.lock().unwrap().reads, []);
    }
    // Just outside VTL1, but not RAM.
    for frame in [VTL1_START - 1, VTL1_END] {
        let machine = machine(&[0]);
        assert_eq!(call(&kernel(&machine), BOOT_VP, [ENABLE_APS_VTL, frame, 0, 0]), -14, "{frame:#x}");
        assert_eq!(machine.0.lock().unwrap().reads.len(), 1);
    }
}

#[test]
fn the_boot_ends_once_and_closes_the_boot_phase() {
    let machine = machine(&[0]);
    let platform = kernel(&machine);
    assert_eq!(call(&platform, 3, [SIGNAL_END_OF_BOOT, 0, 0, 0]), 0, "any processor may send it");
    assert_eq!(call(&platform, 3, [SIGNAL_END_OF_BOOT, 0, 0, 0]), -1);
    // Those of the end of boot itself.
    machine.0.lock().unwrap().hypercalls.clear();
    assert_eq!(call(&platform, BOOT_VP, [ENABLE_APS_VTL, FRAME, 0, 0]), -1);
    assert_eq!(enabled(&machine), []);
}

#[test]
fn a_boot_phase_handler_does_not_run_without_the_proof_of_the_phase() {
    let platform = kernel(&Machine::default());
    // The context of a call that may run in both phases.
    let any_phase = TableIndex::of(VsmFunction::FreeModuleInit.id()).unwrap();
    let without_proof = GATE.admit(&platform, BOOT_VP, any_phase).unwrap();
    let boot_rows = ROWS.iter().filter(|row| row.meta.phase == PhaseRule::Boot && row.meta.implemented);
    for row in boot_rows {
        let refusal = Refusal::Before(VsmError::AfterEndOfBoot);
        assert_eq!((row.entry)(&without_proof, &[0; 3]), Err(refusal), "{}", row.function.name());
    }
    assert_eq!(platform.vtl0().phase.get(), Phase::Boot);
}
