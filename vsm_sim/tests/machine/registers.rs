//! VTL0 finds its registers as it left them: after calls, after intercepts, after interrupts for VTL1.
//!
//! The contract (§3) lets a call change RDI, RSI, RDX, R8, RCX and RAX. R8 is the result. The others must still hold
//! nothing of VTL1's: they come back as they were, RAX and RCX as the hypercall page's sequence left them before the
//! switch. After an intercept or an interrupt everything is as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use iced_x86::code_asm::{CodeAssembler, byte_ptr};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::{EntryReason, Vtl, msr};
use litebox_platform_lvbs::vsm::{VSM_BASE, VsmFunction as F};
use vsm_sim::engine::{Engine, SharedState};
use vsm_sim::hv::TraceEvent;
use vsm_sim::machine::{Machine, Stop, VTL0, Vtl0};
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::loader::Generation;
use vsm_sim::vtl0::memory_map::SCRATCH_START;

use crate::setup::{GENERAL_PROTECTION, booted, call, config, console, enable_others, loaded};
use crate::state::{Fpu, Patterns, fill, rflags, set_xcr0, take, xcr0};

/// The vector VTL1 has chosen for its SynIC (contract §6).
pub const SYNIC_VECTOR: u8 = 0xF3;
/// HvCallVtlCall, which the sequence of the hypercall page leaves in RCX.
pub const VTL_CALL_CODE: u64 = 0x11;

/// A snippet that fills the processor, makes a VTL call, and takes the state.
pub fn call_snippet(vtl0: &mut Vtl0, fpu: Fpu) -> Result<u64> {
    let (entry, vp) = (vtl0.vtl_call_entry(), vtl0.processor().vp());
    vtl0.place(|asm| {
        fill(asm, vp, fpu)?;
        asm.call(entry)?;
        take(asm, vp, fpu)
    })
}

/// Calls that VTL1 answers with an error, whatever the time: unknown ids (-EINVAL), calls of the other phase (-EPERM),
/// lists and masks that are not there.
fn refused_call(random: &mut SplitMix, boot: bool) -> (u64, Option<i64>) {
    let functions = [F::LockRegs, F::SignalEndOfBoot, F::ProtectMemory];
    match random.next() % 8 {
        0 => (random.next() | 1 << 40, Some(Errno::Einval.to_result())),
        1 => (VSM_BASE - 1 - random.next() % 100, Some(Errno::Einval.to_result())),
        2 => (F::OpteeMessage.id(), None),
        3 if boot => (F::ProtectMemory.id(), None),
        4 if boot => (F::EnableAPsVtl.id(), None),
        choice if !boot => {
            let function = functions[usize::try_from(choice % 3).unwrap_or(0)];
            (function.id(), Some(Errno::Eperm.to_result()))
        }
        _ => (F::BootAPs.id() | random.next() << 32 | 1 << 63, Some(Errno::Einval.to_result())),
    }
}

/// Makes `count` calls with fresh patterns each; after every one all registers are as they must be. Goes on when
/// something stops the processor meanwhile that is not VTL0's.
fn calls_preserve(vtl0: &mut Vtl0, random: &mut SplitMix, fpu: Fpu, count: u32, boot: bool) -> Result<()> {
    let snippet = call_snippet(vtl0, fpu)?;
    for number in 0..count {
        let (id, expected) = refused_call(random, boot);
        let (rcx, r8) = (0, random.next());
        let patterns = Patterns::new(random).with("rdi", id).with("rcx", rcx).with("r8", r8);
        patterns.write(vtl0)?;
        vtl0.go_to(snippet, &SharedState::default());
        loop {
            match vtl0.processor().run()? {
                Stop::Done => break,
                // An interrupt for VTL1 came just after it had looked.
                Stop::Kicked => {}
                other => bail!("call {number} ({id:#x}) ended in {other:x?}\n{}", console(&vtl0.machine())),
            }
        }
        let result = bytes::read_u64(vtl0.machine().ram(), vsm_sim::machine::guest::exchange(0) + 4096 + 7 * 8)?;
        let value = result.cast_signed();
        match expected {
            Some(errno) => ensure!(value == errno, "call {number} ({id:#x}) returned {value}, not {errno}"),
            None => ensure!((-133..0).contains(&value), "call {number} ({id:#x}) returned {value}, no errno"),
        }
        patterns
            .compare(vtl0, &[("r8", result), ("rax", rcx), ("rcx", VTL_CALL_CODE)], false)
            .with_context(|| format!("after call {number} ({id:#x})"))?;
    }
    Ok(())
}

