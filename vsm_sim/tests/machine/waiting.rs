//! A processor that waits for another one on which VTL1 fails does not wait for ever (design §4, rules 7 and 8).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::{Event, EventKind};
use vsm_sim::machine::{Stop, VTL1, Vtl0};
use vsm_sim::vtl0::lists::{List, write_list};
use vsm_sim::vtl0::ranges::boot_ranges;

use crate::setup::{GENERAL_PROTECTION, booted, call, console, start_others};

const MACHINE_CHECK: Event = Event { vector: 18, kind: EventKind::Exception, error_code: None };
/// Instructions until ProtectMemory has taken the registry: its entry takes some hundred, its list some hundred thousand.
const INTO_PROTECT_MEMORY: u32 = 3000;

fn list(vtl0: &Vtl0) -> Result<List> {
    let machine = vtl0.machine();
    let ranges = boot_ranges(&machine.config().map, 400, 7);
    vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &ranges))
}

/// Processor 0 holds the frame registry when VTL1 fails on it, processor 1 waits for it in a call to `function`: both get
/// #GP and -EIO.
fn waits(function: F) -> Result<()> {
    let mut holder = booted(2)?;
    let machine = holder.machine();
    let mut waiter = start_others(&mut holder)?.pop().context("there are two processors")?;
    let list = list(&holder)?;
    let registers = holder.call_registers(F::ProtectMemory.id(), list.pa, list.nranges, 0);
    holder.go_to(holder.call_site(), &registers);
    for _ in 0..INTO_PROTECT_MEMORY {
        let stop = holder.processor().step()?;
        ensure!(matches!(stop, Stop::Stepped(_)), "ProtectMemory ended in {stop:x?}");
    }
    let thread = std::thread::spawn(move || {
        let result = waiter.try_vtl_call(function.id(), list.pa, list.nranges, 0);
        (waiter, result)
    });
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!thread.is_finished(), "the other processor did not wait\n{}", console(&machine));
    holder.processor().vcpu().inject(VTL1, MACHINE_CHECK);
    let stop = holder.processor().run()?;
    ensure!(matches!(stop, Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION), "{stop:x?}");
    let Ok((mut waiter, result)) = thread.join() else { bail!("the waiting processor's thread panicked") };
    let (stop, result) = result.with_context(|| console(&machine))?;
    ensure!(matches!(stop, Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION), "{stop:x?}");
    ensure!(result.value == Errno::Eio.to_result(), "the waiting call returned {}", result.value);
    for vtl0 in [&mut holder, &mut waiter] {
        ensure!(call(vtl0, F::LockRegs, [0; 3])? == Errno::Eio.to_result(), "VP {} is served", vtl0.processor().vp());
    }
    Ok(())
}

#[test]
fn machine_ends_the_wait_for_a_lock() -> Result<()> {
    waits(F::ProtectMemory)
}

#[test]
fn machine_ends_the_wait_of_the_end_of_boot() -> Result<()> {
    waits(F::SignalEndOfBoot)
}
