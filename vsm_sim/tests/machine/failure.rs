//! A broken VTL1 says so, raises #GP in VTL0, and leaves no processor hanging (design §4, rule 7).
//!
//! VTL1 is broken from outside, while it serves a call: an exception is injected between two of its instructions, or its
//! registers are changed.

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::{Event, EventKind, PrivateState, SharedState};
use vsm_sim::machine::{Processor, Stop, VTL1, Vtl0};
use vsm_sim::random::SplitMix;

use crate::setup::{GENERAL_PROTECTION, booted, call, console, must_fault, start_others};
use crate::state::{Fpu, Patterns, fill, set_xcr0, take};

/// No call: VTL1 refuses it after a walk through its entry, dispatch and log.
const NO_CALL: u64 = 0x1_ffdf;

fn exception(vector: u8, error_code: Option<u32>) -> Event {
    Event { vector, kind: EventKind::Exception, error_code }
}

/// Steps into a call, `steps` instructions deep.
fn into_call(vtl0: &mut Vtl0, id: u64, steps: u32) -> Result<()> {
    let registers = vtl0.call_registers(id, 0, 0, 0);
    vtl0.go_to(vtl0.call_site(), &registers);
    for _ in 0..=steps {
        let stop = vtl0.processor().step()?;
        ensure!(matches!(stop, Stop::Stepped(_)), "the call ended too early, in {stop:x?}");
    }
    Ok(())
}

/// Breaks VTL1 in the middle of a call of `vtl0`; it must print `name` with the address that `at` gives, and all must
/// get errors from then on.
fn breaks(vps: u32, steps: u32, name: &str, act: impl FnOnce(&mut Processor) -> Result<Option<u64>>) -> Result<()> {
    let mut vtl0 = booted(vps)?;
    let machine = vtl0.machine();
    let mut others = start_others(&mut vtl0)?;
    into_call(&mut vtl0, NO_CALL, steps)?;
    let rip = act(vtl0.processor())?;
    let stop = vtl0.processor().run().with_context(|| console(&machine))?;
    let lines = console(&machine);
    let Stop::Exception(raised) = stop else { bail!("{name}: VTL0's call ended in {stop:x?}\n{lines}") };
    ensure!(raised.vector == GENERAL_PROTECTION && raised.error == 0, "{name}: VTL0 got {raised:x?}");
    ensure!(
        vtl0.processor().vcpu().shared().r8 == Errno::Eio.to_result().cast_unsigned(),
        "{name}: the call's result is no -EIO"
    );
    let printed = machine.console_lines();
    let start = printed.iter().position(|line| line.starts_with("vtl1: panic: ")).context(lines.clone())?;
    let text = printed[start..].join(" ");
    ensure!(text.contains(&format!("({name}) in VTL1")), "the exception's name is missing\n{lines}");
    if let Some(rip) = rip {
        ensure!(text.contains(&format!("rip {rip:#x} ")), "the address {rip:#x} is missing\n{lines}");
    }
    for vtl0 in std::iter::once(&mut vtl0).chain(&mut others) {
        for function in [F::LockRegs, F::SignalEndOfBoot] {
            let result = call(vtl0, function, [0; 3]).with_context(|| console(&machine))?;
            ensure!(result == Errno::Eio.to_result(), "{name}: VP {} gets {result} afterwards", vtl0.processor().vp());
        }
        // Its memory stays closed, and the attempt to reach it stays answered.
        let registers = SharedState { rbx: machine.config().map.region_start, ..SharedState::default() };
        must_fault(vtl0, "reading VTL1's memory after its end", &registers, |asm| {
            use iced_x86::code_asm::{qword_ptr, rax, rbx};
            asm.mov(rax, qword_ptr(rbx))
        })?;
    }
    Ok(())
}

fn inject(event: Event) -> impl FnOnce(&mut Processor) -> Result<Option<u64>> {
    move |processor| {
        let rip = processor.vcpu().state(VTL1).rip;
        processor.vcpu().inject(VTL1, event);
        Ok(Some(rip))
    }
}

fn change(act: impl FnOnce(&mut PrivateState)) -> impl FnOnce(&mut Processor) -> Result<Option<u64>> {
    move |processor| {
        let mut state = processor.vcpu().state(VTL1);
        act(&mut state);
        processor.vcpu().set_state(VTL1, &state);
        Ok(None)
    }
}

