//! VP registers of the model: who may reach which, and the rules of the VSM registers (LVBS contract §7, TLFS "VSM").

use litebox_platform_lvbs::hv::{HvRegisterName, HvRegisterValue, HvStatus, MapFlags, PendingEvent, Vtl};
use vsm_sim::hv::{Effect, GuestMemory, Injection};

use super::support::{INPUT, OUTPUT, Setup, context, registers_header, set_element};

const PARTITION_CONFIG: u32 = 0x000d_0007;
const SECURE_CONFIG: u32 = 0x000d_0010;
const INTERCEPT_CONTROL: u32 = 0x000e_0000;
const RIP: u32 = 0x0002_0010;

#[test]
fn the_boot_context_is_what_vtl1_starts_with() {
    let setup = Setup::in_vtl1();
    for (name, value) in [(RIP, 0x00a0_0000), (0x0002_0004, 0x0080_e000), (0x0002_0011, 2), (0x0004_0000, 0x8001_0033)]
    {
        assert_eq!(setup.get(0, name), Ok(value), "{name:#x}");
    }
    for (name, value) in [(0x0004_0002, 0x0080_2000), (0x0004_0003, 0xb0), (0x0008_0001, 0xd01)] {
        assert_eq!(setup.get(0, name), Ok(value), "{name:#x}");
    }
    let cs = setup.partition.with_registers(0, Vtl::Vtl1, |file| file.get(HvRegisterName::CS)).as_segment();
    assert_eq!((cs.selector, cs.attributes, cs.base, cs.limit), (8, 0x209b, 0, 0));
    let gdtr = setup.partition.with_registers(0, Vtl::Vtl1, |file| file.get(HvRegisterName::GDTR)).as_table();
    assert_eq!((gdtr.limit, gdtr.base), (31, 0x0080_0000));
}

#[test]
fn a_lower_vtl_cannot_reach_a_higher_ones_registers() {
    let setup = Setup::protecting();
    setup.fast_return();
    for name in [RIP, 0x0004_0000, PARTITION_CONFIG] {
        assert_eq!(setup.get(0x11, name), Err(HvStatus::ACCESS_DENIED), "{name:#x}");
        assert_eq!(setup.set(0x11, name, 0), HvStatus::ACCESS_DENIED, "{name:#x}");
    }
    for name in [PARTITION_CONFIG, SECURE_CONFIG, INTERCEPT_CONTROL, 0x000e_0001, 0x000e_0002, 0x000e_0003] {
        assert_eq!(setup.get(0, name), Err(HvStatus::ACCESS_DENIED), "{name:#x}");
        assert_eq!(setup.set(0, name, 0), HvStatus::ACCESS_DENIED, "{name:#x}");
    }
    // A VTL does not change its own running state either: it would be a way around the register intercepts.
    for name in [RIP, 0x0004_0000, 0x0004_0003, 0x0008_0001, 0x0008_0009] {
        assert_eq!(setup.set(0, name, 0x1000), HvStatus::INVALID_VP_STATE, "{name:#x}");
    }
}

#[test]
fn vtl1_writes_vtl0s_registers_and_the_machine_sees_which() {
    let setup = Setup::protecting();
    setup.partition.with_registers(0, Vtl::Vtl0, |file| file.load(HvRegisterName::CR0, 0x8005_0033));
    assert_eq!(setup.get(0x10, 0x0004_0000), Ok(0x8005_0033));
    assert_eq!(setup.set(0x10, RIP, 0xffff_ffff_8100_0003), HvStatus::SUCCESS);
    assert_eq!(setup.set(0x10, RIP, 0x8000_0000_0000), HvStatus::INVALID_REGISTER_VALUE);
    let written = setup.partition.with_registers(0, Vtl::Vtl0, vsm_sim::hv::RegisterFile::take_written);
    assert_eq!(written, [(HvRegisterName::RIP, HvRegisterValue::from_u64(0xffff_ffff_8100_0003))]);
    assert!(setup.partition.with_registers(0, Vtl::Vtl0, vsm_sim::hv::RegisterFile::take_written).is_empty());
    // The write is not an access of VTL0: no intercept, whatever is intercepted.
    assert_eq!(setup.set(0, INTERCEPT_CONTROL, 0x7f_d543), HvStatus::SUCCESS);
    assert_eq!(setup.set(0x10, 0x0004_0000, 0x8005_0033), HvStatus::SUCCESS);
    assert_eq!(setup.partition.pending_interrupt(0, Vtl::Vtl1), None);
}

