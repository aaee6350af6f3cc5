//! The file in which QEMU gets the stub: an ELF that it boots through the PVH entry point (Xen `include/public/elfnote.h`).

use object::write::elf::{FileHeader, ProgramHeader, Writer};
use object::{Endianness, elf};

use super::{layout, stub};

/// The note that holds the address of the 32-bit entry point.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// The stub as an ELF file.
pub fn pvh_elf() -> Result<Vec<u8>, object::write::Error> {
    let (code, entry) = (stub::code(), layout::STUB);
    let note: Vec<u8> = [4, 8, XEN_ELFNOTE_PHYS32_ENTRY]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .chain(*b"Xen\0")
        .chain(entry.to_le_bytes())
        .collect();
    let mut file = Vec::new();
    let mut elf = Writer::new(Endianness::Little, true, &mut file);
    elf.reserve_file_header();
    elf.reserve_program_headers(2);
    let note_at = elf.reserve(note.len(), 4);
    let code_at = elf.reserve(code.len(), 0x1000);
    let (e_type, e_machine) = (elf::ET_EXEC, elf::EM_X86_64);
    elf.write_file_header(&FileHeader { os_abi: 0, abi_version: 0, e_type, e_machine, e_entry: entry, e_flags: 0 })?;
    let segments = [
        (elf::PT_LOAD, elf::PF_R | elf::PF_W | elf::PF_X, code_at, entry, code.len(), 0x1000),
        (elf::PT_NOTE, elf::PF_R, note_at, 0, note.len(), 4),
    ];
    for (p_type, p_flags, offset, address, len, p_align) in segments {
        elf.write_program_header(&ProgramHeader {
            p_type,
            p_flags,
            p_offset: offset as u64,
            p_vaddr: address,
            p_paddr: address,
            p_filesz: len as u64,
            p_memsz: len as u64,
            p_align,
        });
    }
    elf.pad_until(note_at);
    elf.write(&note);
    elf.pad_until(code_at);
    elf.write(code);
    Ok(file)
}
