//! Several processors: enabled, started one after the other, and calling at once (contract §4, design §4 rule 8).

use std::sync::{Arc, Barrier};

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::{MapFlags, Vtl};
use litebox_platform_lvbs::vsm::{VSM_BASE, VsmFunction as F};
use vsm_sim::engine::SharedState;
use vsm_sim::machine::{MachineConfig, Stop, VTL1, Vtl0};
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::lists::{List, Range, write_cpu_mask, write_list};
use vsm_sim::vtl0::loader::Generation;

use crate::setup::{boot, booted, call, config, console, printed, small_map, start_others};

fn mask(vtl0: &Vtl0, cpus: impl Iterator<Item = u32>) -> Result<u64> {
    let ram = vtl0.machine().ram().clone();
    vtl0.with_scratch(|scratch| write_cpu_mask(&ram, scratch, cpus))
}

#[test]
fn machine_starts_2_4_and_8_processors() -> Result<()> {
    for vps in [2, 4, 8] {
        let mut boot_vp = booted(vps)?;
        let machine = boot_vp.machine();
        let mut others = start_others(&mut boot_vp).with_context(|| format!("{vps} processors"))?;
        ensure!(others.len() + 1 == usize::try_from(vps)?, "{} of {vps} processors", others.len() + 1);
        let mut stacks = Vec::new();
        for vtl0 in std::iter::once(&mut boot_vp).chain(&mut others) {
            let vp = vtl0.processor().vp();
            ensure!(call(vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs on VP {vp}\n{}", console(&machine));
            ensure!(vp == 0 || printed(&machine, &format!("vtl1: processor {vp} is in VTL1")), "VP {vp} is silent");
            // Where VTL1 waits for its next entry on this processor: a stack, a state and a TSS of its own.
            let state = vtl0.processor().vcpu().state(VTL1);
            stacks.push((state.rsp, state.gs.base, state.tr.base));
            let shared = |other: &(u64, u64, u64)| {
                other.0.abs_diff(state.rsp) < 0x4000 || other.1 == state.gs.base || other.2 == state.tr.base
            };
            let (_, earlier) = stacks.split_last().context("just pushed")?;
            ensure!(!earlier.iter().any(shared), "VP {vp} shares its stack or state: {stacks:x?}");
        }
        // Some calls are the boot processor's.
        let page = mask(&boot_vp, 0..vps)?;
        for vtl0 in &mut others {
            ensure!(call(vtl0, F::EnableAPsVtl, [page, 0, 0])? == Errno::Eperm.to_result(), "an AP may start others");
        }
        ensure!(call(&mut others[0], F::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot on VP 1");
        ensure!(
            call(&mut boot_vp, F::LockRegs, [0; 3])? == Errno::Eperm.to_result(),
            "the boot has ended on one processor only"
        );
    }
    Ok(())
}

#[test]
fn machine_enables_processors_again_without_harm() -> Result<()> {
    let mut boot_vp = booted(4)?;
    let page = mask(&boot_vp, 0..4)?;
    ensure!(call(&mut boot_vp, F::EnableAPsVtl, [page, 0, 0])? == 0, "the first time");
    ensure!(call(&mut boot_vp, F::EnableAPsVtl, [page, 0, 0])? == 0, "the second time");
    let mut others = start_others(&mut boot_vp)?;
    ensure!(call(&mut boot_vp, F::EnableAPsVtl, [page, 0, 0])? == 0, "with all of them running");
    for vtl0 in &mut others {
        ensure!(call(vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs on VP {}", vtl0.processor().vp());
    }
    Ok(())
}

#[test]
fn machine_refuses_a_mask_with_an_impossible_processor() -> Result<()> {
    let mut boot_vp = booted(4)?;
    let machine = boot_vp.machine();
    for impossible in [4, 63, 95, 4095] {
        let page = mask(&boot_vp, [0, 1, impossible].into_iter())?;
        let result = call(&mut boot_vp, F::EnableAPsVtl, [page, 0, 0])?;
        ensure!(result == Errno::Einval.to_result(), "CPU {impossible}: {result}");
        // And none of the others has been enabled.
        ensure!(!machine.partition().is_vtl_enabled(1, Vtl::Vtl1), "VP 1 is enabled in spite of the error");
    }
    // A call that VTL1 has not enabled on the processor is an invalid instruction there (TLFS HvCallVtlCall).
    let mut second = boot_vp.another(1)?;
    let (stop, _) = second.try_vtl_call(0, 0, 0, 0)?;
    ensure!(matches!(stop, Stop::Exception(exception) if exception.vector == 6), "{stop:x?}");
    Ok(())
}

/// Processors that are possible but not present get no state of their own before they come.
#[test]
fn machine_starts_the_present_of_many_possible_processors() -> Result<()> {
    let config = MachineConfig::new(small_map(96), 3);
    let mut boot_vp = boot(config, Generation::G3, 96)?;
    let mut others = start_others(&mut boot_vp)?;
    for vtl0 in &mut others {
        ensure!(call(vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    }
    Ok(())
}

/// Every processor has work of its own and finds its own results, whatever the others do.
#[test]
fn machine_serves_several_processors_at_once() -> Result<()> {
    const VPS: u32 = 4;
    const ROUNDS: u32 = 900;
    let mut boot_vp = boot(config(VPS), Generation::G2, VPS)?;
    let machine = boot_vp.machine();
    let mut all = start_others(&mut boot_vp)?;
    all.insert(0, boot_vp);
    let start = Arc::new(Barrier::new(all.len()));
    let threads: Vec<_> = all
        .into_iter()
        .map(|mut vtl0| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                let vp = vtl0.processor().vp();
                let list = one_range_list(&vtl0, vp)?;
                start.wait();
                for round in 0..ROUNDS {
                    one_round(&mut vtl0, vp, round, list).with_context(|| format!("round {round} of VP {vp}"))?;
                }
                Ok(vtl0)
            })
        })
        .collect();
    let results: Vec<Result<Vtl0>> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    for result in results {
        let mut vtl0 = result.with_context(|| console(&machine))?;
        let vp = vtl0.processor().vp();
        let gfn = own_frames(vp) >> 12;
        let flags = machine.partition().protection(gfn);
        ensure!(flags == protection_of(ROUNDS - 1), "VP {vp}'s frames are {flags} at the end");
        ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs on VP {vp}");
    }
    let reports = machine.partition().reports();
    ensure!(reports.is_empty(), "beyond the TLFS: {reports:?}");
    Ok(())
}

/// Permissions as VTL1 expresses them (contract §5.1).
fn read_only() -> MapFlags {
    MapFlags::READ | MapFlags::USER_EXECUTE
}

fn read_write() -> MapFlags {
    read_only() | MapFlags::WRITE
}

/// Sixteen frames that are one processor's to protect.
fn own_frames(vp: u32) -> u64 {
    (512 << 20) + u64::from(vp) * 0x1_0000
}

const MEM_ATTR_READ: u64 = 1;
const MEM_ATTR_WRITE: u64 = 2;

/// Lists of a processor's own frames, read-only and writable.
fn one_range_list(vtl0: &Vtl0, vp: u32) -> Result<[List; 2]> {
    let ram = vtl0.machine().ram().clone();
    let start = own_frames(vp);
    let list = |attributes| {
        let range = Range::direct(start, start + 0x1_0000, attributes);
        vtl0.with_scratch(|scratch| write_list(&ram, scratch, &[range]))
    };
    Ok([list(MEM_ATTR_READ)?, list(MEM_ATTR_READ | MEM_ATTR_WRITE)?])
}

/// Rounds from one protection to the next. VTL1 prints a line for each, and the console is slow.
const PROTECT_EVERY: u32 = 30;

/// What a processor's frames are in a round.
fn protection_of(round: u32) -> MapFlags {
    if (round / PROTECT_EVERY).is_multiple_of(2) { read_only() } else { read_write() }
}

/// One round of a processor: a call that is answered with an error, with registers that must survive, and now and then a
/// protection.
fn one_round(vtl0: &mut Vtl0, vp: u32, round: u32, lists: [List; 2]) -> Result<()> {
    if round.is_multiple_of(PROTECT_EVERY) {
        let list = lists[usize::try_from(round / PROTECT_EVERY % 2)?];
        let result = call(vtl0, F::ProtectMemory, [list.pa, list.nranges, 0])?;
        ensure!(result == 0, "ProtectMemory returned {result}");
    }
    let flags = vtl0.machine().partition().protection(own_frames(vp) >> 12);
    ensure!(flags == protection_of(round), "the frames are {flags}, not {}", protection_of(round));

    let mut random = SplitMix(u64::from(vp + 1) << 32 | u64::from(round + 1));
    let (id, expected) =
        if round % 90 == 45 { (VSM_BASE - 1, Some(Errno::Einval.to_result())) } else { (F::OpteeMessage.id(), None) };
    let mut registers = vtl0.call_registers(id, u64::MAX, 0, 0);
    for register in [&mut registers.rbx, &mut registers.rbp, &mut registers.r9, &mut registers.r12, &mut registers.r15]
    {
        *register = random.next();
    }
    let site = vtl0.call_site();
    let stop = vtl0.run_at(site, &registers)?;
    ensure!(stop == Stop::Done, "ended in {stop:x?}");
    let now = vtl0.processor().vcpu().shared();
    let kept = |state: &SharedState| [state.rbx, state.rbp, state.r9, state.r12, state.r15];
    ensure!(kept(&now) == kept(&registers), "{now:x?} instead of {registers:x?}");
    let value = now.r8.cast_signed();
    ensure!(expected.map_or(value < 0, |expected| value == expected), "call {id:#x} returned {value}");
    Ok(())
}
