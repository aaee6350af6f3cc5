//! A writable view of a linked image, to break one thing at a time. Test code: it trusts that the image is a good one.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use xtask::verify::TABLE_LEN;

pub const PT_LOAD: u32 = 1;
pub const DISPATCH: &str = "vsm_dispatch";
pub const TABLE: &str = "VSM_JUMP_TABLE";

/// Offsets in a program header.
pub mod ph {
    pub const TYPE: usize = 0;
    pub const FLAGS: usize = 4;
    pub const VADDR: usize = 16;
    pub const PADDR: usize = 24;
    pub const FILESZ: usize = 32;
    pub const MEMSZ: usize = 40;
    pub const ALIGN: usize = 48;
}

/// Offsets in a section header.
pub mod sh {
    pub const NAME: usize = 0;
    pub const TYPE: usize = 4;
    pub const FLAGS: usize = 8;
    pub const ADDR: usize = 16;
    pub const OFFSET: usize = 24;
    pub const SIZE: usize = 32;
    pub const LINK: usize = 40;
}

/// Offsets in a symbol.
pub mod sym {
    pub const NAME: usize = 0;
    pub const INFO: usize = 4;
    pub const SHNDX: usize = 6;
    pub const VALUE: usize = 8;
    pub const SIZE: usize = 16;
    pub const LEN: usize = 24;
}

/// Offsets in a relocation.
pub mod rela {
    pub const AT: usize = 0;
    pub const TYPE: usize = 8;
    pub const ADDEND: usize = 16;
    pub const LEN: usize = 24;
}

/// Offsets in the ELF header.
pub mod eh {
    pub const CLASS: usize = 4;
    pub const DATA: usize = 5;
    pub const TYPE: usize = 16;
    pub const MACHINE: usize = 18;
    pub const ENTRY: usize = 24;
    pub const PHOFF: usize = 32;
    pub const SHOFF: usize = 40;
    pub const PHNUM: usize = 56;
    pub const SHNUM: usize = 60;
    pub const SHSTRNDX: usize = 62;
}

/// The bytes of an image.
#[derive(Clone)]
pub struct Elf(pub Vec<u8>);

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