#[test]
fn many_registers_go_in_one_hypercall_and_stop_at_the_first_failure() {
    let setup = Setup::protecting();
    let mut block = registers_header(0xffff_fffe, 0);
    for (name, value) in [(INTERCEPT_CONTROL, 1), (0x000e_0001, 0x8001_0001), (0x000d_0003, 5), (0x000e_0002, 7)] {
        block.extend(set_element(name, value));
    }
    assert_eq!(setup.hypercall(0x0051 | 4 << 32, &block), (HvStatus::INVALID_PARAMETER, 2));
    assert_eq!(setup.partition.cr_intercepts(0), (1, 0x8001_0001, 0));
    // Elements the previous call did not reach, by rep start index.
    setup.memory.write(INPUT + 16 + 2 * 32, &set_element(0x000e_0003, 9)).unwrap();
    assert_eq!(setup.hypercall_at(0x0051 | 4 << 32 | 2 << 48, INPUT, 0), (HvStatus::SUCCESS, 4));
    assert_eq!(setup.partition.cr_intercepts(0).2, 7);
    let mut block = registers_header(0, 0);
    for name in [INTERCEPT_CONTROL, 0x000e_0001, 0x000e_0002] {
        block.extend(name.to_le_bytes());
    }
    assert_eq!(setup.hypercall(0x0050 | 3 << 32, &block), (HvStatus::SUCCESS, 3));
    let mut values = [0; 48];
    setup.memory.read(OUTPUT, &mut values).unwrap();
    assert_eq!((values[0], values[16..20].to_vec(), values[32]), (1, vec![1, 0, 1, 0x80], 7));
    setup.partition.inject(Injection::new(0, HvStatus::TIMEOUT).at_element(2));
    assert_eq!(setup.hypercall(0x0050 | 3 << 32, &block), (HvStatus::TIMEOUT, 2));
}

#[test]
fn read_only_and_unknown_registers_are_refused_and_reported() {
    let setup = Setup::protecting();
    for name in [0x000d_0002, 0x000d_0003, 0x000d_0004, 0x000d_0006] {
        assert!(setup.get(0, name).is_ok(), "{name:#x}");
        assert_eq!(setup.set(0, name, 1), HvStatus::INVALID_PARAMETER, "{name:#x}");
    }
    for name in [0, 0x000d_0005, 0x000d_0011, 0x000e_0004, 0x0006_0008, 0xffff_ffff] {
        assert_eq!(setup.get(0, name), Err(HvStatus::INVALID_PARAMETER), "{name:#x}");
        assert_eq!(setup.set(0, name, 1), HvStatus::INVALID_PARAMETER, "{name:#x}");
    }
    assert_eq!(setup.reports().len(), 4 + 2 * 6);
}

#[test]
fn the_partition_configuration_is_write_once() {
    let setup = Setup::in_vtl1();
    assert_eq!(setup.set(0, PARTITION_CONFIG, 1 << 13), HvStatus::INVALID_REGISTER_VALUE);
    assert_eq!(setup.get(0, PARTITION_CONFIG), Ok(1 << 5), "memory is zeroed on reset by default");
    assert_eq!(setup.set(0, PARTITION_CONFIG, 0x1f), HvStatus::SUCCESS);
    assert_eq!(setup.get(0, PARTITION_CONFIG), Ok(0x1f));
    // Neither the flag nor the mask can be taken back or changed.
    for value in [0, 0x1e, 0x01, 0x1d, 0x0b] {
        assert_eq!(setup.set(0, PARTITION_CONFIG, value), HvStatus::INVALID_REGISTER_VALUE, "{value:#x}");
    }
    // What is not write-once still can.
    assert_eq!(setup.set(0, PARTITION_CONFIG, 0x1f | 1 << 5 | 1 << 6 | 1 << 9), HvStatus::SUCCESS);
    assert_eq!(setup.set(0, PARTITION_CONFIG, 0x1f | 1 << 8), HvStatus::INVALID_REGISTER_VALUE);
    assert!(setup.reports().last().unwrap().contains("beyond the model"));
}

