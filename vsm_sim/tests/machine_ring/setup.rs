//! A machine that has booted the image, and a log ring in VTL0's memory.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::machine::{Machine, MachineConfig, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::lists::write_cpu_mask;
use vsm_sim::vtl0::loader::Generation;
use vsm_sim::vtl0::log_reader::{LogReader, Poll};
use vsm_sim::vtl0::memory_map::{MemoryMap, default_region_size};

use crate::image::image;

/// A machine with `vps` processors that counts instructions, booted on the first of them.
pub fn booted(vps: u32) -> Result<Vtl0> {
    let map = MemoryMap::new(1 << 30, None, default_region_size(vps))?;
    let machine = Machine::new(MachineConfig { count_instructions: true, ..MachineConfig::new(map, vps) })?;
    let mut vtl0 = Vtl0::new(&machine)?;
    let start = vtl0.prepare_vtl1(Generation::G2, vps, image())?;
    vtl0.boot_vtl1(&start)?;
    Ok(vtl0)
}

/// Enables VTL1 on the other processors.
pub fn enable_others(boot_vp: &mut Vtl0) -> Result<()> {
    let machine = boot_vp.machine();
    let mask = boot_vp.with_scratch(|scratch| write_cpu_mask(machine.ram(), scratch, 0..machine.config().vps))?;
    ensure!(call(boot_vp, VsmFunction::EnableAPsVtl, [mask, 0, 0])? == 0, "EnableAPsVtl");
    Ok(())
}

/// Another processor, past its first entry.
pub fn start_other(boot_vp: &Vtl0, vp: u32) -> Result<Vtl0> {
    let mut other = boot_vp.another(vp)?;
    ensure!(other.vtl_call(0, 0, 0, 0)?.value == 0, "the first entry of VP {vp}");
    Ok(other)
}

/// Makes a call; its result.
pub fn call(vtl0: &mut Vtl0, function: VsmFunction, [a1, a2, a3]: [u64; 3]) -> Result<i64> {
    Ok(vtl0.vtl_call(function.id(), a1, a2, a3)?.value)
}

/// A ring that VTL0 has given to VTL1, and VTL0's reader of it.
pub struct Ring {
    /// First byte.
    pub start: u64,
    reader: LogReader,
    /// Console lines before the first of the ring.
    before: usize,
}

impl Ring {
    /// Gives `pages` pages of scratch memory for a ring.
    pub fn allocate(vtl0: &mut Vtl0, pages: u64) -> Result<Self> {
        let start = vtl0.with_scratch(|scratch| scratch.pages(pages))?;
        let before = vtl0.machine().console_lines().len();
        let result = call(vtl0, VsmFunction::AllocateRingbufferMemory, [start, pages << 12, 0])?;
        ensure!(result == 0, "AllocateRingbufferMemory returned {result}");
        Ok(Self { start, reader: LogReader::new(usize::try_from(pages << 12)?), before })
    }

    /// What is new in the ring.
    pub fn poll(&mut self, vtl0: &Vtl0) -> Poll {
        let machine = vtl0.machine();
        self.reader.poll(&mut |offset, into| {
            bytes::read(machine.ram(), self.start + offset as u64, into).expect("the ring is RAM");
        })
    }

    /// The console's lines since the ring is there.
    pub fn console(&self, vtl0: &Vtl0) -> Vec<String> {
        vtl0.machine().console_lines().split_off(self.before)
    }
}
