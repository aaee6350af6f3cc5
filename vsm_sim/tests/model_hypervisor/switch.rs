//! The VTL switch of the model (LVBS contract §3, §7; TLFS "VTL Entry", "VTL Exit").

use litebox_platform_lvbs::hv::HvStatus;
use litebox_platform_lvbs::hv::Vtl::{Vtl0, Vtl1};
use vsm_sim::hv::Fault::InvalidOpcode;
use vsm_sim::hv::{GuestMemory, VtlReturn};

use super::support::{ASSIST, Setup, context};

fn entry_reason(setup: &Setup) -> u32 {
    let mut bytes = [0; 4];
    setup.memory.read(ASSIST + 8, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

#[test]
fn a_call_needs_ring_0_a_zero_control_and_an_enabled_vtl() {
    let setup = Setup::new();
    let call = |vp, cpl, control| setup.partition.vtl_call(vp, cpl, control, &setup.memory);
    assert_eq!(call(0, 0, 0), Err(InvalidOpcode), "not enabled for the partition");
    setup.enable_partition_vtl(1, 1);
    assert_eq!(call(0, 0, 0), Err(InvalidOpcode), "not enabled on the processor");
    setup.enable_vp_vtl(0, &context());
    assert_eq!(call(0, 3, 0), Err(InvalidOpcode), "ring 3");
    assert_eq!(call(0, 0, 1), Err(InvalidOpcode), "reserved control bits");
    assert_eq!(setup.partition.active_vtl(0), Vtl0);
    assert_eq!(call(0, 0, 0), Ok(()));
    assert_eq!(setup.partition.active_vtl(0), Vtl1);
    assert_eq!(call(0, 0, 0), Err(InvalidOpcode), "there is no VTL2");
    assert_eq!(call(1, 0, 0), Err(InvalidOpcode), "another processor");
}

#[test]
fn a_return_needs_ring_0_a_defined_control_and_a_higher_vtl() {
    let setup = Setup::in_vtl1();
    let go = |cpl, control| setup.partition.vtl_return(0, cpl, control, &setup.memory);
    assert_eq!(go(3, 1), Err(InvalidOpcode));
    assert_eq!(go(0, 2), Err(InvalidOpcode));
    assert_eq!(go(0, 1), Ok(VtlReturn { restore: None, reenter: false }));
    assert_eq!(go(0, 1), Err(InvalidOpcode), "VTL0 has nowhere to return to");
}

#[test]
fn the_assist_page_tells_the_reason_and_keeps_rax_and_rcx() {
    let setup = Setup::in_vtl1();
    setup.write_msr(Vtl1, 0x4000_0073, ASSIST | 1).unwrap();
    setup.fast_return();
    assert_eq!(entry_reason(&setup), 0);
    setup.call();
    assert_eq!(entry_reason(&setup), 1, "VTL call");
    setup.memory.write(ASSIST + 16, &0x1111_u64.to_le_bytes()).unwrap();
    setup.memory.write(ASSIST + 24, &0x2222_u64.to_le_bytes()).unwrap();
    let returned = setup.partition.vtl_return(0, 0, 0, &setup.memory);
    assert_eq!(returned, Ok(VtlReturn { restore: Some((0x1111, 0x2222)), reenter: false }));
    setup.call();
    assert_eq!(setup.partition.vtl_return(0, 0, 1, &setup.memory).unwrap().restore, None, "fast");
    setup.partition.request_interrupt(0, Vtl1, 0xf3);
    assert!(setup.partition.interrupt_entry(0, &setup.memory));
    assert_eq!(entry_reason(&setup), 2, "interrupt");
}

#[test]
fn a_normal_return_without_an_assist_page_is_reported() {
    let setup = Setup::in_vtl1();
    assert_eq!(setup.partition.vtl_return(0, 0, 0, &setup.memory).unwrap().restore, None);
    assert_eq!(setup.reports().len(), 1);
}

#[test]
fn the_tlb_lock_ends_with_the_return() {
    let setup = Setup::in_vtl1();
    assert_eq!(setup.set(0, 0x000d_0010, 3), HvStatus::SUCCESS);
    assert!(setup.partition.secure_config(0).is_tlb_locked());
    setup.fast_return();
    assert!(!setup.partition.secure_config(0).is_tlb_locked());
    assert!(setup.partition.secure_config(0).is_mbec_enabled(), "MBEC stays");
}

#[test]
fn an_interrupt_for_vtl1_reenters_at_once_and_only_from_vtl0() {
    let setup = Setup::in_vtl1();
    setup.partition.request_interrupt(0, Vtl1, 0xf3);
    assert!(!setup.partition.interrupt_entry(0, &setup.memory), "VTL1 runs already");
    assert!(setup.partition.vtl_return(0, 0, 1, &setup.memory).unwrap().reenter);
    assert!(setup.partition.interrupt_entry(0, &setup.memory));
    assert!(setup.partition.acknowledge_interrupt(0, Vtl1, 0xf3));
    assert!(!setup.partition.vtl_return(0, 0, 1, &setup.memory).unwrap().reenter);
    assert!(!setup.partition.interrupt_entry(0, &setup.memory), "nothing waits");
    setup.partition.request_interrupt(1, Vtl1, 0xf3);
    assert!(!setup.partition.interrupt_entry(1, &setup.memory), "VTL1 is not enabled there");
}
