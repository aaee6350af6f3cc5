//! Figures: what VTL1 costs in instructions.
//!
//! The boot is counted by the engine; the path of one call is walked instruction by instruction, so that it can be cut at
//! the handler's first instruction and at its return. The software CPU's time means nothing, its instruction counts do.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use iced_x86::code_asm::{CodeAssembler, qword_ptr, rax, rbx};
use litebox_platform_lvbs::hv::{HypercallCode, msr};
use litebox_platform_lvbs::vsm::{VSM_BASE, VsmFunction};
use object::{Object, ObjectSymbol};

use super::Options;
use super::measure_patch::{MOST_SITES, step_cost};
use crate::engine::SharedState;
use crate::machine::{Processor, Stop, VTL1, Vtl0};
use crate::vtl0::bytes;
use crate::vtl0::lists::write_cpu_mask;

/// The call that is walked: one that succeeds and is not logged. What its handler does is counted apart.
const CALL: VsmFunction = VsmFunction::OpteeMessage;
/// A call that takes longer than this has gone wrong.
const MAX_STEPS: u64 = 100_000;

/// Instruction counts and memory use of the image.
#[derive(Clone, Debug)]
pub struct Figures {
    /// From the image's first instruction to its first VTL return.
    pub boot: u64,
    /// From VTL entry to the handler's first instruction.
    pub entry_to_handler: u64,
    /// Of the handler itself.
    pub handler: u64,
    /// From the handler's return to the VTL return.
    pub handler_to_return: u64,
    /// What a line of the log costs.
    pub log: LogCosts,
    /// What LockRegs costs.
    pub lock: LockCosts,
    /// What an intercept costs.
    pub intercept: InterceptCosts,
    /// What VTL1 says of its reserve after boot.
    pub reserve: String,
    /// What a step of a text poke costs: recorded sites, instructions from VTL entry to VTL return.
    pub patch: Vec<(usize, u64)>,
}

/// Instructions of the log, measured with a line of 53 characters: that of a refused call.
#[derive(Clone, Copy, Debug)]
pub struct LogCosts {
    /// A line to COM2.
    pub console: u64,
    /// What the ring adds to it.
    pub ring: u64,
    /// The call without its line, from VTL entry to VTL return.
    pub silent: u64,
}

/// LockRegs on the first processor, which finds out what the hypervisor can intercept, and on another one.
#[derive(Clone, Copy, Debug)]
pub struct LockCosts {
    /// Hypercalls on the first processor.
    pub first: u64,
    /// Hypercalls on another one; nothing on a machine that has none.
    pub other: Option<u64>,
    /// Instructions on the processor measured last, its log line to COM2 included.
    pub instructions: u64,
}

/// Instructions of VTL1 from the entry for an intercept to the return, without a log line.
#[derive(Clone, Copy, Debug)]
pub struct InterceptCosts {
    /// WRMSR with the value that is locked: carried out.
    pub carried_out: u64,
    /// WRMSR with another value: #GP.
    pub refused: u64,
    /// A store into VTL1's memory: #GP.
    pub memory: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "instructions from _start to the first VTL return: {}", self.boot)?;
        writeln!(f, "instructions from VTL entry to the handler's first: {}", self.entry_to_handler)?;
        writeln!(f, "instructions from the handler's return to the VTL return: {}", self.handler_to_return)?;
        writeln!(f, "(walked with {}, whose handler took {})", CALL.name(), self.handler)?;
        let LogCosts { console, ring, silent } = self.log;
        writeln!(f, "instructions of a log line to COM2: {console}, to the log ring as well: {}", console + ring)?;
        writeln!(f, "instructions of a refused call whose line is left out: {silent}")?;
        let LockCosts { first, other, instructions } = self.lock;
        write!(f, "hypercalls of LockRegs on the first processor: {first}")?;
        other.map_or(Ok(()), |other| write!(f, ", on each other one: {other}"))?;
        writeln!(f, " ({instructions} instructions)")?;
        let InterceptCosts { carried_out, refused, memory } = self.intercept;
        writeln!(f, "instructions of an intercept that is carried out: {carried_out}, of a #GP: {refused}")?;
        writeln!(f, "instructions of a #GP for an access to memory: {memory}")?;
        for (sites, instructions) in &self.patch {
            writeln!(f, "instructions of a step of PatchText with {sites} recorded sites: {instructions}")?;
        }
        writeln!(f, "reserve after boot: {}", self.reserve)
    }
}

