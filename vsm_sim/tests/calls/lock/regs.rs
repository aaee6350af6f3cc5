//! LockRegs over the hypervisor model, and what VTL0's writes come to afterwards.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::{
    CrInterceptControl, HvMessage, HvRegisterName, HvRegisterValue, HvStatus, HypercallCode, PendingEvent, Vtl, msr,
};
use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::vtl0::control_regs::LOCKED_REGISTERS;
use vsm_handlers::handle_intercept;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::{GuestMemory, Injection, Verdict};

use crate::setup::end_boot;
use zerocopy::FromBytes;

/// Frame of a cpumask with both processors.
const MASK_GFN: u64 = 0x100;
/// CR0 mask, CR4 mask (LVBS contract, LOCK_REGS; without TSD).
const MASKS: (u64, u64) = (0x8001_0001, 0xffff_ffff_ffff_de3b);
/// Control word of the contract alone, without LDTR, and what may come to it: writes of XCR0, MISC_ENABLE and TSC_AUX.
const CONTRACT: u64 = 0x7d_d543;
const XCR0: u64 = 1 << 2;
const MISC_ENABLE: u64 = 1 << 4;
const TSC_AUX: u64 = 1 << 23;
/// Control word, CR0 mask, CR4 mask where the hypervisor can intercept all of them.
const LOCKED: (u64, u64, u64) = (CONTRACT | XCR0 | MISC_ENABLE | TSC_AUX, MASKS.0, MASKS.1);
const RIP: u64 = 0xffff_ffff_8100_0000;
const CR0: u64 = 0x8005_0033;

/// A machine whose VTL0 has register values that can be told apart.
fn machine() -> HostedMachine {
    machine_without(0)
}

/// The same, on a hypervisor that cannot intercept the accesses `lost`.
fn machine_without(lost: u64) -> HostedMachine {
    let machine = HostedMachine::new(HostedConfig::default());
    machine.partition().deny_cr_intercepts(CrInterceptControl::from_bits_retain(lost));
    machine.memory().write(MASK_GFN << 12, &[3]).unwrap();
    machine.partition().with_registers(0, Vtl::Vtl0, |registers| {
        for (value, register) in (0x1000..).zip(LOCKED_REGISTERS) {
            registers.load(register, value);
        }
        registers.load(HvRegisterName::CR0, CR0);
        registers.load(HvRegisterName::RIP, RIP);
    });
    machine.partition().with_shared_registers(0, |registers| registers.load(HvRegisterName::XFEM, 0x100b_u64));
    machine
}

fn lock(machine: &HostedMachine) -> i64 {
    machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0)
}

fn count(machine: &HostedMachine, code: HypercallCode) -> u64 {
    machine.partition().hypercall_count(code)
}