/// VTL0's driver says less than it should of what its boot call may change, so that its compiler keeps values in registers
/// over it: R9 to R11, and CR2 in RAX (LVBS contract §11.9). Everything comes back, on each processor.
#[test]
fn machine_preserves_registers_over_the_first_return() -> Result<()> {
    let (mut vtl0, start) = loaded(config(2), Generation::G2, 2)?;
    let mut random = SplitMix(0x5EED_0009);
    first_call_preserves(&mut vtl0, &mut random, start.arguments)?;
    vtl0.check_mbec()?;
    enable_others(&mut vtl0)?;
    let mut other = vtl0.another(1)?;
    first_call_preserves(&mut other, &mut random, [0; 4])?;
    other.check_mbec()
}

fn first_call_preserves(vtl0: &mut Vtl0, random: &mut SplitMix, [rdi, rsi, rdx, r8]: [u64; 4]) -> Result<()> {
    set_xcr0(vtl0, Fpu::Avx)?;
    let snippet = call_snippet(vtl0, Fpu::Avx)?;
    let patterns =
        Patterns::new(random).with("rdi", rdi).with("rsi", rsi).with("rdx", rdx).with("r8", r8).with("rcx", 0);
    patterns.write(vtl0)?;
    let stop = vtl0.run_at(snippet, &SharedState::default())?;
    ensure!(stop == Stop::Done, "the first call ended in {stop:x?}\n{}", console(&vtl0.machine()));
    patterns.compare(vtl0, &[("r8", 0), ("rax", 0), ("rcx", VTL_CALL_CODE)], false)
}

#[test]
fn machine_preserves_registers_over_1000_calls() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let mut random = SplitMix(0x5EED_0001);
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    calls_preserve(&mut vtl0, &mut random, Fpu::Avx, 300, true)?;
    ensure!(call(&mut vtl0, F::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot");
    calls_preserve(&mut vtl0, &mut random, Fpu::Avx, 700, false)?;
    ensure!(xcr0(&mut vtl0)? == u64::from(Fpu::Avx.xcr0()), "XCR0 has changed");
    Ok(())
}

/// VTL0 may take SSE and AVX out of XCR0 between two calls: XSAVE would then not see what VTL1 must keep.
#[test]
fn machine_preserves_xmm_registers_whatever_xcr0_is() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let mut random = SplitMix(0x5EED_0002);
    for fpu in [Fpu::X87Only, Fpu::Avx, Fpu::X87Only] {
        set_xcr0(&mut vtl0, fpu)?;
        calls_preserve(&mut vtl0, &mut random, fpu, 50, true)?;
        ensure!(xcr0(&mut vtl0)? == u64::from(fpu.xcr0()), "XCR0 has changed");
    }
    Ok(())
}

