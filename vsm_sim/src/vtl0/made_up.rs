//! A small module built here, not captured, and loaded as Linux would load it, so that what is in memory is known.
//!
//! It has a part of every kind, a call of the kernel's or of another module's function, a jump label in its text and one in
//! its init text, static calls of every shape with their trampoline, and symbols for other modules. Nothing of it was ever
//! meant to run.

use anyhow::{Context, Result};
use object::write::{Object, Relocation as Written, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};
use vsm_integrity::module::Kind;

use super::kdata::KernelData;
use super::modules::{Call, Label, Module, Part};
use super::signer::Signer;
use crate::random::SplitMix;

/// `R_X86_64_64`, `R_X86_64_PC32`, `R_X86_64_PLT32`, `R_X86_64_PC64` (System V ABI for x86-64, "Relocation").
const ABSOLUTE64: u32 = 1;
const RELATIVE32: u32 = 2;
const CALL32: u32 = 4;
const RELATIVE64: u32 = 24;
/// `SHF_WRITE`, `SHF_ALLOC`, `SHF_EXECINSTR` (System V ABI, "Sections").
const WRITE: u64 = 1;
const ALLOC: u64 = 2;
const EXECUTE: u64 = 4;
/// The NOP of five bytes where a jump label is (Linux `arch/x86/include/asm/nops.h`).
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
/// Offsets in the text: the call, the jump label, where its jump leads, the exported function.
const CALL: usize = 0x10;
const LABEL: usize = 0xffe;
const TARGET: usize = 0x1100;
/// The static calls: section, offset, bytes before the displacement, flags (`STATIC_CALL_SITE_TAIL`, `STATIC_CALL_SITE_INIT`,
/// include/linux/static_call_types.h). A call, a tail call, a tail call under a condition, a call in the init text, and one
/// that crosses a page, which a short text does not have.
const CALLS: [(usize, usize, &[u8], i64); 5] = [
    (0, 0x200, &[0xe8], 0),
    (0, 0x210, &[0xe9], 1),
    (0, 0x220, &[0x0f, 0x84], 1),
    (1, 8, &[0xe8], 2),
    (0, 0x1ffd, &[0xe8], 0),
];
/// Numbers of the sections with the trampoline and with the list of static calls.
const TRAMPOLINE: usize = 13;
const STATIC_CALLS: usize = 14;
/// A trampoline: a jump, and UD1, by which Linux knows one (arch/x86/include/asm/static_call.h).
const JUMP_AND_MARK: [u8; 8] = [0xe9, 0, 0, 0, 0, 0x0f, 0xb9, 0xcc];
/// Offset in the text of a function that the module does not export.
pub const LOCAL_FUNCTION: u64 = 0x400;
/// Offset of the function that the module exports.
pub const FUNCTION: u64 = 0x80;
const PAGE: usize = 4096;

/// Where made-up modules lie: Linux's area for modules (Documentation/arch/x86/x86_64/mm.rst).
pub const MODULES: u64 = 0xffff_ffff_c000_0000;

/// A made-up kernel, who may sign its modules, and two of those: the second calls the first.
pub struct MadeUpKernel {
    /// What LoadKData hands over; the signer is among the trusted.
    pub data: KernelData,
    /// Who signs the modules.
    pub signer: Signer,
    /// A function that the kernel exports: name and value.
    pub helper: (String, u64),
    /// The first module, which calls the helper.
    pub first: Module,
    /// The second one, which calls the first.
    pub second: Module,
}

impl MadeUpKernel {
    /// A kernel with about `symbols` symbols; keys are made anew each time.
    ///
    /// # Errors
    /// When `openssl` is missing or fails.
    pub fn new(symbols: usize) -> Result<Self> {
        Self::signed_by(Signer::authority("the builder of a kernel")?, symbols)
    }

    /// As [`Self::new`], with the modules signed by `signer`.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn signed_by(signer: Signer, symbols: usize) -> Result<Self> {
        let (mut data, exports) = KernelData::made_up(symbols, 1);
        data.certificates.extend(signer.certificate());
        // One that is no per-CPU variable, so that it is within reach.
        let helper = exports.into_iter().find(|export| export.value > 1 << 63).context("a function")?;
        let helper = (helper.name, helper.value);
        let first = MadeUp { name: "first".into(), calls: helper.clone(), start: MODULES, text_pages: 3 };
        let calls = ("first_function".to_owned(), first.function());
        let second = MadeUp { name: "second".into(), calls, start: MODULES + 0x100_0000, text_pages: 2 };
        let uses = vec![first.name.clone()];
        let [first, second] = [first.signed(&signer)?, second.signed(&signer)?];
        Ok(Self { data, signer, helper, first, second: Module { uses, ..second } })
    }
}