#[test]
fn all_registers_are_recorded_in_one_hypercall_and_locked_in_another() {
    let machine = machine();
    let before = [HypercallCode::GET_VP_REGISTERS, HypercallCode::SET_VP_REGISTERS].map(|code| count(&machine, code));
    assert_eq!(lock(&machine), 0);
    assert_eq!(count(&machine, HypercallCode::GET_VP_REGISTERS), before[0] + 1);
    assert_eq!(count(&machine, HypercallCode::SET_VP_REGISTERS), before[1] + 1);
    assert_eq!(machine.partition().cr_intercepts(0), LOCKED);
    let map = (*machine.platform().processor(0).unwrap().locked.lock()).unwrap();
    for (value, register) in (0x1000..).zip(LOCKED_REGISTERS) {
        let expected = if register == HvRegisterName::CR0 { CR0 } else { value };
        assert_eq!(map.get(register), Some(expected), "{register}");
    }
    // Only this processor; and once.
    assert!(machine.platform().processor(1).unwrap().locked.lock().is_none());
    assert_eq!(lock(&machine), 0);
    assert_eq!(count(&machine, HypercallCode::SET_VP_REGISTERS), before[1] + 1);
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn a_failure_at_any_step_leaves_the_processor_unlocked() {
    let machine = machine();
    let failures = [(HypercallCode::GET_VP_REGISTERS, 0..14), (HypercallCode::SET_VP_REGISTERS, 0..4)];
    for (code, elements) in failures {
        for element in elements {
            let status = HvStatus::INSUFFICIENT_MEMORY;
            machine.partition().inject(Injection::new(0, status).of(code).at_element(element));
            assert_eq!(lock(&machine), Errno::Eio.to_result(), "{code} element {element}");
            assert_eq!(machine.partition().cr_intercepts(0), (0, 0, 0), "{code} element {element}");
            assert!(machine.platform().processor(0).unwrap().locked.lock().is_none());
            machine.partition().clear_injections();
        }
    }
    assert_eq!(lock(&machine), 0);
    assert_eq!(machine.partition().cr_intercepts(0), LOCKED);
}

/// What a hypervisor does not know is left out, and nothing else; the first processor finds out, the second profits.
#[test]
fn a_hypervisor_that_cannot_intercept_everything_is_asked_for_what_it_can() {
    for missing in 0..8_u64 {
        let lost = [XCR0, MISC_ENABLE, TSC_AUX].into_iter().enumerate();
        let lost = lost.filter(|(bit, _)| missing & 1 << bit != 0).fold(0, |all, (_, bit)| all | bit);
        let machine = machine_without(lost);
        let expected = (LOCKED.0 & !lost, MASKS.0, MASKS.1);
        assert_eq!(lock(&machine), 0, "without {lost:#x}");
        assert_eq!(machine.partition().cr_intercepts(0), expected);
        let map = (*machine.platform().processor(0).unwrap().locked.lock()).unwrap();
        for (bit, register) in [
            (XCR0, HvRegisterName::XFEM),
            (MISC_ENABLE, HvRegisterName::MISC_ENABLE),
            (TSC_AUX, HvRegisterName::TSC_AUX),
        ] {
            assert_eq!(map.get(register).is_some(), lost & bit == 0, "{register} without {lost:#x}");
        }
        let before =
            [HypercallCode::GET_VP_REGISTERS, HypercallCode::SET_VP_REGISTERS].map(|code| count(&machine, code));
        machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), MASK_GFN, 0, 0);
        machine.first_entry(1).unwrap();
        let first =
            [HypercallCode::GET_VP_REGISTERS, HypercallCode::SET_VP_REGISTERS].map(|code| count(&machine, code));
        assert_eq!(machine.vtl_call(1, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
        assert_eq!(machine.partition().cr_intercepts(1), expected);
        assert_eq!(count(&machine, HypercallCode::GET_VP_REGISTERS), first[0] + 1, "before: {before:?}");
        assert_eq!(count(&machine, HypercallCode::SET_VP_REGISTERS), first[1] + 1);
        assert_eq!(machine.partition().reports(), []);
    }
}

/// Linux's KVM switches XCR0 and TSC_AUX for its guests, and a #GP there is the end of it.
#[test]
fn what_kvm_switches_is_left_alone_where_there_can_be_kvm() {
    let machine = machine();
    machine.partition().offer_virtualization();
    let before = count(&machine, HypercallCode::SET_VP_REGISTERS);
    assert_eq!(lock(&machine), 0);
    assert_eq!(machine.partition().cr_intercepts(0), (CONTRACT | MISC_ENABLE, MASKS.0, MASKS.1));
    assert_eq!(count(&machine, HypercallCode::SET_VP_REGISTERS), before + 1, "what is left out is not tried");
}

/// AMD's processors have no IA32_MISC_ENABLE: already reading it is refused.
#[test]
fn a_register_the_hypervisor_does_not_have_is_left_out() {
    // The TLFS does not say how a hypervisor says so.
    for status in [HvStatus::INVALID_PARAMETER, HvStatus::ACCESS_DENIED, HvStatus::OPERATION_DENIED, HvStatus(0x1234)] {
        let machine = machine();
        let code = HypercallCode::GET_VP_REGISTERS;
        for attempt in 0..2 {
            // The attempts with MISC_ENABLE: all, and all but XCR0.
            machine.partition().inject(Injection::new(attempt, status).of(code).at_element(12));
        }
        assert_eq!(lock(&machine), 0, "{status}");
        assert_eq!(machine.partition().cr_intercepts(0), (LOCKED.0 & !MISC_ENABLE, MASKS.0, MASKS.1), "{status}");
    }
}

/// A hypervisor that knows nothing at all is an error, after a bounded number of attempts that leave nothing.
#[test]
fn a_hypervisor_that_refuses_everything_is_an_error() {
    let machine = machine_without(u64::MAX);
    let before = count(&machine, HypercallCode::SET_VP_REGISTERS);
    assert_eq!(lock(&machine), Errno::Eio.to_result());
    assert!(count(&machine, HypercallCode::SET_VP_REGISTERS) - before <= 8 * 5);
    assert_eq!(machine.partition().cr_intercepts(0), (0, 0, 0));
    assert!(machine.platform().processor(0).unwrap().locked.lock().is_none());
}

#[test]
fn after_the_end_of_boot_vtl0_locks_no_processor_because_vtl1_has() {
    let machine = machine();
    assert_eq!(end_boot(&machine), 0);
    assert_eq!(lock(&machine), Errno::Eperm.to_result());
    assert_eq!(machine.partition().cr_intercepts(0), LOCKED);
}

/// A processor ends the boot while none is locked: its values count, and not those that another one, the boot
/// processor too, has been given since.
#[test]
fn what_a_processor_had_after_the_end_of_boot_is_never_what_others_get() {
    use HvRegisterName as Name;
    let machine = machine();
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), MASK_GFN, 0, 0), 0);
    machine.first_entry(1).unwrap();
    let (good, evil, smep) = (0xffff_ffff_8200_0000_u64, 0xffff_ffff_8200_0666_u64, 1_u64 << 20);
    // An APIC that is enabled at its place; that it is the boot processor's is its own.
    let (apic, bsp) = (0xfee0_0800_u64, 1_u64 << 8);
    machine.partition().with_registers(1, Vtl::Vtl0, |registers| {
        registers.load(Name::LSTAR, good);
        registers.load(Name::CR0, CR0);
        registers.load(Name::CR4, 0xb0 | smep);
        registers.load(Name::APIC_BASE, apic);
    });
    assert_eq!(machine.vtl_call(1, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0);
    assert_eq!(machine.partition().cr_intercepts(1), LOCKED);
    machine.partition().with_registers(0, Vtl::Vtl0, |registers| {
        registers.load(Name::LSTAR, evil);
        registers.load(Name::CR0, CR0 & !0x1_0000);
        registers.load(Name::CR4, 0xb0_u64);
        registers.load(Name::APIC_BASE, 0xabc0_0000 | bsp);
    });
    assert_eq!(lock(&machine), Errno::Eperm.to_result());
    assert_eq!(machine.partition().cr_intercepts(0), LOCKED);
    let map = (*machine.platform().processor(0).unwrap().locked.lock()).unwrap();
    for (name, value) in
        [(Name::LSTAR, good), (Name::CR0, CR0), (Name::CR4, 0xb0 | smep), (Name::APIC_BASE, apic | bsp)]
    {
        assert_eq!(register(&machine, name), value, "{name}");
        assert_eq!(map.get(name), Some(value), "{name}");
    }
    // And VTL0 cannot take it back.
    assert!(handled(&machine, write_msr(&machine, msr::LSTAR, good, evil)));
    assert!(handled(&machine, write_msr(&machine, msr::APIC_BASE, apic | bsp, 0xabc0_0000 | bsp)));
    assert_eq!(machine.partition().reports(), []);
}

