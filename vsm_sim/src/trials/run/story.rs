//! The life of a VTL0, as Linux leads it, and what an attacker in its place tries afterwards.
//!
//! The order of the calls is the contract's (§2.8, §4, §5.2). Every step says beforehand what must come of it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{qword_ptr, rax, rbx};
use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_RESERVED, VsmFunction as F};

use super::report::{Report, show_result};
use super::stage::Stage;
use super::{Heki, Options, kernel_data, story_calls, story_kexec, story_modules, story_optee, story_registers};
use crate::machine::driver::CallResult;
use crate::machine::guest::HYPERCALL_PAGE;
use crate::machine::start::Arrival;
use crate::machine::{Machine, Vtl0};
use crate::vtl0::bytes;
use crate::vtl0::lists::{Filling, List, write_cpu_mask, write_list, write_list_filled};
use crate::vtl0::loader::Generation;
use crate::vtl0::log_reader::{LogLine, LogReader};
use crate::vtl0::modules::Frames;
use crate::vtl0::ranges::{boot_ranges, kernel_ranges};
use crate::vtl0::signed::MADE_UP;

/// Size of the log ring: room for every line of a run.
const RING_BYTES: u64 = 256 << 10;

/// Pages that hold a made-up module.
const MODULE_PAGES: u64 = 32;

/// Plays the life.
pub fn play(options: &Options, image: &[u8], machine: &Arc<Machine>, report: &mut Report) -> Result<()> {
    let mut boot_vp = Vtl0::new(machine)?;
    let mut stage = Stage { machine, report, trace: options.trace, moments: options.moments };
    let start = boot_vp.prepare_vtl1(options.generation, options.cpus, image)?;
    let [rdi, rsi, rdx, r8] = start.arguments;
    let parameters = format!("rdi={rdi:#x} rsi={rsi:#x} rdx={rdx:#x}");
    stage.step(&mut boot_vp, "first VTL call", &parameters, "0", |vtl0| {
        vtl0.vtl_call(rdi, rsi, rdx, r8).map(|result| show_result(result.value))
    })?;
    boot_vp.check_mbec()?;
    let mut others = start_others(options, &mut stage, &mut boot_vp)?;

    if options.heki == Heki::Off {
        return without_heki(&mut stage, others.last_mut().unwrap_or(&mut boot_vp));
    }
    for vtl0 in std::iter::once(&mut boot_vp).chain(&mut others) {
        stage.call(vtl0, F::LockRegs, [0; 3], "0")?;
    }
    // As if it had been offline in between.
    stage.call(others.last_mut().unwrap_or(&mut boot_vp), F::LockRegs, [0; 3], "0")?;
    let ring = boot_vp.with_scratch(|scratch| scratch.pages(RING_BYTES / 4096))?;
    let mut log = RingLog { start: ring, reader: LogReader::new(usize::try_from(RING_BYTES)?), lines: Vec::new() };
    let before_ring = machine.console_lines().len();
    stage.call(&mut boot_vp, F::AllocateRingbufferMemory, [ring, RING_BYTES, 0], "0")?;
    stage.call(&mut boot_vp, F::AllocateRingbufferMemory, [ring, RING_BYTES, 0], "-EBUSY")?;
    // Over the border of two pages.
    let root_key = boot_vp.with_scratch(|scratch| scratch.pages(2))? + 4096 - 7;
    stage.call(&mut boot_vp, F::SetPlatformRootKey, [root_key, 0, 0], "0")?;
    stage.call(&mut boot_vp, F::SetPlatformRootKey, [root_key, 0, 0], "-EBUSY")?;
    let kernel_data = kernel_data::prepare(&mut boot_vp)?;
    let objects = kernel_data.list;
    // The driver's thread is still on the last processor that it moved to for LockRegs (contract §11.3).
    let caller = others.last_mut().unwrap_or(&mut boot_vp);
    stage.noted_call(caller, F::LoadKData, [objects.pa, objects.nranges, 0], "0", &kernel_data.source)?;
    stage.call(caller, F::LoadKData, [objects.pa, objects.nranges, 0], "-EBUSY")?;
    let list = protect_list(options, caller)?;
    stage.call(caller, F::ProtectMemory, [list.pa, list.nranges, 0], "0")?;
    stage.call(caller, F::SignalEndOfBoot, [0; 3], "0")?;

    // Calls that the end of boot has closed, ids that are no calls, a call that is not implemented.
    for vtl0 in std::iter::once(&mut boot_vp).chain(&mut others) {
        story_registers::play(&mut stage, vtl0)?;
    }
    stage.call(&mut boot_vp, F::ProtectMemory, [list.pa, list.nranges, 0], "-EPERM")?;
    stage.call(&mut boot_vp, F::SignalEndOfBoot, [0; 3], "-EPERM")?;
    for id in [VSM_BASE - 1, F::LockRegs.id() | 1 << 32].into_iter().chain(VSM_RESERVED) {
        stage.raw_call(&mut boot_vp, "unknown id", id, [0; 3], "-EINVAL")?;
    }
    stage.call(&mut boot_vp, F::LoadKData, [list.pa, list.nranges, 0], "-EPERM")?;
    stage.call(&mut boot_vp, F::AllocateRingbufferMemory, [ring, RING_BYTES, 0], "-EPERM")?;
    story_calls::play(&mut stage, &mut boot_vp)?;
    story_modules::play(&mut stage, &mut boot_vp, &kernel_data.modules)?;
    story_optee::play(&mut stage, &mut boot_vp)?;
    story_kexec::play(&mut stage, &mut boot_vp, kernel_data.kernels.as_ref())?;
    attack(options, &mut stage, &mut boot_vp)?;
    for (what, address) in [("the log ring", ring), ("the kexec trampoline", kernel_data.trampoline)] {
        stage.attempt(&mut boot_vp, &format!("write {what}"), address, |asm| asm.mov(qword_ptr(rbx), rax))?;
        stage.attempt(&mut boot_vp, &format!("execute {what}"), address, |asm| asm.jmp(rbx))?;
    }
    stage.step(&mut boot_vp, "read the log ring", &format!("{ring:#x}"), "the console's lines", |_| {
        log.poll(machine)?;
        Ok(log.compare(&machine.console_lines()[before_ring..]))
    })
}

