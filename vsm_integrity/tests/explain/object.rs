//! Writes relocatable ELF64 objects, with no check that would stop a test from writing a broken one.

/// `SHF_WRITE`.
pub const W: u64 = 1;
/// `SHF_ALLOC`.
pub const A: u64 = 2;
/// `SHF_EXECINSTR`.
pub const X: u64 = 4;
/// `R_X86_64_64`.
pub const ABS64: u32 = 1;
/// `R_X86_64_PC32`.
pub const PC32: u32 = 2;
/// `R_X86_64_32S`.
pub const S32: u32 = 11;

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    pub name: String,
    pub kind: u32,
    pub flags: u64,
    pub align: u64,
    pub bytes: Vec<u8>,
    pub relocations: Vec<Relocation>,
}

/// A relocation.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    pub offset: u64,
    pub kind: u32,
    pub symbol: usize,
    pub addend: i64,
}

/// A symbol.
#[derive(Clone, Debug)]
pub struct Symbol {
    pub name: String,
    pub info: u8,
    pub section: u16,
    pub value: u64,
}

/// An object.
#[derive(Clone, Debug, Default)]
pub struct Object {
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
}

/// A place in a section: its number in [`Object::sections`] and an offset.
pub type Place = (usize, u64);

impl Object {
    /// An object with the texts about itself.
    pub fn new(info: &str) -> Self {
        let mut object = Self::default();
        object.section(".modinfo", A, 1, info.replace('|', "\0").as_bytes());
        object
    }

    /// Adds a section, with a symbol for it; returns its number.
    pub fn section(&mut self, name: &str, flags: u64, align: u64, bytes: &[u8]) -> usize {
        let number = self.sections.len();
        self.sections.push(Section {
            name: name.into(),
            kind: 1,
            flags,
            align,
            bytes: bytes.to_vec(),
            relocations: Vec::new(),
        });
        self.symbols.push(Symbol {
            name: String::new(),
            info: 3,
            section: u16::try_from(number + 1).unwrap(),
            value: 0,
        });
        number
    }

    /// The symbol of a section.
    pub fn symbol_of(&self, section: usize) -> usize {
        let index = u16::try_from(section + 1).unwrap();
        self.symbols.iter().position(|symbol| symbol.section == index && symbol.info == 3).unwrap() + 1
    }

    /// A symbol that others define.
    pub fn undefined(&mut self, name: &str) -> usize {
        if let Some(at) = self.symbols.iter().position(|symbol| symbol.name == name) {
            return at + 1;
        }
        self.symbols.push(Symbol { name: name.into(), info: 0x10, section: 0, value: 0 });
        self.symbols.len()
    }

    /// Adds a relocation.
    pub fn relocate(&mut self, place: Place, kind: u32, symbol: usize, addend: i64) {
        let (section, offset) = place;
        self.sections[section].relocations.push(Relocation { offset, kind, symbol, addend });
    }

    /// Adds a section of distances to places, as lists of sites are.
    pub fn list(&mut self, name: &str, sites: &[Place]) -> usize {
        let list = self.section(name, A, 4, &vec![0; sites.len() * 4]);
        for (index, (section, offset)) in sites.iter().enumerate() {
            let symbol = self.symbol_of(*section);
            self.relocate((list, index as u64 * 4), PC32, symbol, i64::try_from(*offset).unwrap());
        }
        list
    }

    /// Adds a branch to a symbol behind the opcode at `place`, which has `opcode` bytes.
    pub fn branch(&mut self, place: Place, opcode: u64, name: &str) {
        let symbol = self.undefined(name);
        self.relocate((place.0, place.1 + opcode), PC32, symbol, -4);
    }

