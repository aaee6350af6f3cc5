//! A machine that has booted the image with two processors, and a VTL0 that loads modules on it.

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::machine::driver::CallResult;
use vsm_sim::machine::{Machine, MachineConfig, VTL1, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::lists::{Range, write_cpu_mask, write_list};
use vsm_sim::vtl0::loader::Generation;
use vsm_sim::vtl0::memory_map::{MemoryMap, default_region_size};
use vsm_sim::vtl0::modules::{Frames, Module, Placed};
use vsm_sim::vtl0::ranges::boot_ranges;

use crate::image::image;

/// Bytes of a processor's stack in VTL1 (`litebox_platform_lvbs`, `arch::vp`).
const STACK: u64 = 64 << 10;
/// What unused stack is filled with.
const PAINT: u8 = 0x5c;

/// A VTL0 on the boot processor, and its free frames.
pub struct Linux {
    pub vtl0: Vtl0,
    pub frames: Frames,
}

impl Linux {
    /// Boots, loads the kernel's data, seals all memory as data and ends the boot; and enters VTL1 on a second processor.
    pub fn boot(kernel: &KernelData) -> Result<(Self, Vtl0)> {
        let map = MemoryMap::new(1 << 30, None, default_region_size(2))?;
        let machine = Machine::new(MachineConfig { count_instructions: true, ..MachineConfig::new(map, 2) })?;
        let mut vtl0 = Vtl0::new(&machine)?;
        let start = vtl0.prepare_vtl1(Generation::G2, 2, image())?;
        vtl0.boot_vtl1(&start)?;
        let mask = vtl0.with_scratch(|scratch| write_cpu_mask(machine.ram(), scratch, 0..2))?;
        ensure!(vtl0.vtl_call(F::EnableAPsVtl.id(), mask, 0, 0)?.value == 0, "EnableAPsVtl");
        let mut other = vtl0.another(1)?;
        ensure!(other.vtl_call(0, 0, 0, 0)?.value == 0, "the other processor's first entry");
        let mut linux = Self { vtl0, frames: Frames::scattered(0x1000_0000, 0x3000_0000, 12) };
        let ranges = kernel.write(machine.ram(), || linux.frames.take())?;
        linux.must(F::LoadKData, &ranges)?;
        linux.must(F::ProtectMemory, &boot_ranges(&map, 0, 1))?;
        ensure!(linux.vtl0.vtl_call(F::SignalEndOfBoot.id(), 0, 0, 0)?.value == 0, "SignalEndOfBoot");
        Ok((linux, other))
    }

    /// Makes a call with a list.
    pub fn call(&mut self, function: F, ranges: &[Range]) -> Result<CallResult> {
        self.call_with(function, ranges, 0)
    }

    /// Makes a call with a list and a third register.
    pub fn call_with(&mut self, function: F, ranges: &[Range], a3: u64) -> Result<CallResult> {
        let machine = self.vtl0.machine();
        let list = self.vtl0.with_scratch(|scratch| {
            scratch.reset();
            write_list(machine.ram(), scratch, ranges)
        })?;
        self.vtl0.vtl_call(function.id(), list.pa, list.nranges, a3).with_context(|| self.console())
    }

    fn must(&mut self, function: F, ranges: &[Range]) -> Result<()> {
        let value = self.call(function, ranges)?.value;
        ensure!(value == 0, "{} returned {value}\n{}", function.name(), self.console());
        Ok(())
    }

    pub fn place(&mut self, module: &Module, file_start: u64) -> Result<Placed> {
        module.place(self.vtl0.machine().ram(), &mut self.frames, file_start)
    }

    pub fn free_init(&mut self, token: i64) -> Result<i64> {
        Ok(self.vtl0.vtl_call(F::FreeModuleInit.id(), token.cast_unsigned(), 0, 0)?.value)
    }

    pub fn unload(&mut self, token: i64) -> Result<i64> {
        Ok(self.vtl0.vtl_call(F::UnloadModule.id(), token.cast_unsigned(), 0, 0)?.value)
    }

    pub fn console(&self) -> String {
        self.vtl0.machine().console_lines().join("\n")
    }

    /// Pages of VTL1's stack on this processor, from the lowest, and how many bytes of them lie below its present top.
    fn stack(&mut self) -> Result<(Vec<u64>, u64)> {
        let processor = self.vtl0.processor();
        let top = processor.vcpu().state(VTL1).rsp;
        let mut page = |va: u64| processor.vcpu().translate(VTL1, va).map(|translated| translated.gpa);
        // Below it is a guard, above it another one.
        let mut start = (top - 1) & !0xfff;
        while page(start - 4096).is_some() {
            start -= 4096;
        }
        let pages = (start..start + STACK).step_by(4096).map(|va| page(va).context("VTL1's stack is not mapped"));
        Ok((pages.collect::<Result<_>>()?, top - start))
    }

    /// Fills the stack below its present top.
    pub fn paint_stack(&mut self) -> Result<()> {
        let (pages, top) = self.stack()?;
        for (page, start) in pages.into_iter().zip((0..STACK).step_by(4096)) {
            // What is at the top may be in use.
            let length = top.saturating_sub(256 + start).min(4096);
            bytes::write(self.vtl0.machine().ram(), page, &vec![PAINT; usize::try_from(length)?])?;
        }
        Ok(())
    }

    /// How many bytes of the stack have been used since it was filled.
    pub fn used_stack(&mut self) -> Result<u64> {
        let (pages, _) = self.stack()?;
        for (page, start) in pages.into_iter().zip((0..STACK).step_by(4096)) {
            let mut now = vec![0; 4096];
            bytes::read(self.vtl0.machine().ram(), page, &mut now)?;
            if let Some(at) = now.iter().position(|byte| *byte != PAINT) {
                return Ok(STACK - start - at as u64);
            }
        }
        Ok(0)
    }
}