/// What a relocation refers to.
#[derive(Clone, Debug)]
enum Target {
    /// A section of the module.
    Section(usize),
    /// A symbol of another module or the kernel, and its value.
    Symbol(String, u64),
}

/// A relocation: offset, type, target, addend.
type Relocation = (usize, u32, Target, i64);

struct Section {
    name: &'static str,
    flags: u64,
    kind: Option<Kind>,
    bytes: Vec<u8>,
    relocations: Vec<Relocation>,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct MadeUp {
    /// The module's name. It exports `NAME_function`, and `NAME_gpl` for GPL-compatible modules.
    pub name: String,
    /// The symbol that it calls, and its value.
    pub calls: (String, u64),
    /// The first address of its text. The other kinds lie behind, each 1 MiB further.
    pub start: u64,
    /// Pages of text: two at least.
    pub text_pages: usize,
}

impl MadeUp {
    /// The file, without a signature, and the module in memory; the module's file is the unsigned one.
    ///
    /// # Errors
    /// When the called symbol is too far away for a call.
    pub fn build(&self) -> Result<Module> {
        let sections = self.sections();
        let file = write(&sections, &self.functions())?;
        let (parts, places) = load(&sections, self.start)?;
        let text = places.first().copied().flatten().context("text")?;
        let init = places.get(1).copied().flatten().context("init text")?;
        // A jump of five bytes, to the label's target.
        let long = i32::try_from(TARGET - LABEL - 5)?.to_le_bytes();
        let labels = vec![
            Label { va: text + LABEL as u64, jump: [&[0xe9][..], &long].concat() },
            Label { va: init + 4, jump: vec![0xeb, 0] },
        ];
        let calls = self.calls(&parts, &places)?;
        Ok(Module { name: self.name.clone(), file, parts, labels, calls, thunks: Vec::new(), uses: Vec::new() })
    }

    /// The static calls, and the trampoline, each of which Linux makes go to what the module calls.
    fn calls(&self, parts: &[Part], places: &[Option<u64>]) -> Result<Vec<Call>> {
        let trampoline = [(TRAMPOLINE, 0, &[0xe9][..], 0)];
        let all = self.static_calls().copied().chain(trampoline);
        all.map(|(section, offset, opcode, _)| {
            let va = places[section].context("a section in memory")? + offset as u64;
            let size = opcode.len() + 4;
            let part = parts.iter().find(|part| va >= part.va && va - part.va < part.bytes.len() as u64);
            let part = part.context("a static call in the text")?;
            let at = usize::try_from(va - part.va)?;
            let distance = self.calls.1.wrapping_sub(va + size as u64).cast_signed();
            let distance = i32::try_from(distance).context("a function is too far away")?.to_le_bytes();
            Ok(Call { va, compiled: part.bytes[at..at + size].to_vec(), direct: [opcode, &distance].concat() })
        })
        .collect()
    }

    fn static_calls(&self) -> impl Iterator<Item = &'static (usize, usize, &'static [u8], i64)> {
        let end = self.text_pages * PAGE - 200;
        CALLS.iter().filter(move |(section, offset, ..)| *section != 0 || *offset < end)
    }

    /// The symbols that are functions: name, section, offset.
    fn functions(&self) -> Vec<(String, usize, u64)> {
        let name = &self.name;
        vec![
            (format!("{name}_local"), 0, LOCAL_FUNCTION),
            (format!("{name}_start"), 1, 0),
            (format!("__SCT__{name}"), TRAMPOLINE, 0),
        ]
    }

    /// As [`Self::build`], with the file signed.
    ///
    /// # Errors
    /// As there, and when `openssl` fails.
    pub fn signed(&self, signer: &Signer) -> Result<Module> {
        let module = self.build()?;
        Ok(Module { file: signer.sign(&module.file)?, ..module })
    }

