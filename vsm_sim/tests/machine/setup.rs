//! A machine that has booted the image.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::{Machine, MachineConfig, Stop, Vtl0};
use vsm_sim::vtl0::lists::{Range, write_cpu_mask, write_list};
use vsm_sim::vtl0::loader::{Generation, Start};
use vsm_sim::vtl0::memory_map::{MemoryMap, default_region_size};

pub use crate::image::image;

/// #GP's vector.
pub const GENERAL_PROTECTION: u64 = 13;

/// A guest with 1 GiB of RAM and VTL1's region where VTL0 would put it.
pub fn small_map(possible_cpus: u32) -> MemoryMap {
    MemoryMap::new(1 << 30, None, default_region_size(possible_cpus)).expect("the region fits 1 GiB")
}

/// A small machine with `vps` processors.
pub fn config(vps: u32) -> MachineConfig {
    MachineConfig::new(small_map(vps), vps)
}

/// A small machine with `vps` processors, booted on the first of them.
pub fn booted(vps: u32) -> Result<Vtl0> {
    boot(config(vps), Generation::G2, vps)
}

/// The same, which counts instructions.
pub fn booted_counting(vps: u32) -> Result<Vtl0> {
    boot(MachineConfig { count_instructions: true, ..config(vps) }, Generation::G2, vps)
}

/// A machine of `config`, booted on its first processor.
pub fn boot(config: MachineConfig, generation: Generation, possible_cpus: u32) -> Result<Vtl0> {
    let (mut vtl0, start) = loaded(config, generation, possible_cpus)?;
    let machine = vtl0.machine();
    vtl0.boot_vtl1(&start).with_context(|| console(&machine))?;
    Ok(vtl0)
}

/// A machine of `config` that has the image in memory and VTL1 enabled, and has not entered it.
pub fn loaded(config: MachineConfig, generation: Generation, possible_cpus: u32) -> Result<(Vtl0, Start)> {
    let machine = Machine::new(config)?;
    let mut vtl0 = Vtl0::new(&machine)?;
    let start = vtl0.prepare_vtl1(generation, possible_cpus, image())?;
    Ok((vtl0, start))
}

/// What VTL1 has printed.
pub fn console(machine: &Arc<Machine>) -> String {
    format!("VTL1's console:\n{}", machine.console_lines().join("\n"))
}

/// Enables VTL1 on all processors of a booted machine.
pub fn enable_others(boot_vp: &mut Vtl0) -> Result<()> {
    let machine = boot_vp.machine();
    let mask = boot_vp.with_scratch(|scratch| write_cpu_mask(machine.ram(), scratch, 0..machine.config().vps))?;
    ensure!(call(boot_vp, VsmFunction::EnableAPsVtl, [mask, 0, 0])? == 0, "EnableAPsVtl\n{}", console(&machine));
    Ok(())
}

/// Another processor on which VTL1 is enabled, past its first entry.
pub fn start_other(boot_vp: &Vtl0, vp: u32) -> Result<Vtl0> {
    let mut vtl0 = boot_vp.another(vp)?;
    let first = vtl0.vtl_call(0, 0, 0, 0).with_context(|| console(&boot_vp.machine()))?;
    ensure!(first.value == 0, "the first entry of VP {vp} returned {}", first.value);
    vtl0.check_mbec()?;
    Ok(vtl0)
}

/// The other processors of a booted machine, enabled and each past its first entry.
pub fn start_others(boot_vp: &mut Vtl0) -> Result<Vec<Vtl0>> {
    enable_others(boot_vp)?;
    (1..boot_vp.machine().config().vps).map(|vp| start_other(boot_vp, vp)).collect()
}

/// Makes a call; its result.
pub fn call(vtl0: &mut Vtl0, function: VsmFunction, [a1, a2, a3]: [u64; 3]) -> Result<i64> {
    Ok(vtl0.vtl_call(function.id(), a1, a2, a3)?.value)
}

/// Makes a call with a list; its result.
pub fn call_with_list(vtl0: &mut Vtl0, function: VsmFunction, ranges: &[Range]) -> Result<i64> {
    let machine = vtl0.machine();
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, ranges))?;
    call(vtl0, function, [list.pa, list.nranges, 0])
}

/// Ends the boot, which must succeed.
pub fn end_boot(vtl0: &mut Vtl0) -> Result<()> {
    ensure!(call(vtl0, VsmFunction::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot");
    Ok(())
}

/// Whether VTL0's code ended in a #GP.
pub fn is_fault(stop: &Stop) -> bool {
    matches!(stop, Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION)
}

/// Whether VTL0's code was carried out, or ended in a #GP; anything else is an error.
pub fn is_carried_out(stop: &Stop) -> Result<bool> {
    ensure!(*stop == Stop::Done || is_fault(stop), "{stop:x?}");
    Ok(*stop == Stop::Done)
}

/// Runs one instruction that must end in #GP, with RIP at that instruction.
pub fn must_fault(
    vtl0: &mut Vtl0,
    what: &str,
    registers: &SharedState,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<()> {
    let address = vtl0.place(body)?;
    must_fault_at(vtl0, what, registers, address, address)
}

/// Runs the code at `address`, which must end in #GP with RIP at `rip`.
pub fn must_fault_at(vtl0: &mut Vtl0, what: &str, registers: &SharedState, address: u64, rip: u64) -> Result<()> {
    match vtl0.run_at(address, registers)? {
        Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION => {
            ensure!(exception.rip == rip, "{what}: #GP at {:#x}, not at {rip:#x}", exception.rip);
            ensure!(exception.error == 0, "{what}: #GP with the error code {:#x}", exception.error);
            Ok(())
        }
        other => bail!("{what} ended in {other:x?}, not in #GP"),
    }
}

/// Whether a line of the console is `line`.
pub fn printed(machine: &Arc<Machine>, line: &str) -> bool {
    machine.console_lines().iter().any(|printed| printed == line)
}