impl Elf {
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.0[at..at + 2].try_into().unwrap())
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    /// Offset of program header `index`.
    pub fn segment(&self, index: usize) -> usize {
        size(self.u64(eh::PHOFF)) + index * 56
    }

    /// Offset of the first PT_LOAD with exactly these flags.
    pub fn segment_with(&self, flags: u32) -> usize {
        (0..usize::from(self.u16(eh::PHNUM)))
            .map(|index| self.segment(index))
            .find(|at| self.u32(at + ph::TYPE) == PT_LOAD && self.u32(at + ph::FLAGS) == flags)
            .unwrap()
    }

    /// Offset of section header `index`.
    pub fn section_at(&self, index: usize) -> usize {
        size(self.u64(eh::SHOFF)) + index * 64
    }

    /// Index of the section of that name.
    pub fn section_index(&self, name: &str) -> usize {
        let names = self.section_at(usize::from(self.u16(eh::SHSTRNDX)));
        let names = size(self.u64(names + sh::OFFSET));
        (0..usize::from(self.u16(eh::SHNUM)))
            .find(|index| self.string(names + self.u32(self.section_at(*index) + sh::NAME) as usize) == name)
            .unwrap_or_else(|| panic!("no section {name}"))
    }

    /// Offset of the header of the section of that name.
    pub fn section(&self, name: &str) -> usize {
        self.section_at(self.section_index(name))
    }

    fn string(&self, at: usize) -> &str {
        let len = self.0[at..].iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&self.0[at..at + len]).unwrap()
    }

    /// Offsets of all symbols, with their names.
    pub fn symbols(&self) -> Vec<(usize, String)> {
        let table = self.section(".symtab");
        let names = self.section_at(self.u32(table + sh::LINK) as usize);
        let names = size(self.u64(names + sh::OFFSET));
        let start = size(self.u64(table + sh::OFFSET));
        let count = size(self.u64(table + sh::SIZE)) / sym::LEN;
        (0..count)
            .map(|index| start + index * sym::LEN)
            .map(|at| (at, self.string(names + self.u32(at + sym::NAME) as usize).to_owned()))
            .collect()
    }

    /// Offset of the symbol of that name.
    pub fn symbol(&self, name: &str) -> usize {
        self.symbols().into_iter().find(|(_, found)| found == name).unwrap_or_else(|| panic!("no symbol {name}")).0
    }

    /// Address of the symbol of that name.
    pub fn address(&self, name: &str) -> u64 {
        self.u64(self.symbol(name) + sym::VALUE)
    }

    /// Offset in the file of a virtual address.
    pub fn offset(&self, address: u64) -> usize {
        let segment = (0..usize::from(self.u16(eh::PHNUM)))
            .map(|index| self.segment(index))
            .find(|at| {
                let start = self.u64(at + ph::VADDR);
                self.u32(at + ph::TYPE) == PT_LOAD && (start..start + self.u64(at + ph::FILESZ)).contains(&address)
            })
            .unwrap();
        size(address - self.u64(segment + ph::VADDR) + self.u64(segment + 8))
    }

    /// Offsets of all relocations of `.rela.dyn`.
    pub fn relocations(&self) -> Vec<usize> {
        let section = self.section(".rela.dyn");
        let start = size(self.u64(section + sh::OFFSET));
        let count = size(self.u64(section + sh::SIZE)) / rela::LEN;
        (0..count).map(|index| start + index * rela::LEN).collect()
    }

    /// Offset of the relocation of table entry `slot`.
    pub fn table_relocation(&self, slot: u64) -> usize {
        let at = self.address(TABLE) + slot * 8;
        self.relocations().into_iter().find(|offset| self.u64(offset + rela::AT) == at).unwrap()
    }

    /// Offset of a relocation that is not one of the table's.
    pub fn other_relocation(&self) -> usize {
        let table = self.address(TABLE);
        self.relocations()
            .into_iter()
            .find(|offset| !(table..table + TABLE_LEN * 8).contains(&self.u64(offset + rela::AT)))
            .unwrap()
    }

    /// The instructions of the dispatch function.
    pub fn dispatch_code(&self) -> Vec<Instruction> {
        let symbol = self.symbol(DISPATCH);
        let (address, len) = (self.u64(symbol + sym::VALUE), self.u64(symbol + sym::SIZE));
        let start = self.offset(address);
        Decoder::with_ip(64, &self.0[start..start + size(len)], address, DecoderOptions::NONE).into_iter().collect()
    }

    /// `cmp`, `sbb` and `and` of the clamp.
    pub fn clamp(&self) -> [Instruction; 3] {
        let code = self.dispatch_code();
        let sbb = code.iter().position(|instruction| instruction.mnemonic() == Mnemonic::Sbb).unwrap();
        let found = [code[sbb - 1], code[sbb], code[sbb + 1]];
        assert_eq!(found[0].mnemonic(), Mnemonic::Cmp);
        assert_eq!(found[2].mnemonic(), Mnemonic::And);
        found
    }

    /// Replaces an instruction by other bytes, filled up with NOPs.
    pub fn replace(&mut self, instruction: &Instruction, bytes: &[u8]) {
        let mut filled = vec![0x90; instruction.len()];
        filled[..bytes.len()].copy_from_slice(bytes);
        let at = self.offset(instruction.ip());
        self.put(at, &filled);
    }

    /// Address of a function of at least `len` bytes that is neither the dispatch function nor the entry point.
    pub fn some_function(&self, len: u64) -> u64 {
        let text = u16::try_from(self.section_index(".text")).unwrap();
        let entry = self.u64(eh::ENTRY);
        self.symbols()
            .into_iter()
            .filter(|(at, name)| {
                name != DISPATCH
                    && self.0[at + sym::INFO] & 0xf == 2
                    && self.u16(at + sym::SHNDX) == text
                    && self.u64(at + sym::SIZE) >= len
                    && self.u64(at + sym::VALUE) != entry
            })
            .map(|(at, _)| self.u64(at + sym::VALUE))
            .next()
            .unwrap()
    }
}