    /// The value of the symbol `NAME_function`.
    #[must_use]
    pub fn function(&self) -> u64 {
        self.start + FUNCTION
    }

    fn sections(&self) -> Vec<Section> {
        // What the text is made of does not matter, as long as two modules differ.
        let mut random = SplitMix(self.start ^ self.name.len() as u64);
        let mut text: Vec<u8> = (0..self.text_pages * PAGE - 100).map(|_| random.next().to_le_bytes()[0]).collect();
        text[CALL..CALL + 5].copy_from_slice(&[0xe8, 0, 0, 0, 0]);
        text[LABEL..LABEL + 5].copy_from_slice(&NOP5);
        let mut init = vec![0x31, 0xc0, 0xc3, 0x90, 0x66, 0x90, 0xc3, 0x90, 0, 0, 0, 0, 0, 0xc3];
        for (section, offset, opcode, _) in self.static_calls() {
            let bytes = if *section == 0 { &mut text } else { &mut init };
            let place = &mut bytes[*offset..*offset + opcode.len() + 4];
            place.fill(0);
            place[..opcode.len()].copy_from_slice(opcode);
        }
        let section = |name, flags, kind, bytes: &[u8]| Section {
            name,
            flags: flags | ALLOC,
            kind,
            bytes: bytes.to_vec(),
            relocations: Vec::new(),
        };
        let information = format!("license=GPL\0name={0}\0vermagic=6.6.0 SMP mod_unload \0depends=\0", self.name);
        let names = format!("{0}_function\0{0}_gpl\0\0", self.name);
        let (first, second) = (self.name.len() + 10, names.len() - 1);
        let mut sections = vec![
            section(".text", EXECUTE, Some(Kind::Text), &text),
            // xor %eax,%eax; ret; then a NOP of two bytes and a return; then a static call and a return.
            section(".init.text", EXECUTE, Some(Kind::InitText), &init),
            section(
                ".rodata",
                0,
                Some(Kind::RoData),
                &[&b"a text that nobody changes\0\0\0\0\0\0"[..], &[0; 8]].concat(),
            ),
            section("__ksymtab", 0, Some(Kind::RoData), &[0; 12]),
            section("__ksymtab_gpl", 0, Some(Kind::RoData), &[0; 12]),
            section("__ksymtab_strings", 0, Some(Kind::RoData), names.as_bytes()),
            section(".init.rodata", 0, Some(Kind::InitRoData), b"a text for the beginning\0"),
            section(".data", WRITE, Some(Kind::Data), &[7; 5000]),
            section(".data..ro_after_init", WRITE, Some(Kind::RoAfterInit), &[9; 64]),
            section("__jump_table", WRITE, Some(Kind::RoAfterInit), &[0; 32]),
            section(".init.data", WRITE, Some(Kind::InitData), &[5; 128]),
            section(".gnu.linkonce.this_module", WRITE, Some(Kind::Data), &[0; 0x400]),
            section(".modinfo", 0, None, information.as_bytes()),
            section(".static_call.text", EXECUTE, Some(Kind::Text), &JUMP_AND_MARK),
            section(".static_call_sites", WRITE, Some(Kind::RoAfterInit), &vec![0; self.static_calls().count() * 8]),
        ];
        let (symbol, value) = self.calls.clone();
        sections[0].relocations.push((CALL + 1, CALL32, Target::Symbol(symbol, value), -4));
        // A pointer to the function.
        sections[2].relocations.push((32, ABSOLUTE64, Target::Section(0), FUNCTION.cast_signed()));
        let end = i64::try_from(second).unwrap_or(0);
        for (table, name) in [(3, 0), (4, first)] {
            let name = i64::try_from(name).unwrap_or(0);
            sections[table].relocations = vec![
                (0, RELATIVE32, Target::Section(0), FUNCTION.cast_signed()),
                (4, RELATIVE32, Target::Section(5), name),
                (8, RELATIVE32, Target::Section(5), end),
            ];
        }
        // The second key's lowest bit: likely.
        for (entry, code, target, key) in [(0, (0, LABEL), TARGET, 64), (16, (1, 4), 6, 129)] {
            let signed = |number: usize| i64::try_from(number).unwrap_or(0);
            sections[9].relocations.extend([
                (entry, RELATIVE32, Target::Section(code.0), signed(code.1)),
                (entry + 4, RELATIVE32, Target::Section(code.0), signed(target)),
                (entry + 8, RELATIVE64, Target::Section(7), key),
            ]);
        }
        // The trampoline leads to the module's function until Linux changes that.
        sections[TRAMPOLINE].relocations.push((1, CALL32, Target::Section(0), FUNCTION.cast_signed() - 4));
        for (index, (section, offset, opcode, flags)) in self.static_calls().enumerate() {
            let displacement = offset + opcode.len();
            sections[*section].relocations.push((displacement, CALL32, Target::Section(TRAMPOLINE), -4));
            sections[STATIC_CALLS].relocations.extend([
                (index * 8, RELATIVE32, Target::Section(*section), i64::try_from(*offset).unwrap_or(0)),
                (index * 8 + 4, RELATIVE32, Target::Section(7), 192 + flags),
            ]);
        }
        sections
    }
}

