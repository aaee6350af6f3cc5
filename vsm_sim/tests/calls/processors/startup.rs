//! After the end of boot VTL0 starts no processor.

use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, HypercallControl, VsmPartitionConfig};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::Injection;

use crate::setup::end_boot;

/// HvCallStartVirtualProcessor for VTL0 of VP 1, made by VTL0 of VP 0: partition, VP, VTL, and a context.
fn start(machine: &HostedMachine) -> HvStatus {
    let mut input = [0_u8; 240];
    input[..8].fill(0xff);
    input[8] = 1;
    machine.vtl0_hypercall(0, HypercallControl::new(HypercallCode::START_VIRTUAL_PROCESSOR), &input).status()
}

fn denied(machine: &HostedMachine) -> bool {
    machine.partition().partition_config().0 & VsmPartitionConfig::DENY_LOWER_VTL_STARTUP != 0
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
