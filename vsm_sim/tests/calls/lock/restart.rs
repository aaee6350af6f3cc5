//! A locked processor that was offline and is started again, over the hypervisor model.

use litebox_platform_lvbs::hv::Vtl::{Vtl0, Vtl1};
use litebox_platform_lvbs::hv::{HvMessage, HvRegisterName as Name, HvRegisterValue, PendingEvent, msr};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_handlers::handle_intercept;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::{ExecutionState, GuestMemory, Instruction, Verdict};
use zerocopy::FromBytes;

use crate::setup::end_boot;

const RIP: u64 = 0x9a000;
const WP: u64 = 1 << 16;
const PG: u64 = 1 << 31;
const CR0: u64 = 0x8005_0033;
/// PSE, PAE, PGE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, CET.
const CR4: u64 = 0x00b7_0eb0;
/// The one of them that is VTL0's.
const PGE: u64 = 1 << 7;
const SMEP: u64 = 1 << 20;
const CET: u64 = 1 << 23;
const PCIDE: u64 = 1 << 17;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
const LMA: u64 = 1 << 10;
const LSTAR: u64 = 0xffff_ffff_8200_0000;
const TABLES: [Name; 3] = [Name::GDTR, Name::IDTR, Name::TR];

fn load(machine: &HostedMachine, values: &[(Name, u64)]) {
    machine.partition().with_registers(0, Vtl0, |registers| {
        for (name, value) in values {
            registers.load(*name, *value);
        }
    });
}

fn get(machine: &HostedMachine, name: Name) -> u64 {
    machine.partition().with_registers(0, Vtl0, |registers| registers.get(name)).low
}

fn tables(machine: &HostedMachine, base: u64) {
    for (name, at) in TABLES.into_iter().zip(base..) {
        load(machine, &[(name, at)]);
    }
}

/// A machine whose boot has ended, with a locked processor.
fn locked() -> HostedMachine {
    let machine = HostedMachine::new(HostedConfig::default());
    load(&machine, &[(Name::CR0, CR0), (Name::CR4, CR4), (Name::EFER, EFER), (Name::LSTAR, LSTAR)]);
    tables(&machine, 0x7000);
    assert_eq!(machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    assert_eq!(end_boot(&machine), 0);
    machine
}

/// What INIT does to VTL0's registers (Intel SDM vol. 3, table 11-1).
fn init(machine: &HostedMachine) {
    load(machine, &[(Name::CR0, 0x10), (Name::CR4, 0), (Name::EFER, 0)]);
    tables(machine, 0);
}

/// Lets VTL1 handle an access that was stopped, and return; whether VTL0 gets a #GP.
fn handled(machine: &HostedMachine, verdict: Verdict) -> bool {
    assert_eq!(verdict, Verdict::Intercepted);
    let simp = machine.partition().msr_read(0, Vtl1, msr::SIMP).unwrap() & !0xfff;
    let mut slot = [0; HvMessage::SIZE];
    machine.memory().read(simp, &mut slot).unwrap();
    machine.in_vtl1(0, |platform| {
        handle_intercept(platform, 0, &HvMessage::read_from_bytes(&slot).unwrap()).unwrap();
        vsm_handlers::before_return(platform, 0);
    });
    machine.memory().write(simp, &[0; HvMessage::SIZE]).unwrap();
    machine.partition().take_pending_event(0, Vtl0) == Some(PendingEvent::GENERAL_PROTECTION)
}

fn at(machine: &HostedMachine) -> Instruction {
    let state = match (get(machine, Name::EFER) & LMA != 0, get(machine, Name::CR0) & 1 != 0) {
        (true, _) => ExecutionState::Long,
        (_, true) => ExecutionState::Protected,
        _ => ExecutionState::Real,
    };
    Instruction { rip: RIP, length: 3, state, ..Instruction::default() }
}

/// VTL0 writes a control register, if need be with VTL1's help; false for a #GP.
fn write(machine: &HostedMachine, name: Name, value: u64) -> bool {
    let old = HvRegisterValue::from_u64(get(machine, name));
    let memory = machine.memory();
    let verdict = if name == Name::EFER {
        machine.partition().msr_write_access(0, msr::EFER, old.low, value, &at(machine), memory)
    } else {
        machine.partition().register_write(0, name, old, HvRegisterValue::from_u64(value), &at(machine), memory)
    };
    match verdict {
        Verdict::Allowed => load(machine, &[(name, value)]),
        verdict if handled(machine, verdict) => return false,
        _ => {}
    }
    // What was let through without being carried out runs again.
    if TABLES.contains(&name) {
        load(machine, &[(name, value)]);
    }
    true
}

/// The way of Linux's trampoline to the end of `cpu_init` (its `arch/x86/realmode/rm/trampoline_64.S`, `head_64.S`).
fn start(machine: &HostedMachine) {
    for name in [Name::IDTR, Name::GDTR] {
        assert!(write(machine, name, 0x9b000), "{name}");
    }
    assert!(write(machine, Name::CR0, 0x11), "PE");
    assert!(write(machine, Name::CR4, CR4 & !PCIDE & !CET));
    assert!(write(machine, Name::EFER, EFER & !LMA));
    assert!(write(machine, Name::CR0, PG | WP | 1));
    assert_ne!(get(machine, Name::EFER) & LMA, 0, "paging with LME is long mode");
    assert!(write(machine, Name::CR4, 0xb0), "PAE, PSE, PGE");
    assert!(write(machine, Name::EFER, EFER));
    assert!(write(machine, Name::CR0, CR0));
    assert!(write(machine, Name::CR4, CR4));
    for (name, value) in TABLES.into_iter().zip(0x7000..) {
        assert!(write(machine, name, value), "{name}");
    }
}

#[test]
fn linux_can_start_a_locked_processor_again_and_it_is_locked_as_before() {
    let machine = locked();
    let before = machine.partition().cr_intercepts(0);
    for _ in 0..3 {
        init(&machine);
        start(&machine);
        // With its next entry.
        machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0);
        assert_eq!(machine.partition().cr_intercepts(0), before);
        let values = [Name::CR0, Name::CR4, Name::EFER, Name::LSTAR].map(|name| get(&machine, name));
        assert_eq!(values, [CR0, CR4, EFER, LSTAR]);
        assert!(!write(&machine, Name::IDTR, 0x666) && !write(&machine, Name::CR4, CR4 & !SMEP));
    }
    assert_eq!(machine.partition().reports(), []);
}

