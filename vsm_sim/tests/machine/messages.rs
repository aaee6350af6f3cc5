//! Intercept messages behind the first, and messages that VTL1 has not asked for (contract §6): all are fetched, none is a
//! panic, and VTL0 goes on.

use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Result, ensure};
use iced_x86::code_asm::CodeAssembler;
use litebox_platform_lvbs::hv::{HvMessage, MessageType, Vtl};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::hv::{Access, MemoryAccess, Mode, Verdict};
use vsm_sim::machine::{Stop, Vtl0};

use crate::registers::count_entries;
use crate::setup::{GENERAL_PROTECTION, booted, call, console};

/// VTL0 runs something harmless; how it ended.
fn run(vtl0: &mut Vtl0) -> Result<Stop> {
    vtl0.run(&SharedState::default(), CodeAssembler::nop)
}

fn is_general_protection(stop: &Stop) -> bool {
    matches!(stop, Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION)
}

/// Queues a violation of VTL1's memory, as the hypervisor does when VTL0 is stopped.
fn violate(vtl0: &Vtl0, gpa: u64) -> Result<()> {
    let machine = vtl0.machine();
    let mode = Mode { user: false, smep_disabled: false };
    let access = MemoryAccess { gpa, gva: None, access: Access::Write, mode };
    let verdict = machine.partition().gpa_access(0, &access, &vsm_sim::hv::Instruction::default(), machine.ram());
    ensure!(verdict == Verdict::Intercepted, "{verdict:?}");
    Ok(())
}

/// What waits for VTL1 after it has been there: nothing, and it still serves.
fn check_empty(vtl0: &mut Vtl0) -> Result<()> {
    let machine = vtl0.machine();
    ensure!(machine.partition().pending_interrupt(0, Vtl::Vtl1).is_none(), "an interrupt still waits");
    ensure!(machine.partition().queued_messages(0, Vtl::Vtl1) == 0, "messages still wait");
    ensure!(call(vtl0, F::LockRegs, [0; 3])? == 0, "VTL1 serves no calls\n{}", console(&machine));
    ensure!(machine.partition().reports().is_empty(), "beyond the TLFS: {:?}", machine.partition().reports());
    Ok(())
}

#[test]
fn machine_fetches_messages_that_wait_behind_the_first() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let region = vtl0.machine().config().map.region_start;
    for count in [1, 2, 3, 7] {
        for index in 0..count {
            violate(&vtl0, region + count * 0x1_0000 + index * 0x1000)?;
        }
        let stop = run(&mut vtl0)?;
        ensure!(is_general_protection(&stop), "{count} messages ended in {stop:x?}");
        let printed = console(&vtl0.machine());
        for index in 0..count.min(2) {
            let address = region + count * 0x1_0000 + index * 0x1000;
            // The log tells of the first eight of a kind.
            ensure!(count > 3 || printed.contains(&format!("{address:#x}; #GP")), "{address:#x}\n{printed}");
        }
        check_empty(&mut vtl0)?;
    }
    Ok(())
}

/// More than VTL1 handles in one entry: it is entered again, and at the end all are gone.
#[test]
fn machine_drains_a_storm_of_messages() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let region = vtl0.machine().config().map.region_start;
    for index in 0..100 {
        violate(&vtl0, region + index * 8)?;
    }
    let entries = count_entries(&vtl0.machine());
    ensure!(is_general_protection(&run(&mut vtl0)?), "no #GP");
    while vtl0.machine().partition().pending_interrupt(0, Vtl::Vtl1).is_some() {
        run(&mut vtl0)?;
    }
    let entries = entries.load(SeqCst);
    ensure!((7..=100).contains(&entries), "{entries} entries for 100 messages, 16 at a time");
    check_empty(&mut vtl0)?;
    ensure!(console(&vtl0.machine()).lines().count() < 40, "{}", console(&vtl0.machine()));
    Ok(())
}

/// VTL0 was stopped at something: it gets a #GP instead of being stopped there for ever.
#[test]
fn machine_answers_unknown_intercepts_with_a_general_protection_fault() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    // Unmapped GPA, I/O port, CPUID, exception, unrecoverable exception, and one that does not exist.
    for kind in [0x8000_0000, 0x8001_0000, 0x8001_0002, 0x8001_0003, 0x8000_0021, 0xffff_fff0] {
        let message = HvMessage::new(MessageType(kind), 0, &[0xff_u8; 240]);
        machine.partition().post_message(0, Vtl::Vtl1, message, machine.ram());
        let stop = run(&mut vtl0)?;
        ensure!(is_general_protection(&stop), "message {kind:#x} ended in {stop:x?}");
        check_empty(&mut vtl0)?;
    }
    ensure!(
        console(&machine).contains("message type 0x80010002, which VTL1 has not asked for; #GP"),
        "{}",
        console(&machine)
    );
    Ok(())
}

/// A type that says more than the message holds is no reason to believe the rest.
#[test]
fn machine_answers_messages_without_their_particulars_with_a_general_protection_fault() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    for kind in [MessageType::GPA_INTERCEPT, MessageType::MSR_INTERCEPT, MessageType::REGISTER_INTERCEPT] {
        let message = HvMessage::new(kind, 0, &[0_u8; 8]);
        machine.partition().post_message(0, Vtl::Vtl1, message, machine.ram());
        let stop = run(&mut vtl0)?;
        ensure!(is_general_protection(&stop), "{kind:?} ended in {stop:x?}");
        check_empty(&mut vtl0)?;
    }
    Ok(())
}

/// A message that is not from the hypervisor stops no processor.
#[test]
fn machine_ignores_messages_that_are_not_the_hypervisors() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    for kind in [1, 0x7fff_ffff] {
        let message = HvMessage::new(MessageType(kind), 0, &[0xff_u8; 240]);
        machine.partition().post_message(0, Vtl::Vtl1, message, machine.ram());
        let stop = run(&mut vtl0)?;
        ensure!(stop == Stop::Done, "message {kind:#x} ended in {stop:x?}");
        check_empty(&mut vtl0)?;
    }
    ensure!(console(&machine).contains("ignored"), "{}", console(&machine));
    Ok(())
}