/// Boots the image as `options` say and measures.
pub fn measure(options: &Options, image: &[u8]) -> Result<Figures> {
    let (mut vtl0, boot) = booted(options, image)?;
    let machine = vtl0.machine();
    let entry = table_entry(&vtl0, image)?;
    let [entry_to_handler, handler, handler_to_return] = walk_call(&mut vtl0, entry)?;
    let log = log_costs(&mut vtl0)?;
    let lock = lock_costs(&mut vtl0, options)?;
    let intercept = intercept_costs(&mut vtl0)?;
    let console = machine.console_lines();
    let reserve = console
        .iter()
        .rev()
        .find_map(|line| line.contains("KiB in use").then(|| line.rsplit(", ").next()).flatten())
        .context("VTL1 has not said how much of its reserve is in use")?;
    let reserve = reserve.to_owned();
    let patch = [100, 10_000, MOST_SITES].map(|sites| Ok((sites, step_cost(&mut booted(options, image)?.0, sites)?)));
    let patch = patch.into_iter().collect::<Result<_>>()?;
    Ok(Figures { boot, entry_to_handler, handler, handler_to_return, log, lock, intercept, reserve, patch })
}

/// A VTL0 whose VTL1 has booted, and the instructions that took.
fn booted(options: &Options, image: &[u8]) -> Result<(Vtl0, u64)> {
    let machine = options.machine()?;
    let mut vtl0 = Vtl0::new(&machine)?;
    let start = vtl0.prepare_vtl1(options.generation, options.cpus, image)?;
    let boot = vtl0.boot_vtl1(&start)?.instructions;
    Ok((vtl0, boot))
}

/// What the jump table in VTL1's memory holds for [`CALL`].
fn table_entry(vtl0: &Vtl0, image: &[u8]) -> Result<u64> {
    let file = object::File::parse(image)?;
    let table = file.symbol_by_name("VSM_JUMP_TABLE").context("the image has no symbol VSM_JUMP_TABLE")?;
    let machine = vtl0.machine();
    // Link addresses are offsets from the region's start (contract §2.6: the image lies at region + 2 MiB).
    let slot = machine.config().map.region_start + table.address() + (CALL.id() - VSM_BASE) * 8;
    bytes::read_u64(machine.ram(), slot)
}

/// Instructions before, in and after the handler.
fn walk_call(vtl0: &mut Vtl0, entry: u64) -> Result<[u64; 3]> {
    // A page of zeros asks which trusted operating system there is.
    let page = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let registers = vtl0.call_registers(CALL.id(), page >> 12, 0, 0);
    vtl0.go_to(vtl0.call_site(), &registers);
    let mut counts = [0; 3];
    let mut part = 0;
    let mut back = (0, 0);
    let processor = vtl0.processor();
    // The first step is the entry itself: no instruction of VTL1 has run yet.
    ensure!(matches!(processor.step()?, Stop::Stepped(_)), "VTL0's call did not reach VTL1");
    for _ in 0..MAX_STEPS {
        let (rip, rsp) = position(processor);
        if part == 0 && rip == entry {
            part = 1;
            let machine = std::sync::Arc::clone(processor.machine());
            let at = processor.vcpu().translate(VTL1, rsp).context("VTL1's stack is not mapped")?.gpa;
            back = (bytes::read_u64(machine.ram(), at)?, rsp);
        } else if part == 1 && rip == back.0 && rsp > back.1 {
            part = 2;
        }
        counts[part] += 1;
        match processor.step()? {
            Stop::Stepped(_) => {}
            Stop::Done => {
                ensure!(part == 2, "the call did not pass through its handler");
                return Ok(counts);
            }
            other => bail!("the call ended in {other:x?}"),
        }
    }
    bail!("the call did not end within {MAX_STEPS} instructions")
}

