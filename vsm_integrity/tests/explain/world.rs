//! Plays the kernel that loads a module: places its sections, relocates them, and then does to the code what a test says.
//!
//! Written anew from the kernel's rules: where it and the crate disagree, a test fails.

use std::collections::HashMap;

use vsm_integrity::generation::KernelGeneration;
use vsm_integrity::kernel_info::ArchInfo;
use vsm_integrity::module::{
    Explained, Export, Habits, Kernel, Kind, ModuleError, ModuleMemory, Plan, Range, Resolver, SealedText,
};

use crate::object::{A, Object, Place, Relocation, W, X};

/// `__x86_return_thunk`.
pub const RETURN_THUNK: u64 = 0xffff_ffff_81e0_0000;
/// The return thunk in use, where there is one.
pub const SAFE_RETURN: u64 = 0xffff_ffff_81e0_0140;
/// `__x86_indirect_thunk_array`.
pub const THUNKS: u64 = 0xffff_ffff_81e0_1000;
/// `__fentry__`.
pub const FENTRY: u64 = 0xffff_ffff_8100_0040;
/// Address of `pv_ops`.
pub const PV_OPS: u64 = 0xffff_ffff_8220_0000;
/// The operations' functions: one, one that is nothing, one that is not set.
pub const PV: [u64; 3] = [0xffff_ffff_8100_1000, 0xffff_ffff_8100_2000, 0];
/// `paravirt_BUG`.
pub const PV_BUG: u64 = 0xffff_ffff_8100_3000;
/// `pcpu_hot`, an offset.
pub const PCPU_HOT: u64 = 0x0003_4000;
/// Where the kinds are, as from Linux 6.4 on: apart.
pub const STARTS: [u64; Kind::COUNT] = [
    0xffff_ffff_c000_0000,
    0xffff_ffff_c400_0000,
    0xffff_ffff_c800_0000,
    0xffff_ffff_cc00_0000,
    0xffff_ffff_d000_0000,
    0xffff_ffff_d400_0000,
    0xffff_ffff_d800_0000,
];

/// Symbols for modules.
#[derive(Clone, Debug, Default)]
pub struct Exports(pub HashMap<String, (u64, bool, String)>);

impl Resolver for Exports {
    fn find(&self, name: &[u8]) -> Option<Export<'_>> {
        let (value, gpl, namespace) = self.0.get(std::str::from_utf8(name).ok()?)?;
        Some(Export { value: *value, gpl: *gpl, namespace: namespace.as_bytes() })
    }
}

/// Pieces of sealed text: an address and bytes.
#[derive(Clone, Debug, Default)]
pub struct Text(pub Vec<(u64, Vec<u8>)>);

impl SealedText for Text {
    fn read(&self, va: u64, into: &mut [u8]) -> bool {
        let piece = self.0.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(va.checked_sub(*start)?).ok()?;
            bytes.get(at..at + into.len())
        });
        piece.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

/// A kernel with a module in it.
#[derive(Clone, Debug)]
pub struct World {
    pub exports: Exports,
    /// What is before the kernel's functions.
    pub text: Text,
    pub return_thunk: u64,
    pub file: Vec<u8>,
    /// Where each section is: a kind and an offset.
    places: Vec<Option<(Kind, u64)>>,
    memory: Vec<Vec<u8>>,
    sizes: [u64; Kind::COUNT],
}

/// The registers, as Linux numbers them.
pub const REGISTERS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

fn exports() -> Exports {
    let mut all = HashMap::new();
    let mut add = |name: &str, value: u64| all.insert(name.to_owned(), (value, false, String::new()));
    add("__x86_return_thunk", RETURN_THUNK);
    add("__fentry__", FENTRY);
    add("pv_ops", PV_OPS);
    add("helper", 0xffff_ffff_8100_5000);
    for (register, at) in REGISTERS.iter().zip((THUNKS..).step_by(32)) {
        add(&format!("__x86_indirect_thunk_{register}"), at);
    }
    Exports(all)
}

/// What a section is for.
fn kind(name: &str, flags: u64) -> Option<Kind> {
    let init = name.starts_with(".init");
    match (flags & A != 0, flags & X != 0, flags & W != 0) {
        _ if name == ".modinfo" || name == "__versions" || name == ".data..percpu" => None,
        (false, ..) => None,
        (_, true, _) => Some(if init { Kind::InitText } else { Kind::Text }),
        (_, _, false) => Some(if init { Kind::InitRoData } else { Kind::RoData }),
        _ if init => Some(Kind::InitData),
        _ if name == "__jump_table" || name == ".data..ro_after_init" => Some(Kind::RoAfterInit),
        _ => Some(Kind::Data),
    }
}

impl World {
    /// Loads an object.
    pub fn load(object: &Object) -> Self {
        Self::load_with(object, exports(), 0)
    }

