//! An interrupt for VTL1 at the chosen moment: between two VTL calls of VTL0, and together with one (design §4, rule 8). VTL0
//! must not notice it in any register, RAX and RCX included.

use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{al, ecx, rsp};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::Vtl;
use litebox_platform_lvbs::vsm::VSM_BASE;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::guest::PORT_DONE;
use vsm_sim::machine::{Stop, VTL0, Vtl0};
use vsm_sim::random::SplitMix;

use crate::registers::{SYNIC_VECTOR, VTL_CALL_CODE, call_snippet, count_entries};
use crate::setup::{booted, console};
use crate::state::{Fpu, Patterns, fill, set_xcr0, take};

/// What R8 then holds.
const EINVAL: u64 = Errno::Einval.to_result().cast_unsigned();
/// What a call to an unknown id leaves, whatever interrupts it.
const RESULTS: [(&str, u64); 3] = [("r8", EINVAL), ("rax", 0), ("rcx", VTL_CALL_CODE)];

fn patterns(random: &mut SplitMix) -> Patterns {
    Patterns::new(random).with("rdi", VSM_BASE - 1).with("rcx", 0)
}

fn interrupt(vtl0: &Vtl0) {
    vtl0.machine().partition().request_interrupt(0, Vtl::Vtl1, SYNIC_VECTOR);
}

/// The interrupt comes while VTL1 is in the call: before its first instruction, where the call's own entry takes it, or
/// later, so that it hits VTL0 right behind the call.
#[test]
fn machine_preserves_registers_with_a_call_and_an_interrupt_pending() -> Result<()> {
    let mut vtl0 = booted(1)?;
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    let mut random = SplitMix(0x5EED_0010);
    let snippet = call_snippet(&mut vtl0, Fpu::Avx)?;
    let entries = count_entries(&vtl0.machine());
    let mut with_the_call = 0;
    let mut behind_it = 0;
    for depth in [0, 1, 2, 5, 10, 17, 18, 19, 20, 21, 22, 30, 40, 60, 80, 100, 120] {
        let patterns = patterns(&mut random);
        patterns.write(&mut vtl0)?;
        vtl0.go_to(snippet, &SharedState::default());
        for _ in 0..=depth {
            let stop = vtl0.processor().step()?;
            ensure!(matches!(stop, Stop::Stepped(_)), "the call ended before {depth} instructions, in {stop:x?}");
        }
        let before = entries.load(SeqCst);
        interrupt(&vtl0);
        let stop = vtl0.processor().run()?;
        ensure!(stop == Stop::Done, "after {depth} instructions: {stop:x?}\n{}", console(&vtl0.machine()));
        patterns.compare(&mut vtl0, &RESULTS, false).with_context(|| format!("after {depth} instructions"))?;
        let machine = vtl0.machine();
        ensure!(machine.partition().pending_interrupt(0, Vtl::Vtl1).is_none(), "the interrupt still waits");
        match entries.load(SeqCst) - before {
            0 => with_the_call += 1,
            1 => behind_it += 1,
            more => anyhow::bail!("{more} entries for one interrupt"),
        }
    }
    ensure!(with_the_call > 3 && behind_it > 3, "{with_the_call} taken in the call, {behind_it} behind it");
    Ok(())
}

/// The interrupt hits VTL0 at an instruction between two calls.
#[test]
fn machine_preserves_registers_over_an_interrupt_between_two_calls() -> Result<()> {
    const ROUNDS: u64 = 25;
    /// Length of `out imm8, al`.
    const OUT: u8 = 2;
    let mut vtl0 = booted(1)?;
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    let mut random = SplitMix(0x5EED_0011);
    let entry = vtl0.vtl_call_entry();
    let snippet = vtl0.place(|asm| {
        fill(asm, 0, Fpu::Avx)?;
        asm.call(entry)?;
        // The host gets a word in, without a register changed.
        asm.out(u32::from(PORT_DONE), al)?;
        asm.lea(rsp, rsp + 0)?;
        asm.mov(ecx, 0)?;
        asm.call(entry)?;
        take(asm, 0, Fpu::Avx)
    })?;
    let entries = count_entries(&vtl0.machine());
    for round in 0..ROUNDS {
        let patterns = patterns(&mut random);
        patterns.write(&mut vtl0)?;
        let stop = vtl0.run_at(snippet, &SharedState::default())?;
        ensure!(stop == Stop::Done, "round {round}: the first call ended in {stop:x?}");
        let before = vtl0.processor().vcpu().shared();
        ensure!((before.r8, before.rax, before.rcx) == (EINVAL, 0, VTL_CALL_CODE), "round {round}: {before:x?}");
        let at = vtl0.processor().vcpu().state(VTL0).rip;
        vtl0.processor().vcpu().advance(VTL0, OUT);
        interrupt(&vtl0);
        let stop = vtl0.processor().run()?;
        ensure!(stop == Stop::Done, "round {round}: the second call ended in {stop:x?}\n{}", console(&vtl0.machine()));
        ensure!(vtl0.processor().vcpu().state(VTL0).rip > at, "round {round}: VTL0 did not go on");
        ensure!(entries.load(SeqCst) == round + 1, "round {round}: {} entries", entries.load(SeqCst));
        patterns.compare(&mut vtl0, &RESULTS, false).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// The same without a second call: what the first one left in RAX and RCX must outlast the interrupt.
#[test]
fn machine_preserves_rax_and_rcx_over_an_interrupt_behind_a_call() -> Result<()> {
    let mut vtl0 = booted(1)?;
    set_xcr0(&mut vtl0, Fpu::X87Only)?;
    let mut random = SplitMix(0x5EED_0012);
    let entry = vtl0.vtl_call_entry();
    let snippet = vtl0.place(|asm| {
        fill(asm, 0, Fpu::X87Only)?;
        asm.call(entry)?;
        asm.out(u32::from(PORT_DONE), al)?;
        take(asm, 0, Fpu::X87Only)
    })?;
    let entries = count_entries(&vtl0.machine());
    for round in 0..25 {
        let patterns = patterns(&mut random);
        patterns.write(&mut vtl0)?;
        ensure!(vtl0.run_at(snippet, &SharedState::default())? == Stop::Done, "round {round}: the call");
        // Other values than a call ever leaves.
        let (rax, rcx, r8) = (random.next(), random.next(), random.next());
        let state = SharedState { rax, rcx, r8, ..vtl0.processor().vcpu().shared() };
        vtl0.processor().vcpu().set_shared(&state);
        vtl0.processor().vcpu().advance(VTL0, 2);
        interrupt(&vtl0);
        ensure!(vtl0.processor().run()? == Stop::Done, "round {round}: the rest");
        ensure!(entries.load(SeqCst) == round + 1, "round {round}: {} entries", entries.load(SeqCst));
        patterns
            .compare(&mut vtl0, &[("rax", rax), ("rcx", rcx), ("r8", r8)], false)
            .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}
