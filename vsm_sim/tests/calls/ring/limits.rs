//! What VTL0 can make VTL1 print, and what the end of boot says and does.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::message::{InterceptAccess, MemoryIntercept};
use litebox_platform_lvbs::hv::{HvMessage, HvRegisterName, HvStatus, HypercallCode, MessageType, Vtl};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_handlers::handle_intercept;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::{GuestMemory, Injection};

use crate::setup::end_boot;
use zerocopy::FromZeros;

/// Control word, CR0 mask, CR4 mask (LVBS contract, LOCK_REGS).
const LOCKED: (u64, u64, u64) = (0xfd_d557, 0x8001_0001, 0xffff_ffff_ffff_de3b);

fn machine() -> HostedMachine {
    let mut machine = HostedMachine::new(HostedConfig::default());
    machine.keep_log();
    machine
}

fn lines_with(machine: &HostedMachine, what: &str) -> Vec<String> {
    machine.log_lines().into_iter().filter(|line| line.contains(what)).collect()
}

#[test]
fn a_storm_of_refused_calls_costs_few_lines() {
    const STORM: u64 = 100_000;
    let machine = machine();
    for index in 0..STORM {
        // Ids that are none, all different.
        assert_eq!(machine.vtl_call(0, 0x2_0000 + index, 0, 0, 0), Errno::Einval.to_result());
    }
    let lines = lines_with(&machine, "is not a VSM call");
    assert_eq!(lines.len(), 8 + 13, "8 at first, then at 16, 32, ..., 65536");
    assert!(lines[8].ends_with("(-EINVAL) (7 more like it were not logged)"), "{}", lines[8]);
    assert!(lines.last().unwrap().contains(&format!("{:#x}", 0x2_0000 + 65_536 - 1)), "{:?}", lines.last());
    // Another processor, and another kind, are not silenced.
    machine.vtl_call(0, VsmFunction::ProtectMemory.id(), 1, 1, 0);
    assert_eq!(lines_with(&machine, "ProtectMemory").len(), 1);
}

#[test]
fn a_storm_of_violations_costs_few_lines() {
    let machine = machine();
    let mut payload = MemoryIntercept::new_zeroed();
    payload.gpa = 0x1234_5000;
    payload.header.access = InterceptAccess::WRITE;
    let message = HvMessage::new(MessageType::GPA_INTERCEPT, 0, &payload);
    for _ in 0..10_000 {
        machine.in_vtl1(0, |platform| handle_intercept(platform, 0, &message)).unwrap();
    }
    assert_eq!(lines_with(&machine, "VTL0 violation").len(), 8 + 10);
    machine.in_vtl1(0, |platform| handle_intercept(platform, 1, &message)).unwrap();
    assert_eq!(lines_with(&machine, "VP 1: VTL0 violation").len(), 1);
}