/// At every depth of the call: in the assembly of the entry, in the dispatch, in the log with its lock held.
const DEPTHS: [u32; 4] = [3, 60, 170, 1500];

#[test]
fn machine_reports_a_machine_check() -> Result<()> {
    for depth in DEPTHS {
        breaks(2, depth, "#MC", inject(exception(18, None))).with_context(|| format!("after {depth} instructions"))?;
    }
    Ok(())
}

#[test]
fn machine_names_the_call_that_it_broke_in() -> Result<()> {
    for function in [F::LockRegs, F::PatchText] {
        let mut vtl0 = booted(1)?;
        into_call(&mut vtl0, function.id(), 170)?;
        vtl0.processor().vcpu().inject(VTL1, exception(18, None));
        vtl0.processor().run()?;
        let (lines, words) = (console(&vtl0.machine()), format!("the latest call of VP 0 is {}", function.name()));
        ensure!(lines.contains(&format!("vtl1: panic: {words}")), "{lines}");
    }
    Ok(())
}

#[test]
fn machine_reports_an_invalid_instruction() -> Result<()> {
    for depth in DEPTHS {
        breaks(2, depth, "#UD", inject(exception(6, None))).with_context(|| format!("after {depth} instructions"))?;
    }
    Ok(())
}

#[test]
fn machine_reports_a_page_fault() -> Result<()> {
    // A jump to nowhere: the fault's address is its RIP.
    breaks(2, 80, "#PF", |processor| {
        change(|state| state.rip = 0xdead_0000)(processor)?;
        Ok(Some(0xdead_0000))
    })?;
    // Code that VTL1 has not: its own stack, its data.
    breaks(1, 80, "#PF", |processor| {
        let stack = processor.vcpu().state(VTL1).rsp;
        change(|state| state.rip = stack)(processor)?;
        Ok(Some(stack))
    })
}

/// A stack that grows into its guard page: the fault is handled on a stack of its own.
#[test]
fn machine_reports_a_stack_overflow() -> Result<()> {
    let guard = |processor: &mut Processor| {
        // Downwards from where the stack is, to the last page that is mapped.
        let mut page = processor.vcpu().state(VTL1).rsp & !0xfff;
        while processor.vcpu().translate(VTL1, page - 4096).is_some() {
            page -= 4096;
        }
        page
    };
    for left in [0, 8, 16, 64] {
        breaks(2, 60, "#PF", |processor| {
            let rsp = guard(processor) + left;
            change(|state| state.rsp = rsp)(processor)
        })
        .with_context(|| format!("{left} bytes left"))?;
    }
    Ok(())
}

/// A stack pointer that is no address: not even the frame of the first fault can be written.
#[test]
fn machine_reports_a_double_fault() -> Result<()> {
    breaks(2, 60, "#DF", change(|state| state.rsp = 0x1234_5678_9abc_def0))
}

/// A non-maskable interrupt is no reason to end, wherever it hits.
#[test]
fn machine_survives_nmis() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    // The long ones first: a refused call that is no longer logged has just over 200 instructions.
    for depth in [500, 1000, 2000].into_iter().chain((0..180).step_by(6)) {
        into_call(&mut vtl0, NO_CALL, depth)?;
        let before = vtl0.processor().vcpu().state(VTL1).rip;
        vtl0.processor().vcpu().inject(VTL1, Event { vector: 2, kind: EventKind::Nmi, error_code: None });
        let stop = vtl0.processor().run()?;
        let result = vtl0.processor().vcpu().shared().r8.cast_signed();
        ensure!(
            stop == Stop::Done && result == Errno::Einval.to_result(),
            "an NMI at {before:#x} ended the call in {stop:x?} with {result}\n{}",
            console(&machine)
        );
    }
    ensure!(call(&mut vtl0, F::SignalEndOfBoot, [0; 3])? == 0, "VTL1 is no more");
    Ok(())
}