#[test]
fn the_default_protection_holds_for_frames_nobody_mentioned() {
    let setup = Setup::in_vtl1();
    // Read and user execute: bits 0 and 2 of the mask (TLFS "Default Protection Mask").
    assert_eq!(setup.set(0, PARTITION_CONFIG, 1 | 0b0101 << 1), HvStatus::SUCCESS);
    assert_eq!(setup.partition.protection(0x123), MapFlags::READ_ONLY);
    setup.partition.take_effects();
    assert_eq!(setup.protect(0xf, &[0x123, 0x124]), (HvStatus::SUCCESS, 2));
    assert_eq!(setup.partition.protection(0x123), MapFlags::ALL);
    assert_eq!(setup.partition.protection(0x125), MapFlags::READ_ONLY);
    // What the machine is told is compressed to ranges.
    let effects = setup.partition.take_effects();
    assert_eq!(effects, [Effect::Protection { start: 0x123, end: 0x125, flags: MapFlags::ALL }]);
}

#[test]
fn mbec_for_vtl0_needs_mbec_for_the_partition() {
    let setup = Setup::new();
    assert_eq!(setup.enable_partition_vtl(1, 0), HvStatus::SUCCESS);
    assert_eq!(setup.get(0, 0x000d_0004), Ok(0x0001_0003));
    setup.enable_vp_vtl(0, &context());
    setup.call();
    assert_eq!(setup.set(0, SECURE_CONFIG, 1), HvStatus::INVALID_REGISTER_VALUE);
    assert_eq!(setup.set(0, SECURE_CONFIG, 2), HvStatus::SUCCESS);
    assert_eq!(setup.set(0, SECURE_CONFIG, 4), HvStatus::INVALID_REGISTER_VALUE);
}

#[test]
fn vtl0_sees_mbec_active_after_vtl1_has_configured_it() {
    let setup = Setup::in_vtl1();
    assert_eq!(setup.set(0, SECURE_CONFIG, 3), HvStatus::SUCCESS);
    assert_eq!(setup.get(0, 0x000d_0003), Ok(0x0003_0001), "VTL1 is active, and not restricted by MBEC");
    setup.fast_return();
    assert_eq!(setup.get(0, 0x000d_0003), Ok(0x0003_0010), "active VTL 0, MBEC active, both enabled");
}

#[test]
fn intercept_controls_have_defined_bits_only() {
    let setup = Setup::protecting();
    assert_eq!(setup.set(0, INTERCEPT_CONTROL, 0x7f_d543), HvStatus::SUCCESS);
    assert_eq!(setup.set(0, INTERCEPT_CONTROL, 1 << 29), HvStatus::INVALID_REGISTER_VALUE);
    assert_eq!(setup.get(0, INTERCEPT_CONTROL), Ok(0x7f_d543));
}

#[test]
fn an_event_for_vtl0_is_taken_once() {
    let setup = Setup::protecting();
    assert_eq!(setup.set(0x10, 0x0001_0004, 0x000d_0101), HvStatus::SUCCESS);
    assert_eq!(setup.set(0, 0x0001_0004, 0x000d_0101), HvStatus::INVALID_VP_STATE, "not for itself");
    for (what, value) in [("reserved", 0x000d_0111), ("not an exception", 0x000d_0103), ("vector", 0x0020_0001)] {
        assert_eq!(setup.set(0x10, 0x0001_0004, value), HvStatus::INVALID_REGISTER_VALUE, "{what}");
    }
    let event = setup.partition.take_pending_event(0, Vtl::Vtl0);
    assert_eq!(event, Some(PendingEvent::GENERAL_PROTECTION));
    assert_eq!(setup.partition.take_pending_event(0, Vtl::Vtl0), None);
}

#[test]
fn another_processors_live_registers_are_out_of_reach() {
    let setup = Setup::protecting();
    let mut block = registers_header(1, 0x10);
    block.extend(RIP.to_le_bytes());
    assert_eq!(setup.hypercall(0x0050 | 1 << 32, &block), (HvStatus::INVALID_VP_STATE, 0));
    let mut block = registers_header(1, 0x10);
    block.extend(0x000d_0003_u32.to_le_bytes());
    assert_eq!(setup.hypercall(0x0050 | 1 << 32, &block), (HvStatus::SUCCESS, 1));
    let mut block = registers_header(2, 0x10);
    block.extend(0x000d_0003_u32.to_le_bytes());
    assert_eq!(setup.hypercall(0x0050 | 1 << 32, &block), (HvStatus::INVALID_VP_INDEX, 0));
}
