//! The contents of the hypercall pages and the reference TSC pages, which lie over RAM.
//!
//! The TLFS leaves the instructions to the hypervisor and names three entry points: the page's start for a
//! hypercall, and the offsets in HvRegisterVsmCodePageOffsets for VTL call and return. Like Hyper-V's own sequences, the
//! latter two move the control word from RCX to RAX and load the hypercall's code into RCX: a guest must not expect
//! RAX and RCX to survive.

use anyhow::Result;
use iced_x86::code_asm::{ecx, rax, rcx};
use litebox_platform_lvbs::hv::{VsmCodePageOffsets, Vtl};

use super::guest::assemble;
use crate::hv::GuestMemory;
use crate::vtl0::bytes;

/// HvCallVtlCall.
const VTL_CALL: u32 = 0x11;
/// HvCallVtlReturn.
const VTL_RETURN: u32 = 0x12;
const PAGE: u64 = 4096;

/// Which sequence a VMMCALL belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// A hypercall with the control word in RCX.
    Hypercall,
    /// A VTL call with the control word in RAX.
    VtlCall,
    /// A VTL return with the control word in RAX.
    VtlReturn,
}

/// Where each VTL's hypercall page lies, and what it covers.
#[derive(Debug, Default)]
pub struct Overlays {
    pages: [Option<Page>; Vtl::COUNT],
    /// The reference TSC pages: where, and the RAM below.
    clocks: [Option<(u64, Vec<u8>)>; Vtl::COUNT],
}

#[derive(Debug)]
struct Page {
    gpa: u64,
    /// The RAM below the overlay, which is seen again when the page goes.
    below: Vec<u8>,
    /// Physical addresses of the VMMCALLs.
    sites: [(u64, Sequence); 3],
}

impl Overlays {
    /// Moves `vtl`'s page to frame `gfn`, or takes it away.
    pub fn place(
        &mut self,
        vtl: Vtl,
        gfn: Option<u64>,
        offsets: VsmCodePageOffsets,
        memory: &dyn GuestMemory,
    ) -> Result<()> {
        if let Some(old) = self.pages[vtl.index()].take() {
            bytes::write(memory, old.gpa, &old.below)?;
        }
        let Some(gfn) = gfn else { return Ok(()) };
        let gpa = gfn * PAGE;
        let mut below = vec![0; 4096];
        bytes::read(memory, gpa, &mut below)?;
        // INT3 everywhere else: a jump into the page's middle must not run on.
        bytes::write(memory, gpa, &[0xCC; 4096])?;
        let call = u64::from(offsets.call_offset());
        let ret = u64::from(offsets.return_offset());
        let sites = [
            (hypercall(memory, gpa)?, Sequence::Hypercall),
            (switch(memory, gpa + call, VTL_CALL)?, Sequence::VtlCall),
            (switch(memory, gpa + ret, VTL_RETURN)?, Sequence::VtlReturn),
        ];
        self.pages[vtl.index()] = Some(Page { gpa, below, sites });
        Ok(())
    }

    /// Moves `vtl`'s reference TSC page, which begins with `clock`, to frame `gfn`, or takes it away.
    pub fn place_clock(&mut self, vtl: Vtl, gfn: Option<u64>, clock: &[u8], memory: &dyn GuestMemory) -> Result<()> {
        if let Some((gpa, below)) = self.clocks[vtl.index()].take() {
            bytes::write(memory, gpa, &below)?;
        }
        let Some(gfn) = gfn else { return Ok(()) };
        let mut below = vec![0; 4096];
        bytes::read(memory, gfn * PAGE, &mut below)?;
        bytes::write(memory, gfn * PAGE, &[0; 4096])?;
        bytes::write(memory, gfn * PAGE, clock)?;
        self.clocks[vtl.index()] = Some((gfn * PAGE, below));
        Ok(())
    }

    /// Which sequence of `vtl`'s page the VMMCALL at `gpa` is.
    #[must_use]
    pub fn sequence(&self, vtl: Vtl, gpa: u64) -> Option<Sequence> {
        let page = self.pages[vtl.index()].as_ref()?;
        page.sites.iter().find(|(site, _)| *site == gpa).map(|(_, sequence)| *sequence)
    }
}

/// VMMCALL; RET. Where the VMMCALL is.
fn hypercall(memory: &dyn GuestMemory, at: u64) -> Result<u64> {
    let code = assemble(at, |asm| {
        asm.vmmcall()?;
        asm.ret()
    })?;
    bytes::write(memory, at, &code)?;
    Ok(at)
}

/// MOV RAX, RCX; MOV ECX, code; VMMCALL; RET. Where the VMMCALL is.
fn switch(memory: &dyn GuestMemory, at: u64, code: u32) -> Result<u64> {
    let before = assemble(at, |asm| {
        asm.mov(rax, rcx)?;
        asm.mov(ecx, code)
    })?;
    bytes::write(memory, at, &before)?;
    hypercall(memory, at + before.len() as u64)
}