#[test]
fn a_processor_that_was_not_locked_is_locked_when_it_is_seen() {
    let machine = machine();
    machine.in_vtl1(0, |platform| {
        let context = platform.hardware().initial_vp_context(1).unwrap();
        litebox_platform_lvbs::hardware::calls::enable_vp_vtl(platform.hardware(), 1, &context).unwrap();
    });
    machine.first_entry(1).unwrap();
    assert_eq!(machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    // During boot only the processors that ask for it are locked.
    machine.vtl_call(1, VsmFunction::OpteeMessage.id(), u64::MAX, 0, 0);
    assert_eq!(machine.partition().cr_intercepts(1), (0, 0, 0));
    assert_eq!(end_boot(&machine), 0);
    assert_eq!(machine.partition().cr_intercepts(1), (0, 0, 0));
    // The hypervisor refuses at first: VTL1 goes on, and tries again.
    for failures in 0..20 {
        let code = HypercallCode::SET_VP_REGISTERS;
        machine.partition().inject(Injection::new(0, HvStatus::INSUFFICIENT_MEMORY).of(code));
        assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
        assert_eq!(machine.partition().cr_intercepts(1), (0, 0, 0), "after {failures} failures");
        machine.partition().clear_injections();
    }
    assert_eq!(lines_with(&machine, "cannot be locked").len(), 8 + 1);
    assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
    assert_eq!(machine.partition().cr_intercepts(1), LOCKED);
    assert_eq!(lines_with(&machine, "VP 1 were not locked before the end of boot; they are now").len(), 1);
    // Once.
    let calls = machine.partition().hypercall_count(HypercallCode::SET_VP_REGISTERS);
    assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
    assert_eq!(machine.partition().hypercall_count(HypercallCode::SET_VP_REGISTERS), calls);
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn a_late_lock_gives_the_processor_the_boot_processors_values() {
    use HvRegisterName as Name;
    let machine = machine();
    machine.in_vtl1(0, |platform| {
        let context = platform.hardware().initial_vp_context(1).unwrap();
        litebox_platform_lvbs::hardware::calls::enable_vp_vtl(platform.hardware(), 1, &context).unwrap();
    });
    machine.first_entry(1).unwrap();
    // SMEP and SMAP, which are pinned; MCE, which is not.
    let (supervisor, mce) = (3 << 20, 1 << 6);
    for (vp, lstar, cr4) in [(0, 0xffff_ffff_8200_0000_u64, 0xb0 | supervisor), (1, 0xffff_ffff_8200_0666, 0xb0 | mce)]
    {
        machine.partition().with_registers(vp, Vtl::Vtl0, |registers| {
            registers.load(Name::LSTAR, lstar);
            registers.load(Name::CR4, cr4);
            registers.load(Name::SYSENTER_ESP, u64::from(vp) + 1);
        });
    }
    assert_eq!(machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    assert_eq!(end_boot(&machine), 0);
    // Each hypercall on the way fails once. Without the controls nothing is locked; with them it is, and a value that the
    // hypervisor refuses is tried again.
    for step in 0..3 {
        let code = HypercallCode::SET_VP_REGISTERS;
        machine.partition().inject(Injection::new(step.min(1), HvStatus::INSUFFICIENT_MEMORY).of(code));
        if step == 0 {
            machine.partition().inject(Injection::new(0, HvStatus::INSUFFICIENT_MEMORY).of(code));
        }
        machine.vtl_call(1, 0, 0, 0, 0);
        machine.partition().clear_injections();
        let expected = if step == 0 { (0, 0, 0) } else { LOCKED };
        assert_eq!(machine.partition().cr_intercepts(1), expected, "step {step}");
    }
    machine.vtl_call(1, 0, 0, 0, 0);
    assert_eq!(machine.partition().cr_intercepts(1), LOCKED);
    let value = |name| machine.partition().with_registers(1, Vtl::Vtl0, |registers| registers.get(name));
    assert_eq!(value(Name::LSTAR).low, 0xffff_ffff_8200_0000);
    // Bits that are not pinned, and registers of its own, are left alone.
    assert_eq!(value(Name::CR4).low, 0xb0 | supervisor | mce);
    assert_eq!(value(Name::SYSENTER_ESP).low, 2);
    let locked = *machine.platform().processor(1).unwrap().locked.lock();
    assert_eq!(locked.unwrap().get(Name::LSTAR), Some(0xffff_ffff_8200_0000));
    let lines = lines_with(&machine, "VP 1 had");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("0xffffffff82000666; it has 0xffffffff82000000 now"), "{}", lines[1]);
}

#[test]
fn the_end_of_boot_never_fails_and_says_what_is_missing() {
    let machine = machine();
    assert_eq!(end_boot(&machine), 0);
    let lines = lines_with(&machine, "end of boot: registers");
    assert_eq!(
        lines,
        ["end of boot: registers of 1 of 2 possible processors locked (VTL1 locks the others as it sees them); NO \
          memory is protected: VTL0 can write its own kernel; NO certificates, symbols or patch sites: no module will load, no text be patched; no log ring: the log is on \
          COM2 only"]
    );
    // The calling processor has been locked before the boot has ended.
    assert_eq!(machine.partition().cr_intercepts(0), LOCKED);
    assert_eq!(lines_with(&machine, "end of boot:").len(), 1);
    assert_eq!(end_boot(&machine), -1, "irrevocable");
}

#[test]
fn frames_left_writable_and_executable_are_closed_and_told() {
    let machine = machine();
    let list = 0x10_0000_u64;
    // Most of RAM in three ranges; the middle one everything.
    let ranges = [(0, 0x40_0000, 3), (0x40_0000, 0x40_5000, 7), (0x50_0000, 63 << 20, 3)];
    machine.memory().write(list + 16, &3_u64.to_le_bytes()).unwrap();
    for (index, (pa, epa, attributes)) in (0..).zip(ranges) {
        for (word, value) in (0..).zip([pa, pa, epa, attributes]) {
            machine.memory().write(list + 24 + 32 * index + 8 * word, &u64::to_le_bytes(value)).unwrap();
        }
    }
    assert_eq!(machine.vtl_call(0, VsmFunction::ProtectMemory.id(), list, 3, 0), 0);
    assert_eq!(machine.vtl_call(0, VsmFunction::AllocateRingbufferMemory.id(), 1 << 20, 65536, 0), 0);
    assert_eq!(machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    assert_eq!(end_boot(&machine), 0);
    let open = "end of boot: 5 frames of the kernel were writable and executable: now only executable";
    assert_eq!(lines_with(&machine, "end of boot:").len(), 3);
    let unnamed = "end of boot: 251 frames below 0x3f00000, and what memory there is above, were named by no";
    assert_eq!(lines_with(&machine, unnamed).len(), 1);
    assert_eq!(lines_with(&machine, "; 5 frames of the kernel sealed; ").len(), 1);
    assert_eq!(lines_with(&machine, open).len(), 1);
    assert_eq!(lines_with(&machine, "registers of 1 of 2").len(), 1);
    assert_eq!(lines_with(&machine, "log ring of 64 KiB").len(), 1);
}