/// The object file.
fn write(sections: &[Section], functions: &[(String, usize, u64)]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let mut ids: Vec<(SectionId, SymbolId)> = Vec::new();
    for section in sections {
        let kind = if section.flags & EXECUTE != 0 { SectionKind::Text } else { SectionKind::Data };
        let id = object.add_section(Vec::new(), section.name.into(), kind);
        object.section_mut(id).flags = SectionFlags::Elf { sh_flags: section.flags };
        object.append_section_data(id, &section.bytes, 16);
        ids.push((id, object.section_symbol(id)));
    }
    for (name, section, value) in functions {
        object.add_symbol(Symbol {
            name: name.clone().into_bytes(),
            value: *value,
            size: 4,
            kind: SymbolKind::Text,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Section(ids[*section].0),
            flags: SymbolFlags::None,
        });
    }
    for (section, (id, _)) in sections.iter().zip(&ids) {
        for (offset, r_type, target, addend) in &section.relocations {
            let symbol = match target {
                Target::Section(number) => ids[*number].1,
                Target::Symbol(name, _) => object.add_symbol(Symbol {
                    name: name.clone().into_bytes(),
                    value: 0,
                    size: 0,
                    kind: SymbolKind::Unknown,
                    scope: SymbolScope::Unknown,
                    weak: false,
                    section: SymbolSection::Undefined,
                    flags: SymbolFlags::None,
                }),
            };
            let flags = RelocationFlags::Elf { r_type: *r_type };
            object.add_relocation(*id, Written { offset: *offset as u64, symbol, addend: *addend, flags })?;
        }
    }
    Ok(object.write()?)
}

/// The parts in memory, and the address of each section that is there.
fn load(sections: &[Section], start: u64) -> Result<(Vec<Part>, Vec<Option<u64>>)> {
    let mut parts: Vec<Part> = Vec::new();
    for kind in Kind::ALL {
        parts.push(Part { kind, va: start + ((kind.number() as u64) << 20), bytes: Vec::new() });
    }
    let mut places = Vec::new();
    for section in sections {
        places.push(section.kind.map(|kind| {
            let part = &mut parts[kind.number()];
            part.bytes.resize(part.bytes.len().next_multiple_of(16), 0);
            let va = part.va + part.bytes.len() as u64;
            part.bytes.extend(&section.bytes);
            va
        }));
    }
    for part in &mut parts {
        part.bytes.resize(part.bytes.len().next_multiple_of(PAGE), 0);
    }
    for (section, place) in sections.iter().zip(&places) {
        let (Some(kind), Some(place)) = (section.kind, place) else { continue };
        for (offset, r_type, target, addend) in &section.relocations {
            let value = match target {
                Target::Section(number) => places[*number].context("a section in memory")?,
                Target::Symbol(_, value) => *value,
            };
            let at = place + *offset as u64;
            let absolute = value.wrapping_add_signed(*addend);
            let relative = absolute.wrapping_sub(at).cast_signed();
            let bytes = match *r_type {
                ABSOLUTE64 => absolute.to_le_bytes().to_vec(),
                RELATIVE64 => relative.to_le_bytes().to_vec(),
                _ => i32::try_from(relative).context("a symbol is too far away")?.to_le_bytes().to_vec(),
            };
            let part = &mut parts[kind.number()];
            let start = usize::try_from(at - part.va)?;
            part.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }
    Ok((parts, places))
}