    /// Loads an object in a kernel with those symbols, with its per-CPU variables at that offset.
    pub fn load_with(object: &Object, exports: Exports, per_cpu: u64) -> Self {
        let mut world = Self {
            exports,
            text: Text::default(),
            return_thunk: RETURN_THUNK,
            file: object.write(),
            places: Vec::new(),
            memory: vec![Vec::new(); Kind::COUNT],
            sizes: [0; Kind::COUNT],
        };
        for section in &object.sections {
            world.places.push(kind(&section.name, section.flags).map(|kind| {
                let memory = &mut world.memory[kind.number()];
                memory.resize(memory.len().next_multiple_of(usize::try_from(section.align.max(1)).unwrap()), 0);
                let start = memory.len() as u64;
                memory.extend(&section.bytes);
                (kind, start)
            }));
        }
        for (memory, size) in world.memory.iter_mut().zip(&mut world.sizes) {
            memory.resize(memory.len().next_multiple_of(4096), 0);
            *size = memory.len() as u64;
        }
        for (number, section) in object.sections.iter().enumerate() {
            let inside = |offset: u64| offset < section.bytes.len() as u64;
            let written = |relocation: &&Relocation| relocation.kind != 0 && inside(relocation.offset);
            for relocation in section.relocations.iter().filter(written) {
                let symbol = &object.symbols[relocation.symbol - 1];
                let value = match symbol.section {
                    0 => world.exports.0.get(&symbol.name).map_or(0, |export| export.0),
                    0xfff1 => symbol.value,
                    index => {
                        let section = usize::from(index) - 1;
                        let start = world.places[section].map_or(per_cpu, |_| world.address((section, 0)));
                        start + symbol.value
                    }
                };
                if world.places[number].is_none() {
                    continue;
                }
                let place = (number, relocation.offset);
                let sum = value.wrapping_add_signed(relocation.addend);
                let distance = sum.wrapping_sub(world.address(place));
                match relocation.kind {
                    1 => world.put(place, &sum.to_le_bytes()),
                    24 => world.put(place, &distance.to_le_bytes()),
                    10 | 11 => world.put(place, &sum.to_le_bytes()[..4]),
                    _ => world.put(place, &distance.to_le_bytes()[..4]),
                }
            }
        }
        world
    }

    /// Address of a place.
    pub fn address(&self, (section, offset): Place) -> u64 {
        let (kind, start) = self.places[section].unwrap();
        STARTS[kind.number()] + start + offset
    }

    /// Writes bytes.
    pub fn put(&mut self, place: Place, bytes: &[u8]) {
        self.bytes(place, bytes.len()).copy_from_slice(bytes);
    }

    /// Bytes in memory.
    pub fn bytes(&mut self, (section, offset): Place, length: usize) -> &mut [u8] {
        let (kind, start) = self.places[section].unwrap();
        let at = usize::try_from(start + offset).unwrap();
        &mut self.memory[kind.number()][at..at + length]
    }

    /// Makes a range that many pages long.
    pub fn grow(&mut self, kind: Kind, pages: u64) {
        self.sizes[kind.number()] = pages * 4096;
        self.memory[kind.number()].resize(usize::try_from(pages * 4096).unwrap(), 0);
    }

    /// A byte of a range.
    pub fn raw(&mut self, kind: Kind, at: usize) -> &mut u8 {
        &mut self.memory[kind.number()][at]
    }

    /// Writes a call or jump of five bytes.
    pub fn branch(&mut self, place: Place, opcode: u8, target: u64) {
        let code = branch(opcode, self.address(place), target);
        self.put(place, &code);
    }

    /// The ranges.
    pub fn memory(&self) -> Result<ModuleMemory<'_>, ModuleError> {
        let ranges: Vec<Range<'_>> = Kind::ALL
            .into_iter()
            .filter(|kind| self.sizes[kind.number()] != 0)
            .map(|kind| Range {
                kind,
                va: STARTS[kind.number()],
                size: self.sizes[kind.number()],
                bytes: &self.memory[kind.number()],
            })
            .collect();
        ModuleMemory::new(&ranges)
    }

    /// What the kernel says about itself.
    pub fn kernel(&self) -> Kernel<'_> {
        let arch = ArchInfo {
            pv_ops: &PV,
            pv_bug: PV_BUG,
            pv_nop: PV[1],
            indirect_thunks: THUNKS,
            return_thunk_init: RETURN_THUNK,
            return_thunk: self.return_thunk,
        };
        let generation = KernelGeneration::from_exports(|name| self.exports.find(name).is_some());
        Kernel { arch, generation, text: &self.text }
    }

    /// Explains the module.
    pub fn explain(&self) -> Result<Explained, ModuleError> {
        let memory = self.memory()?;
        Plan::new(&self.file, &memory, self.kernel(), &self.exports)?.explain(&memory, &Habits::default())
    }

    /// The plan, for a closer look.
    pub fn plan(&self) -> Plan<'_> {
        Plan::new(&self.file, &self.memory().unwrap(), self.kernel(), &self.exports).unwrap()
    }

    /// The module is accepted.
    #[track_caller]
    pub fn accepted(&self) -> Explained {
        self.explain().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The module is refused, for bytes that have no explanation.
    #[track_caller]
    pub fn refused(&self) {
        match self.explain() {
            Err(ModuleError::Unexplained(_)) => {}
            other => panic!("{:?}", other.map(|explained| explained.statistics)),
        }
    }

    /// The module is refused with bytes there.
    #[track_caller]
    pub fn refused_with(&self, place: Place, bytes: &[u8]) {
        let mut changed = self.clone();
        changed.put(place, bytes);
        changed.refused();
    }

    /// The module is accepted with bytes there.
    #[track_caller]
    pub fn accepted_with(&self, place: Place, bytes: &[u8]) {
        let mut changed = self.clone();
        changed.put(place, bytes);
        changed.accepted();
    }
}

/// A call or jump of five bytes.
pub fn branch(opcode: u8, va: u64, target: u64) -> [u8; 5] {
    let distance = i32::try_from(target.wrapping_sub(va + 5).cast_signed()).unwrap().to_le_bytes();
    [opcode, distance[0], distance[1], distance[2], distance[3]]
}
