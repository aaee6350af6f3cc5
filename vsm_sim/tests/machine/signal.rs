//! BootAPs with real instructions on all processors: those that come, and one that never does (contract §4).

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::hv::ReferenceTime;
use vsm_sim::machine::Vtl0;
use vsm_sim::machine::start::{Arrival, SIGNAL};
use vsm_sim::vtl0::lists::write_cpu_mask;
use vsm_sim::vtl0::loader::Generation;

use crate::setup::{boot, call, config, console, printed};

fn mask(vtl0: &Vtl0, vps: u32) -> Result<u64> {
    let ram = vtl0.machine().ram().clone();
    vtl0.with_scratch(|scratch| write_cpu_mask(&ram, scratch, 0..vps))
}

fn others(boot_vp: &Vtl0, vps: u32) -> Result<Vec<Vtl0>> {
    (1..vps).map(|vp| boot_vp.another(vp)).collect()
}

#[test]
fn machine_calls_processors_by_their_signal() -> Result<()> {
    const VPS: u32 = 4;
    for generation in [Generation::G2, Generation::G2Prime] {
        let mut boot_vp = boot(config(VPS), generation, VPS)?;
        let machine = boot_vp.machine();
        let mask = mask(&boot_vp, VPS)?;
        if generation == Generation::G2 {
            ensure!(call(&mut boot_vp, F::EnableAPsVtl, [mask, 0, 0])? == 0, "EnableAPsVtl");
        }
        let page = boot_vp.boot_signal_page()?;
        let others = others(&boot_vp, VPS)?;
        let (result, arrivals) = boot_vp.boot_with_signal(mask, page, others).with_context(|| console(&machine))?;
        ensure!(result.value == 0, "BootAPs returned {}\n{}", result.value, console(&machine));
        let mut bytes = [0; 4096];
        vsm_sim::vtl0::bytes::read(machine.ram(), page << 12, &mut bytes)?;
        let called = usize::try_from(VPS)?;
        ensure!(bytes[..called].iter().all(|byte| *byte == SIGNAL), "{:x?}", &bytes[..called]);
        ensure!(bytes[called..].iter().all(|byte| *byte == 0), "bytes of processors that are not there have changed");
        for Arrival { mut vtl0, first } in arrivals {
            let vp = vtl0.processor().vp();
            ensure!(first.context("not called")?.value == 0, "the first call of VP {vp}");
            ensure!(printed(&machine, &format!("vtl1: processor {vp} is in VTL1")), "VP {vp} is silent");
            ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs on VP {vp}");
        }
        ensure!(machine.partition().reports().is_empty(), "beyond the TLFS: {:?}", machine.partition().reports());
    }
    Ok(())
}

#[test]
fn machine_lets_processors_of_the_third_generation_come_later() -> Result<()> {
    const VPS: u32 = 4;
    let mut boot_vp = boot(config(VPS), Generation::G3, VPS)?;
    let mask = mask(&boot_vp, VPS)?;
    ensure!(call(&mut boot_vp, F::BootAPs, [mask, u64::MAX, 0])? == 0, "BootAPs");
    for mut vtl0 in others(&boot_vp, VPS)? {
        ensure!(vtl0.first_call()?.value == 0, "the first call of VP {}", vtl0.processor().vp());
        ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    }
    Ok(())
}

/// VTL0 says that processor 2 is online, and it never comes: the call ends, and VTL1 serves the rest.
#[test]
fn machine_ends_the_wait_for_a_processor_that_never_comes() -> Result<()> {
    let mut boot_vp = boot(config(3), Generation::G2, 3)?;
    let machine = boot_vp.machine();
    // A second for each look at the clock: the software CPU is slow.
    machine.partition().set_reference_time(ReferenceTime::PerRead(10_000_000));
    let mask = mask(&boot_vp, 3)?;
    let page = boot_vp.boot_signal_page()?;
    // Processor 1 has come before: enabled with the others, and its byte not waited for.
    ensure!(call(&mut boot_vp, F::EnableAPsVtl, [mask, 0, 0])? == 0, "EnableAPsVtl");
    ensure!(boot_vp.another(1)?.first_call()?.value == 0, "the first call of VP 1");
    let (result, _) = boot_vp.boot_with_signal(mask, page, Vec::new())?;
    ensure!(result.value == Errno::Etimedout.to_result(), "BootAPs returned {}", result.value);
    ensure!(console(&machine).contains("BootAPs: VP 2 has not come to VTL1 in time"), "{}", console(&machine));
    // It comes after all, with its byte still set.
    let mut late = boot_vp.another(2)?;
    ensure!(late.first_call()?.value == 0, "the first call of VP 2");
    ensure!(call(&mut boot_vp, F::BootAPs, [mask, page, 0])? == 0, "all of them are there now");
    ensure!(call(&mut late, F::LockRegs, [0; 3])? == 0, "LockRegs on VP 2");
    Ok(())
}