/// A value that the hypervisor refuses to write does not keep the processor open, and says nothing about what the
/// hypervisor can intercept.
#[test]
fn a_late_lock_holds_whatever_values_are_refused() {
    const XD_DISABLE: u64 = 1 << 34;
    for status in [HvStatus::INVALID_REGISTER_VALUE, HvStatus::INVALID_PARAMETER, HvStatus::INSUFFICIENT_MEMORY] {
        let machine = machine();
        machine
            .partition()
            .with_registers(0, Vtl::Vtl0, |registers| registers.load(HvRegisterName::MISC_ENABLE, 0_u64));
        assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), MASK_GFN, 0, 0), 0);
        machine.first_entry(1).unwrap();
        assert_eq!(lock(&machine), 0);
        machine.partition().with_registers(1, Vtl::Vtl0, |registers| {
            let values = *machine.platform().processor(0).unwrap().locked.lock();
            values.unwrap().iter().for_each(|(name, value)| registers.load(name, value));
            registers.load(HvRegisterName::MISC_ENABLE, XD_DISABLE);
        });
        assert_eq!(end_boot(&machine), 0);
        // The first write is that of the controls, the second that of the only register that differs.
        let code = HypercallCode::SET_VP_REGISTERS;
        machine.partition().inject(Injection::new(1, status).of(code));
        assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
        machine.partition().clear_injections();
        assert_eq!(machine.partition().cr_intercepts(1), LOCKED, "{status}: locked, with all there is to lock");
        let value =
            || machine.partition().with_registers(1, Vtl::Vtl0, |registers| registers.get(HvRegisterName::MISC_ENABLE));
        assert_eq!(value().low, XD_DISABLE, "{status}");
        assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
        assert_eq!(value().low, 0, "{status}: tried again");
        let calls = count(&machine, code);
        assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
        assert_eq!(count(&machine, code), calls, "{status}: and then no more");
        assert_eq!(machine.partition().reports(), []);
    }
}

