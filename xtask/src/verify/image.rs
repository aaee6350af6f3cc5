//! The parts of the ELF file that the checks look at, copied out of it with every offset checked.
//!
//! Trusts nothing in the file. A part that cannot be read makes the whole file unreadable, with the reason.

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, SectionHeader, SectionTable, Sym};
use object::{Endianness, SectionIndex};

type Header = elf::FileHeader64<Endianness>;

/// One program header.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Position in the program header table.
    pub index: usize,
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`.
    pub flags: u32,
    /// `p_offset`, in bytes.
    pub offset: u64,
    /// `p_vaddr`.
    pub vaddr: u64,
    /// `p_paddr`.
    pub paddr: u64,
    /// `p_filesz`, in bytes.
    pub filesz: u64,
    /// `p_memsz`, in bytes.
    pub memsz: u64,
    /// `p_align`, in bytes.
    pub align: u64,
}

impl Segment {
    /// Whether `len` bytes at this virtual address are memory of the segment.
    pub fn holds(&self, address: u64, len: u64) -> bool {
        within(self.vaddr, self.memsz, address, len)
    }

    /// Whether the segment may be executed.
    pub fn is_executable(&self) -> bool {
        self.flags & elf::PF_X != 0
    }

    /// Whether the segment may be written.
    pub fn is_writable(&self) -> bool {
        self.flags & elf::PF_W != 0
    }
}

/// One section header with its name.
#[derive(Clone, Debug)]
pub struct Section {
    /// The name.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_addr`.
    pub addr: u64,
    /// `sh_offset`, in bytes.
    pub offset: u64,
    /// `sh_size`, in bytes.
    pub size: u64,
}

impl Section {
    /// Whether the section is part of the loaded image.
    pub fn is_loaded(&self) -> bool {
        self.flags & u64::from(elf::SHF_ALLOC) != 0
    }

    /// Whether the section holds code.
    pub fn is_executable(&self) -> bool {
        self.flags & u64::from(elf::SHF_EXECINSTR) != 0
    }

    /// Whether the section may be written.
    pub fn is_writable(&self) -> bool {
        self.flags & u64::from(elf::SHF_WRITE) != 0
    }

    /// Whether `len` bytes at this virtual address belong to the section.
    pub fn holds(&self, address: u64, len: u64) -> bool {
        within(self.addr, self.size, address, len)
    }
}

/// One symbol that is defined in a section.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// The name as the linker saw it.
    pub name: String,
    /// `STT_*`.
    pub kind: u8,
    /// The address.
    pub address: u64,
    /// The size in bytes; 0 if unknown.
    pub size: u64,
    /// Index of its section in [`Image::sections`].
    pub section: usize,
}

/// One dynamic relocation.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    /// The address that is changed.
    pub at: u64,
    /// `R_X86_64_*`.
    pub kind: u32,
    /// The addend; for a RELATIVE relocation the address in the image that is meant.
    pub addend: i64,
}

/// A readable ELF file.
#[derive(Debug)]
pub struct Image<'a> {
    bytes: &'a [u8],
    /// `e_type`.
    pub kind: u16,
    /// `e_machine`.
    pub machine: u16,
    /// `e_entry`.
    pub entry: u64,
    /// The program headers in file order.
    pub segments: Vec<Segment>,
    /// The section headers in file order.
    pub sections: Vec<Section>,
    /// The symbols of `.symtab` that lie in a section.
    pub symbols: Vec<Symbol>,
    /// The relocations of every loaded SHT_RELA section.
    pub relocations: Vec<Relocation>,
    /// Tag and value of every entry of the dynamic section.
    pub dynamic: Vec<(i64, u64)>,
}

fn unreadable(what: &str, error: object::Error) -> String {
    format!("{what} cannot be read: {error}")
}

/// Whether `[address, address + len)` lies in `[start, start + size)`, without wrapping.
pub fn within(start: u64, size: u64, address: u64, len: u64) -> bool {
    address.checked_sub(start).and_then(|offset| offset.checked_add(len)).is_some_and(|end| end <= size)
}

impl<'a> Image<'a> {
    /// Reads the file.
    ///
    /// # Errors
    /// The reason why it is not a readable 64-bit little-endian ELF file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let header = Header::parse(bytes).map_err(|error| unreadable("the ELF header", error))?;
        let endian = header.endian().map_err(|error| unreadable("the ELF header", error))?;
        if endian != Endianness::Little {
            return Err("the file is big endian; x86-64 is little endian".to_owned());
        }
        let segments: Vec<Segment> = header
            .program_headers(endian, bytes)
            .map_err(|error| unreadable("the program headers", error))?
            .iter()
            .enumerate()
            .map(|(index, segment)| Segment {
                index,
                kind: segment.p_type(endian),
                flags: segment.p_flags(endian),
                offset: segment.p_offset(endian),
                vaddr: segment.p_vaddr(endian),
                paddr: segment.p_paddr(endian),
                filesz: segment.p_filesz(endian),
                memsz: segment.p_memsz(endian),
                align: segment.p_align(endian),
            })
            .collect();

