//! A machine that has booted the image with two processors, and a VTL0 that loads modules and kexec images on it.

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{al, byte_ptr, rbx};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::driver::CallResult;
use vsm_sim::machine::{VTL1, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::captures::Capture;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::lists::{Filling, Range, write_list_filled};
use vsm_sim::vtl0::modules::{Frames, Module, Placed};
use vsm_sim::vtl0::ranges::boot_ranges;

use crate::setup::{booted, booted_counting, call, console, enable_others, end_boot, is_carried_out, start_other};

/// Bytes of a processor's stack in VTL1 (`litebox_platform_lvbs`, `arch::vp`).
const STACK: u64 = 64 << 10;
/// So many bytes of it at least must remain.
const SPARE_STACK: u64 = 16 << 10;
/// What unused stack is filled with.
const PAINT: u8 = 0x5c;

/// Where the text of a captured kernel begins, and where frames are handed out then.
const TEXT: u64 = 0x1000_0000;
const FRAMES: std::ops::Range<u64> = 0x1800_0000..0x3000_0000;

/// A VTL0 on the boot processor, and its free frames.
pub struct Linux {
    pub vtl0: Vtl0,
    pub frames: Frames,
}

impl Linux {
    /// Boots, loads the kernel's data, seals all memory as data and ends the boot; and enters VTL1 on a second processor.
    pub fn boot(kernel: &KernelData) -> Result<(Self, Vtl0)> {
        let mut vtl0 = booted_counting(2)?;
        enable_others(&mut vtl0)?;
        let other = start_other(&vtl0, 1)?;
        let mut linux = Self { vtl0, frames: Frames::scattered(0x1000_0000, 0x3000_0000, 12) };
        linux.finish(kernel, &[])?;
        Ok((linux, other))
    }

    /// The same on a processor alone, not counting its instructions, with a captured kernel whose text and read-only data lie in
    /// memory as a kernel's do, and are sealed.
    pub fn boot_captured(capture: &Capture) -> Result<Self> {
        let vtl0 = booted(1)?;
        let kernel = capture.place(vtl0.machine().ram(), TEXT)?;
        ensure!(kernel.ranges[1].epa <= FRAMES.start, "the kernel ends at {:#x}", kernel.ranges[1].epa);
        let mut linux = Self { vtl0, frames: Frames::scattered(FRAMES.start, FRAMES.end, 13) };
        linux.finish(&kernel.data, &kernel.ranges)?;
        Ok(linux)
    }

    /// Loads the kernel's data, seals all memory as data but for `sealed`, and ends the boot.
    fn finish(&mut self, kernel: &KernelData, sealed: &[Range]) -> Result<()> {
        let machine = self.vtl0.machine();
        let ranges = kernel.write(machine.ram(), || self.frames.take())?;
        self.must(F::LoadKData, &ranges)?;
        // The last range that names a frame counts.
        let all = [&boot_ranges(&machine.config().map, 0, 1)[..], sealed].concat();
        self.must(F::ProtectMemory, &all)?;
        end_boot(&mut self.vtl0)
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
            // The driver's pages hold one range each; for more of them than this there is no scratch memory.
            let filling = if ranges.len() > 4096 { Filling::Full } else { Filling::Driver };
            write_list_filled(machine.ram(), scratch, ranges, filling)
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
        call(&mut self.vtl0, F::FreeModuleInit, [token.cast_unsigned(), 0, 0])
    }

    pub fn unload(&mut self, token: i64) -> Result<i64> {
        call(&mut self.vtl0, F::UnloadModule, [token.cast_unsigned(), 0, 0])
    }

    pub fn console(&self) -> String {
        console(&self.vtl0.machine())
    }

    /// VTL0 writes a byte of a page, the one that is there. Whether it may.
    pub fn may_write(&mut self, page: u64) -> Result<bool> {
        let mut byte = [0];
        bytes::read(self.vtl0.machine().ram(), page, &mut byte)?;
        let registers = SharedState { rbx: page, rax: u64::from(byte[0]), ..SharedState::default() };
        is_carried_out(&self.vtl0.run(&registers, |asm| asm.mov(byte_ptr(rbx), al))?)
    }

    /// Checks by a real store that VTL0 can write a page, or cannot.
    pub fn check_store(&mut self, what: &str, page: u64, open: bool) -> Result<()> {
        let refused_or_allowed = if open { "refused" } else { "allowed" };
        ensure!(self.may_write(page)? == open, "{what} at {page:#x}: a store is {refused_or_allowed}");
        Ok(())
    }

    /// Makes a call with a list and looks that it leaves enough of VTL1's stack; also the bytes of stack it used.
    pub fn call_on_painted_stack(&mut self, function: F, ranges: &[Range]) -> Result<(CallResult, u64)> {
        self.paint_stack()?;
        let result = self.call(function, ranges)?;
        let stack = self.used_stack()?;
        ensure!(stack > 0 && stack < STACK - SPARE_STACK, "{stack} bytes of stack");
        Ok((result, stack))
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
    fn paint_stack(&mut self) -> Result<()> {
        let (pages, top) = self.stack()?;
        for (page, start) in pages.into_iter().zip((0..STACK).step_by(4096)) {
            // What is at the top may be in use.
            let length = top.saturating_sub(256 + start).min(4096);
            bytes::write(self.vtl0.machine().ram(), page, &vec![PAINT; usize::try_from(length)?])?;
        }
        Ok(())
    }

    /// How many bytes of the stack have been used since it was filled.
    fn used_stack(&mut self) -> Result<u64> {
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