/// A VTL0 with `heki=0`: it has registered the hypervisor and asks for its modules, which VTL1 has no keys for; no boot ever
/// ends (contract §11.11).
fn without_heki(stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    let module = &MADE_UP[0];
    let start = vtl0.with_scratch(|scratch| scratch.pages(MODULE_PAGES))?;
    let placed = module.place(stage.machine.ram(), &mut Frames::consecutive(start, start + MODULE_PAGES * 4096), 0)?;
    let machine = vtl0.machine();
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &placed.ranges))?;
    for _ in 0..2 {
        stage.noted_call(vtl0, F::ValidateModule, [list.pa, list.nranges, 0], "-ENOKEY", &module.name)?;
    }
    Ok(())
}

/// VTL0 as a reader of VTL1's log.
struct RingLog {
    start: u64,
    reader: LogReader,
    lines: Vec<String>,
}

impl RingLog {
    /// Reads what is new. Lost lines are an error: the ring has room for all of a run's.
    fn poll(&mut self, machine: &Machine) -> Result<()> {
        let mut failure = None;
        let poll = self.reader.poll(&mut |offset, into| {
            if let Err(error) = bytes::read(machine.ram(), self.start + offset as u64, into) {
                failure.get_or_insert(error);
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        ensure!(poll.lost == 0, "{} lines of the log ring were overwritten", poll.lost);
        self.lines.extend(poll.lines.iter().map(LogLine::on_console));
        Ok(())
    }

    /// Whether the lines are those of `console`, in words.
    fn compare(&self, console: &[String]) -> String {
        if self.lines == console {
            return "the console's lines".to_owned();
        }
        let differs = self.lines.iter().zip(console).position(|(ring, console)| ring != console);
        let at = differs.unwrap_or(self.lines.len().min(console.len()));
        format!("{:?} where the console has {:?}", self.lines.get(at), console.get(at))
    }
}

/// The other processors, brought into VTL1 as the loader's generation does it (contract §4).
fn start_others(options: &Options, stage: &mut Stage<'_>, boot_vp: &mut Vtl0) -> Result<Vec<Vtl0>> {
    let present = options.present();
    if present == 1 {
        return Ok(Vec::new());
    }
    let ram = stage.machine.ram().clone();
    let mask = boot_vp.with_scratch(|scratch| write_cpu_mask(&ram, scratch, 0..present))?;
    if options.generation == Generation::G2 {
        stage.call(boot_vp, F::EnableAPsVtl, [mask, 0, 0], "0")?;
    }
    let others = (1..present).map(|vp| boot_vp.another(vp)).collect::<Result<Vec<_>>>()?;
    if options.generation == Generation::G3 {
        // The second register holds anything.
        stage.call(boot_vp, F::BootAPs, [mask, mask ^ 0xdead_beef, 0], "0")?;
        return others.into_iter().map(|vtl0| first_call(stage, vtl0, Vtl0::first_call)).collect();
    }
    let signal = boot_vp.boot_signal_page()?;
    let mut arrivals = Vec::new();
    let shown = format!("{:#x} ({mask:#x}, {signal:#x}, 0x0)", F::BootAPs.id());
    stage.step(boot_vp, F::BootAPs.name(), &shown, "0", |boot_vp| {
        let (result, arrived) = boot_vp.boot_with_signal(mask, signal, others)?;
        arrivals = arrived;
        Ok(show_result(result.value))
    })?;
    arrivals
        .into_iter()
        .map(|Arrival { vtl0, first }| first_call(stage, vtl0, |_| first.context("VTL1 did not signal the processor")))
        .collect()
}

/// A processor's first VTL call, as a step.
fn first_call(
    stage: &mut Stage<'_>,
    mut vtl0: Vtl0,
    call: impl FnOnce(&mut Vtl0) -> Result<CallResult>,
) -> Result<Vtl0> {
    let mut instructions = 0;
    stage.step(&mut vtl0, "first VTL call", "", "0", |vtl0| {
        let result = call(vtl0)?;
        instructions = result.instructions;
        Ok(show_result(result.value))
    })?;
    // The call may have been made during another step.
    if let Some(step) = stage.report.steps.last_mut() {
        step.instructions = instructions;
    }
    Ok(vtl0)
}

/// The list of a real machine's protections.
fn protect_list(options: &Options, vtl0: &mut Vtl0) -> Result<List> {
    let machine = vtl0.machine();
    let map = &machine.config().map;
    let (ranges, filling) = match options.heki {
        Heki::Kernel(kernel) => (kernel_ranges(map, kernel, HYPERCALL_PAGE), Filling::Driver),
        // As full as they get: the driver's pages of so many ranges would not fit VTL0's scratch memory.
        _ => (boot_ranges(map, options.ranges / 2, 1), Filling::Full),
    };
    vtl0.with_scratch(|scratch| write_list_filled(machine.ram(), scratch, &ranges, filling))
        .context("the list of ranges")
}

/// What VTL0 must not be able to do from here on.
fn attack(options: &Options, stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    let map = options.map()?;
    for (what, address) in [("VTL1's first page", map.region_start), ("VTL1's last bytes", map.region_end() - 8)] {
        stage.attempt(vtl0, &format!("read {what}"), address, |asm| asm.mov(rax, qword_ptr(rbx)))?;
        stage.attempt(vtl0, &format!("write {what}"), address, |asm| asm.mov(qword_ptr(rbx), rax))?;
        stage.attempt(vtl0, &format!("execute {what}"), address, |asm| asm.jmp(rbx))?;
    }
    let code = vtl0.call_site();
    stage.attempt(vtl0, "write kernel text", code, |asm| asm.mov(qword_ptr(rbx), rax))?;
    let data = crate::vtl0::memory_map::SCRATCH_START;
    stage.attempt(vtl0, "execute kernel data", data, |asm| asm.jmp(rbx))
}
