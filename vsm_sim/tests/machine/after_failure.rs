//! Processors that come to a broken VTL1 for the first time, and a boot that fails half-way: no processor hangs (design §4,
//! rule 7).

use anyhow::{Context, Result, bail, ensure};
use iced_x86::code_asm::{qword_ptr, rax, rbx};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::{HvStatus, Vtl};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::{Event, EventKind, SharedState};
use vsm_sim::machine::{Stop, VTL1, Vtl0};
use vsm_sim::vtl0::lists::write_cpu_mask;
use vsm_sim::vtl0::loader::Generation;

use crate::setup::{GENERAL_PROTECTION, booted, call, config, console, loaded, must_fault, start_others};

const MACHINE_CHECK: Event = Event { vector: 18, kind: EventKind::Exception, error_code: None };

/// Breaks VTL1 with a machine check in a call of `vtl0`.
fn break_vtl1(vtl0: &mut Vtl0) -> Result<()> {
    let registers = vtl0.call_registers(F::LockRegs.id(), 0, 0, 0);
    vtl0.go_to(vtl0.call_site(), &registers);
    for _ in 0..100 {
        let stop = vtl0.processor().step()?;
        ensure!(matches!(stop, Stop::Stepped(_)), "the call ended in {stop:x?}");
    }
    vtl0.processor().vcpu().inject(VTL1, MACHINE_CHECK);
    match vtl0.processor().run()? {
        Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION => Ok(()),
        other => bail!("the machine check ended in {other:x?}\n{}", console(&vtl0.machine())),
    }
}

fn reads_vtl1(vtl0: &mut Vtl0) -> Result<()> {
    let registers = SharedState { rbx: vtl0.machine().config().map.region_start, ..SharedState::default() };
    must_fault(vtl0, "reading VTL1's memory", &registers, |asm| asm.mov(rax, qword_ptr(rbx)))
}

/// The first that VTL1 hears of the other processor after its end is not a call but a violation.
#[test]
fn machine_answers_violations_after_a_failure() -> Result<()> {
    let mut vtl0 = booted(2)?;
    let mut other = start_others(&mut vtl0)?.pop().context("there are two processors")?;
    break_vtl1(&mut vtl0)?;
    for _ in 0..3 {
        reads_vtl1(&mut other)?;
        reads_vtl1(&mut vtl0)?;
    }
    ensure!(call(&mut other, F::LockRegs, [0; 3])? == Errno::Eio.to_result(), "VTL1 serves calls");
    Ok(())
}

/// Makes the other processor ready for VTL1, without its first entry.
fn enable_other(vtl0: &mut Vtl0) -> Result<Vtl0> {
    let machine = vtl0.machine();
    let mask = vtl0.with_scratch(|scratch| write_cpu_mask(machine.ram(), scratch, 0..2))?;
    ensure!(call(vtl0, F::EnableAPsVtl, [mask, 0, 0])? == 0, "EnableAPsVtl\n{}", console(&machine));
    vtl0.another(1)
}

#[test]
fn machine_lets_a_processor_in_after_a_failure() -> Result<()> {
    let mut vtl0 = booted(2)?;
    let machine = vtl0.machine();
    let mut other = enable_other(&mut vtl0)?;
    break_vtl1(&mut vtl0)?;
    for entry in 0..3 {
        let result = other.vtl_call(0, 0, 0, 0).with_context(|| console(&machine))?.value;
        ensure!(result == Errno::Eio.to_result(), "entry {entry} returned {result}\n{}", console(&machine));
    }
    reads_vtl1(&mut other)
}

/// Whichever hypercall of an application processor's first entry fails, it gets #GP and -EIO, and all calls are over.
#[test]
fn machine_reports_a_processor_that_cannot_start() -> Result<()> {
    let mut failures = 0;
    loop {
        let mut vtl0 = booted(2)?;
        let machine = vtl0.machine();
        let mut other = enable_other(&mut vtl0)?;
        machine.partition().fail_hypercall_at(failures, HvStatus::INSUFFICIENT_MEMORY);
        let (stop, result) = other.try_vtl_call(0, 0, 0, 0)?;
        machine.partition().clear_injections();
        if stop == Stop::Done && result.value == 0 {
            break;
        }
        ensure!(
            matches!(stop, Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION)
                && result.value == Errno::Eio.to_result(),
            "hypercall {failures}: {stop:x?}, {result:x?}\n{}",
            console(&machine)
        );
        ensure!(console(&machine).contains("vtl1: panic: processor 1 cannot start: "), "{}", console(&machine));
        ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == Errno::Eio.to_result(), "VTL1 serves calls");
        failures += 1;
    }
    ensure!(failures >= 3, "a processor's first entry makes more than {failures} hypercalls");
    Ok(())
}

/// Whichever hypercall of the boot fails, the reason is printed, and VTL0 gets an error or, before VTL1 can return, the
/// processor halts.
#[test]
fn machine_reports_a_boot_that_fails_half_way() -> Result<()> {
    let (mut halted, mut returned) = (0, 0);
    for failure in 0.. {
        let (mut vtl0, start) = loaded(config(1), Generation::G2, 1)?;
        let machine = vtl0.machine();
        machine.partition().fail_hypercall_at(failure, HvStatus::INSUFFICIENT_MEMORY);
        let [rdi, rsi, rdx, r8] = start.arguments;
        let (stop, result) = vtl0.try_vtl_call(rdi, rsi, rdx, r8)?;
        machine.partition().clear_injections();
        let panicked = console(&machine).contains("vtl1: panic: cannot start: hypercall ");
        match stop {
            Stop::Done if result.value == 0 => {
                ensure!(!panicked, "{}", console(&machine));
                break;
            }
            Stop::Halted(Vtl::Vtl1) if panicked => halted += 1,
            Stop::Exception(raised)
                if panicked && raised.vector == GENERAL_PROTECTION && result.value == Errno::Eio.to_result() =>
            {
                returned += 1;
            }
            other => bail!("hypercall {failure}: {other:x?}, {result:x?}\n{}", console(&machine)),
        }
    }
    ensure!(halted > 0 && returned > 0, "{halted} boots halted, {returned} returned");
    Ok(())
}
