//! After the end of boot VTL0 starts no processor that VTL1 has not locked.

use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, HypercallControl, VsmPartitionConfig};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::{GuestMemory, Injection};

use crate::setup::end_boot;

/// HvCallStartVirtualProcessor for VTL0 of VP 1, made by VTL0 of VP 0: partition, VP, VTL, and a context.
fn start(machine: &HostedMachine) -> HvStatus {
    let mut input = [0_u8; 240];
    input[..8].fill(0xff);
    input[8] = 1;
    machine.vtl0_hypercall(0, HypercallControl::new(HypercallCode::START_VIRTUAL_PROCESSOR), &input).status()
}

fn denied(machine: &HostedMachine) -> bool {
    machine.partition().denies_startup()
}

#[test]
fn the_end_of_boot_takes_the_start_of_processors_from_vtl0() {
    let machine = HostedMachine::new(HostedConfig::default());
    let before = machine.partition().partition_config().0;
    // It is running: but VTL0 may try.
    assert_eq!(start(&machine), HvStatus::INVALID_VP_STATE);
    assert_eq!(end_boot(&machine), 0);
    assert_eq!(start(&machine), HvStatus::ACCESS_DENIED);
    // And nothing else of the configuration has changed.
    assert_eq!(machine.partition().partition_config().0, before | VsmPartitionConfig::DENY_LOWER_VTL_STARTUP);
    assert_eq!(machine.partition().reports(), []);
}

/// Those that VTL1 has locked stay pinned over a reset, and may go offline and come back.
#[test]
fn vtl0_may_start_processors_again_where_all_are_locked() {
    let machine = HostedMachine::new(HostedConfig::default());
    let possible = machine.platform().config().possible_cpus;
    assert_eq!(possible, 2);
    machine.memory().write(0x10_0000, &[3]).unwrap();
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), 0x100, 0, 0), 0);
    machine.first_entry(1).unwrap();
    for vp in 0..possible {
        assert_eq!(machine.vtl_call(vp, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    }
    assert_eq!(end_boot(&machine), 0);
    assert!(!denied(&machine));
    assert_eq!(start(&machine), HvStatus::INVALID_VP_STATE);
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn a_hypervisor_that_refuses_it_does_not_make_the_boot_fail() {
    for (code, step) in [
        (HypercallCode::GET_VP_REGISTERS, 0),
        (HypercallCode::GET_VP_REGISTERS, 1),
        (HypercallCode::SET_VP_REGISTERS, 0),
    ] {
        let mut machine = HostedMachine::new(HostedConfig::default());
        machine.keep_log();
        // Otherwise the end of boot begins with that.
        assert_eq!(machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
        machine.partition().inject(Injection::new(step, HvStatus::ACCESS_DENIED).of(code));
        assert_eq!(end_boot(&machine), 0);
        assert!(!denied(&machine), "{code}");
        let said = "end of boot: VTL0 can still start and reset processors";
        assert!(machine.log_lines().iter().any(|line| line.contains(said)), "{:?}", machine.log_lines());
    }
}

/// One whose capabilities do not have it is not asked.
#[test]
fn a_hypervisor_without_it_is_not_asked() {
    let mut machine = HostedMachine::new(HostedConfig::default());
    machine.keep_log();
    machine.partition().set_can_deny_startup(false);
    assert_eq!(end_boot(&machine), 0);
    assert!(!denied(&machine));
    let said = "the hypervisor cannot deny VTL0 to start and reset processors";
    assert!(machine.log_lines().iter().any(|line| line.contains(said)), "{:?}", machine.log_lines());
    assert_eq!(start(&machine), HvStatus::INVALID_VP_STATE);
}