/// A processor that VTL1 locks itself gets the boot processor's pinned bits, and keeps what is its own.
#[test]
fn a_late_lock_takes_back_xd_disable_and_leaves_the_processors_number() {
    const XD_DISABLE: u64 = 1 << 34;
    let machine = machine();
    machine.partition().with_registers(0, Vtl::Vtl0, |registers| registers.load(HvRegisterName::MISC_ENABLE, 1_u64));
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), MASK_GFN, 0, 0), 0);
    machine.first_entry(1).unwrap();
    assert_eq!(lock(&machine), 0);
    machine.partition().with_registers(1, Vtl::Vtl0, |registers| {
        registers.load(HvRegisterName::MISC_ENABLE, 0x80 | XD_DISABLE);
        registers.load(HvRegisterName::TSC_AUX, 1_u64);
    });
    machine.partition().with_shared_registers(1, |registers| registers.load(HvRegisterName::XFEM, 3_u64));
    assert_eq!(end_boot(&machine), 0);
    // Any call brings it to VTL1, and it does not leave unlocked.
    assert_eq!(machine.vtl_call(1, VsmFunction::LockRegs.id(), 0, 0, 0), Errno::Eperm.to_result());
    assert_eq!(machine.partition().cr_intercepts(1), LOCKED);
    let map = (*machine.platform().processor(1).unwrap().locked.lock()).unwrap();
    let expected = [(HvRegisterName::MISC_ENABLE, 0x80), (HvRegisterName::TSC_AUX, 1), (HvRegisterName::XFEM, 3)];
    for (register, value) in expected {
        assert_eq!(map.get(register), Some(value), "{register}");
    }
    let now = machine.partition().with_registers(1, Vtl::Vtl0, |registers| registers.get(HvRegisterName::MISC_ENABLE));
    assert_eq!(now.low, 0x80);
    assert_eq!(machine.partition().reports(), []);
}

/// VTL1's handling of the intercept that waits: whether VTL0 gets a #GP.
fn handled(machine: &HostedMachine, verdict: Verdict) -> bool {
    assert_eq!(verdict, Verdict::Intercepted);
    let simp = machine.partition().msr_read(0, Vtl::Vtl1, msr::SIMP).unwrap() & !0xfff;
    let mut slot = [0; HvMessage::SIZE];
    machine.memory().read(simp, &mut slot).unwrap();
    machine.in_vtl1(0, |platform| handle_intercept(platform, 0, &HvMessage::read_from_bytes(&slot).unwrap())).unwrap();
    machine.memory().write(simp, &[0; HvMessage::SIZE]).unwrap();
    machine.partition().take_pending_event(0, Vtl::Vtl0) == Some(PendingEvent::GENERAL_PROTECTION)
}

fn instruction() -> vsm_sim::hv::Instruction {
    vsm_sim::hv::Instruction { rip: RIP, length: 3, cr8: 0xf, ..Default::default() }
}

fn register(machine: &HostedMachine, name: HvRegisterName) -> u64 {
    machine.partition().with_registers(0, Vtl::Vtl0, |registers| registers.get(name)).low
}

fn write_register(machine: &HostedMachine, name: HvRegisterName, old: u64, new: u64) -> Verdict {
    let (old, new) = (HvRegisterValue::from_u64(old), HvRegisterValue::from_u64(new));
    machine.partition().register_write(0, name, old, new, &instruction(), machine.memory())
}

fn write_msr(machine: &HostedMachine, number: u32, old: u64, new: u64) -> Verdict {
    machine.partition().msr_write_access(0, number, old, new, &instruction(), machine.memory())
}

#[test]
fn a_locked_register_keeps_its_value_and_the_violator_gets_a_general_protection_fault() {
    let machine = machine();
    assert_eq!(lock(&machine), 0);
    // Write protection off.
    assert!(handled(&machine, write_register(&machine, HvRegisterName::CR0, CR0, CR0 & !0x1_0000)));
    assert_eq!(register(&machine, HvRegisterName::CR0), CR0);
    assert!(handled(&machine, write_msr(&machine, msr::LSTAR, 0x1002, 0x666)));
    assert!(handled(&machine, write_register(&machine, HvRegisterName::IDTR, 0, 0x666)));
    assert_eq!(register(&machine, HvRegisterName::RIP), RIP, "a faulting instruction is not stepped over");
    // The value it has: carried out, and stepped over by the instruction's length alone.
    assert!(!handled(&machine, write_msr(&machine, msr::LSTAR, 0x1002, 0x1002)));
    assert_eq!(register(&machine, HvRegisterName::LSTAR), 0x1002);
    assert_eq!(register(&machine, HvRegisterName::RIP), RIP + 3);
}

#[test]
fn a_write_the_hypervisor_refuses_is_a_general_protection_fault_too() {
    let machine = machine();
    assert_eq!(lock(&machine), 0);
    let verdict = write_msr(&machine, msr::EFER, 0x1006, 0x1006);
    let code = HypercallCode::SET_VP_REGISTERS;
    machine.partition().inject(Injection::new(0, HvStatus::INVALID_REGISTER_VALUE).of(code));
    assert!(handled(&machine, verdict));
    assert_eq!(register(&machine, HvRegisterName::RIP), RIP);
}