/// An exception that hits the processor while it handles one: the #MC stack and the #PF stack are two.
#[test]
fn machine_reports_a_machine_check_during_a_stack_overflow() -> Result<()> {
    breaks(1, 60, "#MC", |processor| {
        let mut page = processor.vcpu().state(VTL1).rsp & !0xfff;
        while processor.vcpu().translate(VTL1, page - 4096).is_some() {
            page -= 4096;
        }
        change(|state| state.rsp = page)(processor)?;
        // Until the fault's handler runs, on another stack.
        for _ in 0..100 {
            let rsp = processor.vcpu().state(VTL1).rsp;
            if !(page - 4096..page + (8 << 12)).contains(&rsp) {
                return inject(exception(18, None))(processor);
            }
            processor.step()?;
        }
        bail!("the stack overflow does not change stacks")
    })
}

/// Nothing of VTL1 is left in VTL0's registers, and its memory stays closed.
#[test]
fn machine_leaves_no_trace_of_vtl1_in_vtl0s_registers_after_a_panic() -> Result<()> {
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    let entry = vtl0.vtl_call_entry();
    let patterns = Patterns::new(&mut SplitMix(0x5EED_0009)).with("rdi", NO_CALL).with("rcx", 0);
    set_xcr0(&mut vtl0, Fpu::Avx)?;
    patterns.write(&mut vtl0)?;
    let snippet = vtl0.place(|asm| {
        fill(asm, 0, Fpu::Avx)?;
        asm.call(entry)
    })?;
    vtl0.go_to(snippet, &SharedState::default());
    for _ in 0..300 {
        let stop = vtl0.processor().step()?;
        ensure!(matches!(stop, Stop::Stepped(_)), "the call ended too early, in {stop:x?}");
    }
    vtl0.processor().vcpu().inject(VTL1, exception(6, None));
    let stop = vtl0.processor().run()?;
    let Stop::Exception(raised) = stop else { bail!("{stop:x?}\n{}", console(&machine)) };
    ensure!(raised.vector == GENERAL_PROTECTION, "{raised:x?}");
    let now = vtl0.processor().vcpu().shared();
    for (name, value) in [
        ("rbx", now.rbx),
        ("rdx", now.rdx),
        ("rsi", now.rsi),
        ("rdi", now.rdi),
        ("rbp", now.rbp),
        ("r9", now.r9),
        ("r10", now.r10),
        ("r11", now.r11),
        ("r12", now.r12),
        ("r13", now.r13),
        ("r14", now.r14),
        ("r15", now.r15),
    ] {
        ensure!(value == patterns.get(name), "{name} is {value:#x}");
    }
    let taken = vtl0.place(|asm| take(asm, 0, Fpu::Avx))?;
    let stop = vtl0.run_at(taken, &SharedState::default())?;
    ensure!(stop == Stop::Done, "{stop:x?}");
    patterns.compare(&mut vtl0, &[], true)
}

/// VTL0 has the UART's ports too. Another speed garbles none of VTL1's lines: VTL1 sets the port up for each.
#[test]
fn machine_prints_its_lines_whatever_vtl0_has_made_of_the_uart() -> Result<()> {
    use iced_x86::code_asm::{al, dx};
    /// COM2's data register and its line control register, whose bit 7 makes the first one of the divisor (PC16550D data
    /// sheet).
    const DATA: u64 = 0x2f8;
    const LINE_CONTROL: u64 = 0x2fb;
    let mut vtl0 = booted(1)?;
    let machine = vtl0.machine();
    for (port, value) in [(LINE_CONTROL, 0x80), (DATA, 0x30)] {
        vtl0.must_run(&SharedState { rdx: port, rax: value, ..SharedState::default() }, |asm| asm.out(dx, al))?;
    }
    ensure!(vtl0.vtl_call(NO_CALL, 0, 0, 0)?.value == Errno::Einval.to_result(), "the call");
    let after = machine.console_lines().join("");
    ensure!(after.contains("is not a VSM call"), "garbled: {after}");
    into_call(&mut vtl0, NO_CALL, 20)?;
    vtl0.processor().vcpu().inject(VTL1, exception(6, None));
    let stop = vtl0.processor().run()?;
    ensure!(matches!(stop, Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION), "{stop:x?}");
    let printed = machine.console_lines();
    ensure!(printed.iter().any(|line| line.contains("vtl1: panic: ")), "no panic is printed:\n{}", console(&machine));
    Ok(())
}