/// Makes a call that is refused: first with the console alone, then with a ring, then so often that it is not logged.
fn log_costs(vtl0: &mut Vtl0) -> Result<LogCosts> {
    const NO_CALL: u64 = VSM_BASE - 1;
    /// The tenth refusal of a kind is not logged, the first two are.
    const SILENT: usize = 10;
    let refuse = |vtl0: &mut Vtl0| -> Result<u64> { Ok(vtl0.vtl_call(NO_CALL, 0, 0, 0)?.instructions) };
    let console = refuse(vtl0)?;
    let ring = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let result = vtl0.vtl_call(VsmFunction::AllocateRingbufferMemory.id(), ring, 4096, 0)?.value;
    ensure!(result == 0, "AllocateRingbufferMemory returned {result}");
    let both = refuse(vtl0)?;
    let silent = (2..SILENT).map(|_| refuse(vtl0)).last().context("more than two calls")??;
    Ok(LogCosts { console: console - silent, ring: both - console, silent })
}

/// Hypercalls that LockRegs makes are these two kinds.
fn register_hypercalls(vtl0: &Vtl0) -> u64 {
    let machine = vtl0.machine();
    let count = |code| machine.partition().hypercall_count(code);
    count(HypercallCode::GET_VP_REGISTERS) + count(HypercallCode::SET_VP_REGISTERS)
}

fn lock_costs(vtl0: &mut Vtl0, options: &Options) -> Result<LockCosts> {
    let lock = |vtl0: &mut Vtl0| -> Result<(u64, u64)> {
        let before = register_hypercalls(vtl0);
        let result = vtl0.vtl_call(VsmFunction::LockRegs.id(), 0, 0, 0)?;
        ensure!(result.value == 0, "LockRegs returned {}", result.value);
        Ok((register_hypercalls(vtl0) - before, result.instructions))
    };
    let (first, instructions) = lock(vtl0)?;
    if options.present() == 1 {
        return Ok(LockCosts { first, other: None, instructions });
    }
    let machine = vtl0.machine();
    let mask = vtl0.with_scratch(|scratch| write_cpu_mask(machine.ram(), scratch, 0..2))?;
    let result = vtl0.vtl_call(VsmFunction::BootAPs.id(), mask, 0, 0)?.value;
    ensure!(result == 0, "BootAPs returned {result}");
    let mut other = vtl0.another(1)?;
    other.first_call()?;
    let (count, instructions) = lock(&mut other)?;
    Ok(LockCosts { first, other: Some(count), instructions })
}

/// Of VTL0 with locked registers.
fn intercept_costs(vtl0: &mut Vtl0) -> Result<InterceptCosts> {
    const GENERAL_PROTECTION: u64 = 13;
    /// By then the log has stopped to tell of each.
    const SILENT: usize = 10;
    let value =
        vtl0.must_run(&SharedState { rcx: msr::LSTAR.into(), ..SharedState::default() }, CodeAssembler::rdmsr)?;
    let value = value.rdx << 32 | value.rax & 0xffff_ffff;
    let region = vtl0.machine().config().map.region_start;
    let mut cost = |fails: bool, act: &mut dyn FnMut(&mut Vtl0) -> Result<Stop>| -> Result<u64> {
        let mut instructions = 0;
        for _ in 0..SILENT {
            let before = vtl0.processor().vtl1_instructions();
            let stop = act(vtl0)?;
            let fault = matches!(&stop, Stop::Exception(raised) if raised.vector == GENERAL_PROTECTION);
            ensure!(if fails { fault } else { stop == Stop::Done }, "ended in {stop:x?}");
            instructions = vtl0.processor().vtl1_instructions() - before;
        }
        Ok(instructions)
    };
    Ok(InterceptCosts {
        carried_out: cost(false, &mut |vtl0| vtl0.write_msr(msr::LSTAR, value))?,
        refused: cost(true, &mut |vtl0| vtl0.write_msr(msr::LSTAR, value ^ 1))?,
        memory: cost(true, &mut |vtl0| {
            let registers = SharedState { rbx: region, ..SharedState::default() };
            vtl0.run(&registers, |asm| asm.mov(qword_ptr(rbx), rax))
        })?,
    })
}

fn position(processor: &mut Processor) -> (u64, u64) {
    let state = processor.vcpu().state(VTL1);
    (state.rip, state.rsp)
}