        let table = header.sections(endian, bytes).map_err(|error| unreadable("the section headers", error))?;
        let mut image = Self {
            bytes,
            kind: header.e_type(endian),
            machine: header.e_machine(endian),
            entry: header.e_entry(endian),
            segments,
            sections: Vec::new(),
            symbols: Vec::new(),
            relocations: Vec::new(),
            dynamic: Vec::new(),
        };
        for section in table.iter() {
            let name = table.section_name(endian, section).map_err(|error| unreadable("a section's name", error))?;
            let name = String::from_utf8_lossy(name).into_owned();
            let kind = section.sh_type(endian);
            let loaded = section.sh_flags(endian) & u64::from(elf::SHF_ALLOC) != 0;
            if kind == elf::SHT_RELA && loaded {
                let entries: &[elf::Rela64<Endianness>] =
                    section.data_as_array(endian, bytes).map_err(|error| unreadable(&name, error))?;
                image.relocations.extend(entries.iter().map(|entry| Relocation {
                    at: entry.r_offset(endian),
                    kind: entry.r_type(endian, false),
                    addend: entry.r_addend(endian),
                }));
            }
            if kind == elf::SHT_DYNAMIC {
                let entries: &[elf::Dyn64<Endianness>] =
                    section.data_as_array(endian, bytes).map_err(|error| unreadable(&name, error))?;
                image
                    .dynamic
                    .extend(entries.iter().map(|entry| (entry.d_tag(endian).cast_signed(), entry.d_val(endian))));
            }
            image.sections.push(Section {
                name,
                kind,
                flags: section.sh_flags(endian),
                addr: section.sh_addr(endian),
                offset: section.sh_offset(endian),
                size: section.sh_size(endian),
            });
        }

        image.read_symbols(&table, endian)?;
        Ok(image)
    }

    fn read_symbols(&mut self, table: &SectionTable<'a, Header>, endian: Endianness) -> Result<(), String> {
        let symbols = table
            .symbols(endian, self.bytes, elf::SHT_SYMTAB)
            .map_err(|error| unreadable("the symbol table", error))?;
        for (index, symbol) in symbols.enumerate() {
            let place = symbols
                .symbol_section(endian, symbol, index)
                .map_err(|error| unreadable("a symbol's section", error))?;
            let Some(SectionIndex(section)) = place else {
                continue;
            };
            if section >= self.sections.len() {
                return Err(format!("symbol {} names section {section}, which is not there", index.0));
            }
            let name = symbol.name(endian, symbols.strings()).map_err(|error| unreadable("a symbol's name", error))?;
            self.symbols.push(Symbol {
                name: String::from_utf8_lossy(name).into_owned(),
                kind: symbol.st_type(),
                address: symbol.st_value(endian),
                size: symbol.st_size(endian),
                section,
            });
        }
        Ok(())
    }

    /// The loaded segments, in file order.
    pub fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == elf::PT_LOAD)
    }

    /// The loaded segment that holds `len` bytes at this virtual address.
    pub fn load_at(&self, address: u64, len: u64) -> Option<&Segment> {
        self.loads().find(|segment| segment.holds(address, len))
    }

    /// The file's bytes for `len` bytes of memory at this virtual address; `None` if not all of them come from the file.
    pub fn memory(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        let segment = self.loads().find(|segment| within(segment.vaddr, segment.filesz, address, len))?;
        let offset = address.checked_sub(segment.vaddr)?.checked_add(segment.offset)?;
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.get(start..end)
    }

    /// All symbols of that name.
    pub fn symbols_named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Symbol> {
        self.symbols.iter().filter(move |symbol| symbol.name == name)
    }

    /// The function that starts at this address.
    pub fn function_at(&self, address: u64) -> Option<&Symbol> {
        self.symbols.iter().find(|symbol| symbol.kind == elf::STT_FUNC && symbol.address == address)
    }

    /// The name of the function that this address lies in, for messages.
    pub fn function_around(&self, address: u64) -> &str {
        self.symbols
            .iter()
            .filter(|symbol| symbol.kind == elf::STT_FUNC)
            .find(|symbol| within(symbol.address, symbol.size, address, 1))
            .map_or("code without a symbol", |symbol| &symbol.name)
    }
}