/// An access that VTL1 is asked about and lets pass: a locked MSR is written with the value it has.
#[test]
fn machine_preserves_registers_over_an_intercept_that_is_let_through() -> Result<()> {
    const VALUE: u64 = 0xffff_8000_1234_5678;
    let mut vtl0 = booted(1)?;
    let mut random = SplitMix(0x5EED_0003);
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    ensure!(vtl0.write_msr(msr::LSTAR, VALUE)? == Stop::Done, "LSTAR before it is locked");
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    let snippet = vtl0.place(|asm| {
        fill(asm, 0, Fpu::Avx)?;
        asm.wrmsr()?;
        take(asm, 0, Fpu::Avx)
    })?;
    let entries = count_entries(&vtl0.machine());
    for round in 0..50 {
        // WRMSR ignores the upper halves of the three.
        let patterns = Patterns::new(&mut random);
        let half = |name: &str, low: u64| patterns.get(name) & !0xffff_ffff | low;
        let (rcx, rax, rdx) =
            (half("rcx", msr::LSTAR.into()), half("rax", VALUE & 0xffff_ffff), half("rdx", VALUE >> 32));
        let patterns = patterns.with("rcx", rcx).with("rax", rax).with("rdx", rdx);
        patterns.write(&mut vtl0)?;
        let stop = vtl0.run_at(snippet, &SharedState::default())?;
        ensure!(stop == Stop::Done, "round {round} ended in {stop:x?}\n{}", console(&vtl0.machine()));
        patterns.compare(&mut vtl0, &[], false).with_context(|| format!("round {round}"))?;
    }
    ensure!(entries.load(SeqCst) == 50, "{} interrupt entries instead of 50", entries.load(SeqCst));
    Ok(())
}

/// An access that VTL1 answers with #GP: the handler finds everything as it was at the instruction.
#[test]
fn machine_preserves_registers_over_an_intercept_that_faults() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let region = vtl0.machine().config().map.region_start;
    let mut random = SplitMix(0x5EED_0004);
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    let write = vtl0.place(|asm| {
        fill(asm, 0, Fpu::Avx)?;
        asm.mov(iced_x86::code_asm::qword_ptr(iced_x86::code_asm::rbx), iced_x86::code_asm::rsi)
    })?;
    let wrmsr = vtl0.place(|asm| {
        fill(asm, 0, Fpu::Avx)?;
        asm.wrmsr()
    })?;
    let taker = vtl0.place(|asm| take(asm, 0, Fpu::Avx))?;
    for round in 0..40 {
        let patterns = Patterns::new(&mut random).with("rbx", region + round * 0x1_0008).with("rcx", msr::LSTAR.into());
        patterns.write(&mut vtl0)?;
        let snippet = if round % 2 == 0 { write } else { wrmsr };
        match vtl0.run_at(snippet, &SharedState::default())? {
            Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION => {
                patterns.compare_stopped(&mut vtl0, exception.rflags).with_context(|| format!("round {round}"))?;
            }
            other => bail!("round {round} ended in {other:x?}"),
        }
        let stop = vtl0.run_at(taker, &SharedState::default())?;
        ensure!(stop == Stop::Done, "taking the state ended in {stop:x?}");
        patterns.compare(&mut vtl0, &[], true).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// How often VTL1 is entered for an interrupt from now on.
pub fn count_entries(machine: &Arc<Machine>) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    machine.partition().set_trace(Box::new(move |event: &TraceEvent<'_>| {
        if matches!(event, TraceEvent::Enter { reason: EntryReason::INTERRUPT, .. }) {
            counter.fetch_add(1, SeqCst);
        }
    }));
    count
}

