//! VTL0's own side of the machine: page tables, descriptor tables, code.
//!
//! VTL0 is a script on the host that has real instructions carried out: every step is a *snippet* of machine code,
//! assembled when it is needed, at an address nothing has run at before (the software CPU keeps translations of what it has
//! run, and does not see the host write). A snippet ends with an OUT to [`PORT_DONE`]; an exception ends with an OUT to
//! [`PORT_EXCEPTION`] from the stub of its vector.
//!
//! Data lies below `vtl0::ranges::CODE_START`, code above, so that VTL0 can run under the W^X it asks for at boot.

use anyhow::{Result, anyhow, ensure};
use iced_x86::code_asm::{CodeAssembler, al, rsp};

use crate::hv::GuestMemory;
use crate::vtl0::bytes::{read_u64, write, write_u64};
use crate::vtl0::memory_map::{KERNEL_END, KERNEL_START};
use crate::vtl0::ranges::CODE_START;

/// A snippet is done.
pub const PORT_DONE: u8 = 0xF4;
/// An exception or interrupt has arrived in VTL0.
pub const PORT_EXCEPTION: u8 = 0xF5;

/// Top-level page table.
pub const PML4: u64 = KERNEL_START;
const PDPT: u64 = KERNEL_START + 0x1000;
/// Global descriptor table: null, code, data, TSS.
pub const GDT: u64 = KERNEL_START + 0x2000;
/// Its limit.
pub const GDT_LIMIT: u16 = 39;
/// Interrupt descriptor table.
pub const IDT: u64 = KERNEL_START + 0x3000;
/// First processor's data; each has [`VP_DATA_SIZE`] bytes.
const VP_DATA: u64 = KERNEL_START + 0x1_0000;
const VP_DATA_SIZE: u64 = 0x8000;
/// Most processors the layout has room for.
pub const MAX_VPS: u32 = 16;

/// Where VTL0 wants its hypercall page.
pub const HYPERCALL_PAGE: u64 = CODE_START + 0x1000;
const STUBS: u64 = CODE_START;
const SNIPPETS: u64 = CODE_START + 0x2000;

const _: () = assert!(VP_DATA + VP_DATA_SIZE * MAX_VPS as u64 <= CODE_START);

/// Top of a processor's stack.
#[must_use]
pub const fn stack_top(vp: u32) -> u64 {
    VP_DATA + vp as u64 * VP_DATA_SIZE + 0x4000
}

/// Two pages of a processor's own for the state it hands to a snippet and gets back.
#[must_use]
pub const fn exchange(vp: u32) -> u64 {
    VP_DATA + vp as u64 * VP_DATA_SIZE + 0x4000
}

/// A processor's TSS.
#[must_use]
pub const fn tss(vp: u32) -> u64 {
    VP_DATA + vp as u64 * VP_DATA_SIZE + 0x7000
}

/// Builds page tables, GDT, IDT and exception stubs.
pub fn build(memory: &dyn GuestMemory) -> Result<()> {
    const GIB: u64 = 1 << 30;
    write_u64(memory, PML4, PDPT | 0x23)?;
    // Identity, 1 GiB pages, writable and executable: what VTL0 may do is for VTL1 to say.
    for index in 0..512u64 {
        write_u64(memory, PDPT + index * 8, (index * GIB) | 0xE3)?;
    }
    for (index, entry) in [0, 0x00A0_9B00_0000_0000, 0x00C0_9300_0000_0000u64].into_iter().enumerate() {
        write_u64(memory, GDT + index as u64 * 8, entry)?;
    }
    for vector in 0..256u64 {
        let handler = STUBS + vector * 16;
        // Present interrupt gate of privilege 0, code selector 8.
        write_u64(
            memory,
            IDT + vector * 16,
            (handler & 0xffff) | (0x8 << 16) | (0x8E00 << 32) | ((handler >> 16 & 0xffff) << 48),
        )?;
        write_u64(memory, IDT + vector * 16 + 8, handler >> 32)?;
        let code = assemble(handler, |asm| {
            if !has_error_code(vector) {
                asm.push(0)?;
            }
            asm.push(i32::try_from(vector).unwrap_or(-1))?;
            asm.out(u32::from(PORT_EXCEPTION), al)?;
            Ok(())
        })?;
        ensure!(code.len() <= 16, "the stub of vector {vector} has {} bytes", code.len());
        write(memory, handler, &code)?;
    }
    Ok(())
}

/// The vectors with an error code (Intel SDM vol. 3 table 6-1).
fn has_error_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// Machine code for `address`.
pub fn assemble(
    address: u64,
    write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
) -> Result<Vec<u8>> {
    let mut assembler = CodeAssembler::new(64)?;
    write(&mut assembler)?;
    assembler.assemble(address).map_err(|error| anyhow!("VTL0's code: {error}"))
}

/// What an exception left on VTL0's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u64,
    /// The error code, 0 for vectors without one.
    pub error: u64,
    /// Where VTL0 was.
    pub rip: u64,
    /// Its stack pointer.
    pub rsp: u64,
    /// Its flags.
    pub rflags: u64,
}

impl Exception {
    /// Reads the frame an exception stub has left at `stack`.
    pub fn read(memory: &dyn GuestMemory, stack: u64) -> Result<Self> {
        let word = |index: u64| read_u64(memory, stack + index * 8);
        Ok(Self { vector: word(0)?, error: word(1)?, rip: word(2)?, rflags: word(4)?, rsp: word(5)? })
    }
}

/// Places for snippets; no address is used twice.
#[derive(Debug)]
pub struct Arena {
    next: u64,
}

impl Default for Arena {
    fn default() -> Self {
        Self { next: SNIPPETS }
    }
}

impl Arena {
    /// Assembles a snippet, with the OUT that ends it, and puts it into memory; its address.
    pub fn place(
        &mut self,
        memory: &dyn GuestMemory,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) -> Result<u64> {
        let address = self.next;
        let code = assemble(address, |asm| {
            body(asm)?;
            asm.out(u32::from(PORT_DONE), al)?;
            // A finished snippet is never resumed.
            asm.ud2()
        })?;
        let end = (address + code.len() as u64).next_multiple_of(64);
        ensure!(end <= KERNEL_END, "VTL0's room for code is used up");
        write(memory, address, &code)?;
        self.next = end;
        Ok(address)
    }

    /// A snippet that calls the address in RAX, as the VTL0 driver's `call *%rax` does.
    pub fn place_call(&mut self, memory: &dyn GuestMemory) -> Result<u64> {
        self.place(memory, |asm| {
            asm.sub(rsp, 8)?;
            asm.call(iced_x86::code_asm::rax)?;
            asm.add(rsp, 8)
        })
    }
}