/// Whatever VTL0 does on the way: code with paging has what protects the kernel, and system calls go where they went.
#[test]
fn a_processor_that_is_started_never_runs_with_paging_and_without_protection() {
    let machine = locked();
    init(&machine);
    let protected = |machine: &HostedMachine| {
        let [cr0, cr4, efer] = [Name::CR0, Name::CR4, Name::EFER].map(|name| get(machine, name));
        cr0 & PG == 0 || (cr0 & WP != 0 && cr4 & SMEP != 0 && efer & 1 << 11 != 0)
    };
    assert!(write(&machine, Name::GDTR, 0x666));
    // Straight to long mode with as little as it can be.
    assert!(write(&machine, Name::CR4, 1 << 5) && write(&machine, Name::EFER, 1 << 8));
    assert!(write(&machine, Name::CR0, PG | 1));
    assert!(protected(&machine), "the first instruction with paging");
    for (name, value) in [(Name::CR4, 1 << 5), (Name::CR0, PG | 1), (Name::EFER, 1 << 8)] {
        assert!(write(&machine, name, value), "{name}");
        assert!(protected(&machine), "{name}");
    }
    assert_ne!(get(&machine, Name::CR4) & CET, 0);
    // Bits that were not there before: SVME, LA57.
    assert!(!write(&machine, Name::EFER, EFER | 1 << 12) && !write(&machine, Name::CR4, CR4 | 1 << 12));
    let verdict = machine.partition().msr_write_access(0, msr::LSTAR, LSTAR, 0x666, &at(&machine), machine.memory());
    assert!(handled(&machine, verdict));
    // With other tables the start does not end; the rest stays pinned, and a call changes nothing of that.
    machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0);
    assert!(write(&machine, Name::IDTR, 0x666));
    assert!(write(&machine, Name::CR4, 1 << 5) && protected(&machine));
    // Nor with the recorded ones as long as something else is missing; VTL0 writes it, not VTL1.
    tables(&machine, 0x7000);
    machine.vtl_call(0, VsmFunction::LockRegs.id(), 0, 0, 0);
    assert!(write(&machine, Name::IDTR, 0x7001));
    for (name, value) in [(Name::CR0, CR0), (Name::EFER, EFER), (Name::CR4, CR4 & !PGE)] {
        assert!(write(&machine, name, value), "{name}");
    }
    assert!(!write(&machine, Name::IDTR, 0x666), "locked");
    assert_eq!(machine.partition().reports(), []);
}

/// A reset is known by long mode alone: the same accesses in long mode are violations.
#[test]
fn a_locked_processor_that_was_not_reset_loads_no_tables() {
    let machine = locked();
    for name in TABLES {
        assert!(!write(&machine, name, 0x666), "{name}");
    }
    assert!(!write(&machine, Name::CR4, 0xb0));
}