/// Waits until `done` says so; an error after some seconds.
fn wait_until(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done() {
        ensure!(Instant::now() < limit, "waiting too long for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// An interrupt for VTL1 that arrives in the middle of VTL0's own work, which must not notice.
#[test]
fn machine_preserves_registers_over_interrupts() -> Result<()> {
    const ROUNDS: u64 = 60;
    for (seed, fpu) in [(0x5EED_0005, Fpu::Avx), (0x5EED_0006, Fpu::X87Only)] {
        let mut vtl0 = booted(1)?;
        let machine = vtl0.machine();
        set_xcr0(&mut vtl0, fpu)?;
        let mut random = SplitMix(seed);
        let patterns = Patterns::new(&mut random);
        let flag = SCRATCH_START;
        let flag_at = i32::try_from(flag)?;
        let mut place = 0;
        let snippet = vtl0.place(|asm| {
            fill(asm, 0, fpu)?;
            asm.mov(byte_ptr(flag_at), 1)?;
            let mut again = asm.create_label();
            asm.set_label(&mut again)?;
            place = asm.instructions().len();
            asm.jmp(again)
        })?;
        ensure!(place > 0, "the snippet is empty");
        let taker = vtl0.place(|asm| take(asm, 0, fpu))?;
        bytes::write_u64(machine.ram(), flag, 0)?;
        patterns.write(&mut vtl0)?;
        let entries = count_entries(&machine);
        let stop = Arc::new(AtomicBool::new(false));
        let sender = {
            let (machine, stop) = (Arc::clone(&machine), Arc::clone(&stop));
            std::thread::spawn(move || {
                let result = send_interrupts(&machine, flag, ROUNDS);
                stop.store(true, SeqCst);
                result.and(Ok(machine.engine().kick(0)?))
            })
        };
        vtl0.go_to(snippet, &SharedState::default());
        loop {
            match vtl0.processor().run()? {
                Stop::Kicked if stop.load(SeqCst) && vtl0.processor().active() == Vtl::Vtl0 => break,
                Stop::Kicked => {}
                other => bail!("the loop ended in {other:x?}\n{}", console(&machine)),
            }
        }
        sender.join().expect("the sender does not panic")?;
        let flags = rflags(&mut vtl0);
        patterns.compare_stopped(&mut vtl0, flags)?;
        let rip = vtl0.processor().vcpu().state(VTL0).rip;
        let mut code = [0; 2];
        bytes::read(machine.ram(), rip, &mut code)?;
        ensure!(rip > snippet && code == [0xEB, 0xFE], "VTL0 has left its loop: {rip:#x}");
        ensure!(entries.load(SeqCst) == ROUNDS, "{} entries for {ROUNDS} interrupts", entries.load(SeqCst));
        let end = vtl0.run_at(taker, &SharedState::default())?;
        ensure!(end == Stop::Done, "taking the state ended in {end:x?}");
        patterns.compare(&mut vtl0, &[], true)?;
    }
    Ok(())
}

/// Sends `count` interrupts to VTL1, each when the one before has been served and VTL0 runs again.
fn send_interrupts(machine: &Machine, flag: u64, count: u64) -> Result<()> {
    let ram = machine.ram().clone();
    wait_until("VTL0 in its loop", || bytes::read_u64(&ram, flag).is_ok_and(|value| value == 1))?;
    for _ in 0..count {
        machine.partition().request_interrupt(0, Vtl::Vtl1, SYNIC_VECTOR);
        machine.engine().kick(0)?;
        wait_until("the interrupt's end", || {
            machine.partition().pending_interrupt(0, Vtl::Vtl1).is_none()
                && machine.partition().active_vtl(0) == Vtl::Vtl0
        })?;
    }
    Ok(())
}

/// Interrupts that hit anywhere: between two calls, in a call's entry, while VTL1 works, at its return.
#[test]
fn machine_preserves_registers_over_calls_among_interrupts() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let mut random = SplitMix(0x5EED_0007);
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    let entries = count_entries(&machine);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = {
        let (machine, stop) = (Arc::clone(&machine), Arc::clone(&stop));
        std::thread::spawn(move || -> Result<()> {
            while !stop.load(SeqCst) {
                machine.partition().request_interrupt(0, Vtl::Vtl1, SYNIC_VECTOR);
                machine.engine().kick(0)?;
                std::thread::sleep(Duration::from_micros(300));
            }
            Ok(())
        })
    };
    let result = calls_preserve(&mut vtl0, &mut random, Fpu::Avx, 200, true);
    stop.store(true, SeqCst);
    sender.join().expect("the sender does not panic")?;
    result?;
    ensure!(entries.load(SeqCst) > 20, "only {} interrupts hit VTL0", entries.load(SeqCst));
    Ok(())
}

/// A processor's first call is its boot; VTL0 wants its registers back from that one too.
#[test]
fn machine_preserves_registers_over_the_boot_call() -> Result<()> {
    use vsm_sim::vtl0::loader::Generation;
    for generation in [Generation::G2, Generation::G3] {
        let (mut vtl0, start) = loaded(config(1), generation, 1)?;
        set_xcr0(&mut vtl0, Fpu::Avx)?;
        let snippet = call_snippet(&mut vtl0, Fpu::Avx)?;
        let [rdi, rsi, rdx, r8] = start.arguments;
        let patterns = Patterns::new(&mut SplitMix(0x5EED_0008))
            .with("rdi", rdi)
            .with("rsi", rsi)
            .with("rdx", rdx)
            .with("r8", r8)
            .with("rcx", 0);
        patterns.write(&mut vtl0)?;
        let stop = vtl0.run_at(snippet, &SharedState::default())?;
        ensure!(stop == Stop::Done, "the boot call ended in {stop:x?}\n{}", console(&vtl0.machine()));
        patterns
            .compare(&mut vtl0, &[("r8", 0), ("rax", 0), ("rcx", VTL_CALL_CODE)], false)
            .with_context(|| format!("{generation:?}"))?;
    }
    Ok(())
}

/// A page fault that VTL1 takes and mends during a call leaves another CR2, which is VTL0's register too.
#[test]
fn machine_preserves_cr2_over_a_fault_in_vtl1() -> Result<()> {
    let mut vtl0 = booted(1)?;
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    let snippet = call_snippet(&mut vtl0, Fpu::Avx)?;
    let mut random = SplitMix(0x5EED_000A);
    for depth in [20, 100, 1000] {
        let patterns = Patterns::new(&mut random).with("rdi", VSM_BASE - 1).with("rcx", 0);
        patterns.write(&mut vtl0)?;
        vtl0.go_to(snippet, &SharedState::default());
        for _ in 0..depth {
            let stop = vtl0.processor().step()?;
            ensure!(matches!(stop, Stop::Stepped(_)), "the call ended too early, in {stop:x?}");
        }
        let vcpu = vtl0.processor().vcpu();
        let shared = SharedState { cr2: random.next(), ..vcpu.shared() };
        vcpu.set_shared(&shared);
        let stop = vtl0.processor().run()?;
        ensure!(stop == Stop::Done, "the call ended in {stop:x?}\n{}", console(&vtl0.machine()));
        let results = [("r8", (-22i64).cast_unsigned()), ("rax", 0), ("rcx", VTL_CALL_CODE)];
        patterns.compare(&mut vtl0, &results, false).with_context(|| format!("after {depth} instructions"))?;
    }
    Ok(())
}

/// What is assembled above is what runs: a snippet without a call finds its own patterns.
#[test]
fn machine_register_patterns_are_found_without_a_call() -> Result<()> {
    let mut vtl0 = booted(1)?;
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    let body = |asm: &mut CodeAssembler| {
        fill(asm, 0, Fpu::Avx)?;
        take(asm, 0, Fpu::Avx)
    };
    let snippet = vtl0.place(body)?;
    let patterns = Patterns::new(&mut SplitMix(0x5EED_0009));
    patterns.write(&mut vtl0)?;
    ensure!(vtl0.run_at(snippet, &SharedState::default())? == Stop::Done, "the snippet does not end");
    patterns.compare(&mut vtl0, &[], false)?;
    // And a change of any of them is seen.
    let changed = vtl0.place(|asm| {
        fill(asm, 0, Fpu::Avx)?;
        asm.vzeroupper()?;
        take(asm, 0, Fpu::Avx)
    })?;
    patterns.write(&mut vtl0)?;
    ensure!(vtl0.run_at(changed, &SharedState::default())? == Stop::Done, "the snippet does not end");
    ensure!(patterns.compare(&mut vtl0, &[], false).is_err(), "a changed YMM register is not seen");
    Ok(())
}
