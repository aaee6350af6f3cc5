//! A second processor of VTL0 that stores into list, file and memory while the first one has the module validated: no
//! byte that nobody signed is executable, ever.

use std::sync::{Arc, Barrier};

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{al, byte_ptr, rbx, rcx};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::{Machine, Stop};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{FILE, Placed};

use crate::setup::Linux;

/// Rounds of the attack, each with a store a little later.
const ROUNDS: u64 = 120;

/// What the pages hold that must be explained.
fn explained(machine: &Machine, placed: &Placed) -> Result<Vec<(u64, Vec<u8>)>> {
    let pages = placed.memory().filter(|(kind, _)| kind.is_explained());
    pages
        .map(|(_, page)| {
            let mut now = vec![0; 4096];
            bytes::read(machine.ram(), page, &mut now)?;
            Ok((page, now))
        })
        .collect()
}

#[test]
fn machine_a_second_processor_stores_during_validation() -> Result<()> {
    let kernel = MadeUpKernel::new(300)?;
    let (mut linux, mut other) = Linux::boot(&kernel.data)?;
    let machine = linux.vtl0.machine();
    let placed = linux.place(&kernel.first, 0x80)?;
    let calm = linux.call(F::ValidateModule, &placed.ranges)?;
    ensure!(calm.value == 1 && linux.unload(1)? == 0, "{}\n{}", calm.value, linux.console());
    // Waits, then stores. Three instructions a turn would be two in the loop.
    let snippet = other.place(|asm| {
        let mut turn = asm.create_label();
        asm.set_label(&mut turn)?;
        asm.dec(rcx)?;
        asm.jnz(turn)?;
        asm.mov(byte_ptr(rbx), al)
    })?;
    let targets: Vec<u64> = [0, 2, 4, 6, FILE].iter().map(|kind| placed.pages(*kind)[0] + 0x7f0).collect();
    let (mut refused, mut faults, mut late) = (0, 0, 0);
    for round in 0..ROUNDS {
        let target = targets[usize::try_from(round)? % targets.len()];
        let mut original = [0];
        bytes::read(machine.ram(), target, &mut original)?;
        let signed = explained(&machine, &placed)?;
        let delay = 1 + calm.instructions * round / ROUNDS / 2;
        let registers =
            SharedState { rbx: target, rcx: delay, rax: u64::from(original[0] ^ 0xff), ..SharedState::default() };
        let barrier = Arc::new(Barrier::new(2));
        let (result, stop) = std::thread::scope(|scope| -> Result<_> {
            let attacker = scope.spawn({
                let barrier = Arc::clone(&barrier);
                let other = &mut other;
                move || {
                    barrier.wait();
                    other.run_at(snippet, &registers)
                }
            });
            barrier.wait();
            let result = linux.call(F::ValidateModule, &placed.ranges);
            let stop = attacker.join().expect("no panic");
            Ok((result?.value, stop?))
        })?;
        let rights = |page: u64| machine.partition().protection(page >> 12);
        let stored = match stop {
            Stop::Done => true,
            Stop::Exception(exception) if exception.vector == 13 => false,
            other => anyhow::bail!("round {round}: the attacker ended in {other:x?}"),
        };
        if result > 0 {
            for ((page, bytes), (_, now)) in signed.iter().zip(&explained(&machine, &placed)?) {
                ensure!(bytes == now, "round {round}: page {page:#x} was accepted and is not what was signed");
                ensure!(!rights(*page).contains(MapFlags::WRITE), "round {round}: page {page:#x} is writable");
            }
            if stored {
                late += 1;
            } else {
                faults += 1;
            }
            ensure!(linux.unload(result)? == 0, "round {round}");
        } else {
            ensure!([-22, -129].contains(&result) && stored, "round {round}: {result}, stored: {stored}");
            refused += 1;
        }
        for (_, page) in placed.memory() {
            ensure!(!rights(page).contains(MapFlags::KERNEL_EXECUTE), "round {round}: page {page:#x} is executable");
        }
        bytes::write(machine.ram(), target, &original).context("the byte as it was")?;
    }
    println!("{refused} modules refused for a store, {faults} stores refused, {late} stores too late or elsewhere");
    ensure!(refused > 0 && faults > 0, "the attacker comes always too early or always too late");
    Ok(())
}