    /// The file.
    pub fn write(&self) -> Vec<u8> {
        let mut names = vec![0];
        let mut texts = vec![0];
        let text = |table: &mut Vec<u8>, name: &str| {
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(table.len()).unwrap();
            table.extend(name.as_bytes());
            table.push(0);
            at
        };
        let mut file = vec![0; 64];
        let mut headers = vec![[0u8; 64]];
        let mut header =
            |name: u32, kind: u32, flags: u64, place: (u64, u64), link: (u32, u32), align: u64, entry: u64| {
                let mut header = [0; 64];
                header[0..4].copy_from_slice(&name.to_le_bytes());
                header[4..8].copy_from_slice(&kind.to_le_bytes());
                header[8..16].copy_from_slice(&flags.to_le_bytes());
                header[24..32].copy_from_slice(&place.0.to_le_bytes());
                header[32..40].copy_from_slice(&place.1.to_le_bytes());
                header[40..44].copy_from_slice(&link.0.to_le_bytes());
                header[44..48].copy_from_slice(&link.1.to_le_bytes());
                header[48..56].copy_from_slice(&align.to_le_bytes());
                header[56..64].copy_from_slice(&entry.to_le_bytes());
                headers.push(header);
            };
        let count = self.sections.len();
        let relocated = self.sections.iter().filter(|section| !section.relocations.is_empty()).count();
        // Sections, their relocations, symbols, names of symbols, names of sections.
        let symbol_table = u32::try_from(1 + count + relocated).unwrap();
        for section in &self.sections {
            file.resize(file.len().next_multiple_of(16), 0);
            let place = (file.len() as u64, section.bytes.len() as u64);
            if section.kind != 8 {
                file.extend(&section.bytes);
            }
            header(text(&mut names, &section.name), section.kind, section.flags, place, (0, 0), section.align, 0);
        }
        for (number, section) in self.sections.iter().enumerate().filter(|(_, section)| !section.relocations.is_empty())
        {
            let place = (file.len() as u64, section.relocations.len() as u64 * 24);
            for relocation in &section.relocations {
                file.extend(relocation.offset.to_le_bytes());
                file.extend(((relocation.symbol as u64) << 32 | u64::from(relocation.kind)).to_le_bytes());
                file.extend(relocation.addend.to_le_bytes());
            }
            let name = text(&mut names, &format!(".rela{}", section.name));
            header(name, 4, 0x40, place, (symbol_table, u32::try_from(number + 1).unwrap()), 8, 24);
        }
        let start = file.len() as u64;
        file.extend([0; 24]);
        for symbol in &self.symbols {
            file.extend(text(&mut texts, &symbol.name).to_le_bytes());
            file.extend([symbol.info, 0]);
            file.extend(symbol.section.to_le_bytes());
            file.extend(symbol.value.to_le_bytes());
            file.extend([0; 8]);
        }
        let name = text(&mut names, ".symtab");
        let size = file.len() as u64 - start;
        header(name, 2, 0, (start, size), (symbol_table + 1, 1), 8, 24);
        let name = text(&mut names, ".strtab");
        header(name, 3, 0, (file.len() as u64, texts.len() as u64), (0, 0), 1, 0);
        file.extend(&texts);
        let name = text(&mut names, ".shstrtab");
        header(name, 3, 0, (file.len() as u64, names.len() as u64), (0, 0), 1, 0);
        file.extend(&names);
        file.resize(file.len().next_multiple_of(8), 0);
        let table = file.len() as u64;
        let sections = u16::try_from(headers.len()).unwrap();
        file.extend(headers.iter().flatten());
        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file[16..18].copy_from_slice(&1u16.to_le_bytes());
        file[18..20].copy_from_slice(&62u16.to_le_bytes());
        file[20..24].copy_from_slice(&1u32.to_le_bytes());
        file[40..48].copy_from_slice(&table.to_le_bytes());
        file[52..54].copy_from_slice(&64u16.to_le_bytes());
        file[58..60].copy_from_slice(&64u16.to_le_bytes());
        file[60..62].copy_from_slice(&sections.to_le_bytes());
        file[62..64].copy_from_slice(&(sections - 1).to_le_bytes());
        file
    }
}
