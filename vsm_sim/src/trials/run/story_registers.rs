//! The registers of a processor that is locked: what any user makes Linux write stays VTL0's, on each processor; what would
//! undo the lock does not, and a processor that asks again changes nothing.

use anyhow::Result;
use iced_x86::code_asm::{ax, cr4, rax, rbx};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::stage::Stage;
use crate::machine::{VTL0, Vtl0};
use crate::vtl0::bytes;
use crate::vtl0::memory_map::SCRATCH_START;

/// CR4.TSD (Intel SDM vol. 3 §2.5), which `prctl(PR_SET_TSC)` and strict seccomp make Linux set and clear.
const CR4_TSD: u64 = 1 << 2;
/// CR4.SMEP, which LockRegs pins.
const CR4_SMEP: u64 = 1 << 20;
/// The TSS's place in the GDT, which the processor does not look at again, for an LDT's descriptor.
const LDT_SELECTOR: u64 = 0x18;

/// Plays them on one processor, after the end of boot.
pub(super) fn play(stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    stage.call(vtl0, F::LockRegs, [0; 3], "-EPERM")?;
    for what in ["set CR4.TSD", "clear CR4.TSD"] {
        stage.permitted(vtl0, what, CR4_TSD, |asm| {
            asm.mov(rax, cr4)?;
            asm.xor(rax, rbx)?;
            asm.mov(cr4, rax)
        })?;
    }
    // modify_ldt: a present LDT of 4095 bytes at the scratch memory (Intel SDM vol. 3 §3.5), and none.
    let gdt = vtl0.processor().vcpu().state(VTL0).gdtr.base;
    let base = SCRATCH_START;
    let descriptor = [0x0ffe | (base & 0xff_ffff) << 16 | 0x82 << 40 | (base >> 24 & 0xff) << 56, 0];
    for (at, word) in (gdt + LDT_SELECTOR..).step_by(8).zip(descriptor) {
        bytes::write_u64(stage.machine.ram(), at, word)?;
    }
    for (what, selector) in [("load an LDT", LDT_SELECTOR), ("load no LDT", 0)] {
        stage.permitted(vtl0, what, selector, |asm| asm.lldt(ax))?;
    }
    // Together with a free bit, too.
    for (what, bits) in [("clear CR4.SMEP", CR4_SMEP), ("clear CR4.SMEP, set TSD", CR4_SMEP | CR4_TSD)] {
        stage.attempt(vtl0, what, bits, |asm| {
            asm.mov(rax, cr4)?;
            asm.xor(rax, rbx)?;
            asm.mov(cr4, rax)
        })?;
    }
    Ok(())
}
