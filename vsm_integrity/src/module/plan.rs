//! All that follows from the signed file, the addresses of its ranges and what VTL1 knows of the kernel, before a byte of
//! the module's memory is looked at.
//!
//! Trusts the file's bytes not to change, the [`Kernel`] and the [`Resolver`]. Takes heap for sites, 8 bytes of each and a
//! sixteenth more (2.2 MiB at most), symbols, 8 bytes of each (half a MiB at most) and 16 of each that others must define,
//! and sections, some 12 bytes of each. Where calls may be counted, functions of the module that are called are sites too.

use alloc::vec::Vec;

use super::error::{ModuleError, Name};
use super::kernel::Kernel;
use super::kind::Kind;
use super::layout::{Layout, Place};
use super::memory::ModuleMemory;
use super::modinfo::ModInfo;
use super::pairs;
use super::relocate::{self, Ordered, RelocationIndex, Written};
use super::sites::{self, Fields, Site, Source, Tables};
use super::symbols::{Resolver, Symbols, Value};
use crate::elf::{Elf, Relocation, RelocationType, Section};

/// What a module must look like in memory.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) elf: Elf<'a>,
    pub(super) info: ModInfo<'a>,
    pub(super) layout: Layout,
    pub(super) symbols: Symbols,
    pub(super) relocations: RelocationIndex,
    /// By address.
    pub(super) sites: Vec<Site>,
    pub(super) tables: Tables,
    pub(super) kernel: Kernel<'a>,
    /// Address of `__fentry__`.
    pub(super) fentry: Option<u64>,
    /// Address of `pv_ops`.
    pub(super) pv_ops: Option<u64>,
    /// Offset of `pcpu_hot` in the per-CPU area.
    pub(super) pcpu_hot: Option<u64>,
    /// Addresses of the kernel's arrays of thunks: against ITS, and those that count the depth of calls and jumps.
    pub(super) its_thunks: Option<u64>,
    pub(super) depth_call_thunks: Option<u64>,
    pub(super) depth_jump_thunks: Option<u64>,
    /// Size and alignment of the per-CPU variables.
    pub(super) per_cpu: (u64, u64),
    /// Where the section `.text` is.
    main_text: (u64, u64),
}

impl<'a> Plan<'a> {
    /// Reads the file and computes the layout in `memory`, whose bytes it does not look at.
    ///
    /// `file` is the module without its signature, or with it; what comes after the object does not matter.
    ///
    /// # Errors
    /// Whatever makes Linux refuse to load the file into these ranges, and what this crate does not support.
    pub fn new(
        file: &'a [u8],
        memory: &ModuleMemory<'_>,
        kernel: Kernel<'a>,
        resolver: &impl Resolver,
    ) -> Result<Self, ModuleError> {
        let elf = Elf::parse(file)?;
        let info = ModInfo::new(elf.find(b".modinfo").map(|section| elf.bytes(&section)).unwrap_or_default());
        let layout = Layout::new(&elf, &info, memory)?;
        let symbols = Symbols::new(&elf, &info, &layout, resolver)?;
        let relocations = RelocationIndex::new(&elf)?;
        let source = Source { elf: &elf, layout: &layout, symbols: &symbols, relocations: &relocations };
        let (mut sites, tables) = sites::collect(source)?;
        sites.dedup_by(|second, first| pairs::replaces(*second, first));
        let address = |name: &[u8]| resolver.find(name).map(|export| export.value);
        let per_cpu = elf.sections().find(|section| layout.place(section.index) == Place::PerCpu);
        let text = elf.sections().find(|section| section.name == b".text");
        let main_text = text.and_then(|text| Some((layout.address(text.index)?, text.size)));
        let mut plan = Self {
            elf,
            info,
            layout,
            symbols,
            relocations,
            sites,
            tables,
            kernel,
            fentry: address(b"__fentry__"),
            pv_ops: address(b"pv_ops"),
            pcpu_hot: address(b"pcpu_hot"),
            its_thunks: address(b"__x86_indirect_its_thunk_rax"),
            depth_call_thunks: address(b"__x86_indirect_call_thunk_rax"),
            depth_jump_thunks: address(b"__x86_indirect_jump_thunk_rax"),
            per_cpu: per_cpu.map_or((0, 1), |section| (section.size, section.align)),
            main_text: main_text.unwrap_or_default(),
        };
        plan.place_thunks()?;
        plan.place_pads()?;
        Ok(plan)
    }

    /// What is needed to read a list.
    pub(super) fn source(&self) -> Source<'_, 'a> {
        Source { elf: &self.elf, layout: &self.layout, symbols: &self.symbols, relocations: &self.relocations }
    }

    /// Whether the address is in the section `.text`.
    pub(super) fn in_main_text(&self, va: u64) -> bool {
        va.checked_sub(self.main_text.0).is_some_and(|offset| offset < self.main_text.1)
    }

    /// Whether the address is in code that stays after initialisation.
    pub(super) fn in_text(&self, va: u64) -> bool {
        self.layout.find(va).is_some_and(|(kind, _)| kind == Kind::Text)
    }

    /// Address of a site.
    pub(super) fn address(&self, site: Site) -> u64 {
        self.layout.start(site.kind()).wrapping_add(u64::from(site.offset()))
    }

    /// An error about a site.
    pub(super) fn refuse_site(&self, site: Site, rule: &'static str) -> ModuleError {
        let section = self.layout.section_at(site.kind(), site.offset());
        let Some((section, Place::Range(_, start))) = section.map(|index| (index, self.layout.place(index))) else {
            return ModuleError::section(site.kind().name().as_bytes(), 0, rule);
        };
        let name = self.elf.section(section).map_or(&b""[..], |section| section.name);
        let offset = u64::from(site.offset() - start);
        ModuleError::Section { section: Name::new(name), offset, rule }
    }

    /// What a relocation writes, for the section at `va` that has those bytes in the file.
    ///
    /// # Errors
    /// Why Linux would not apply it.
    pub(super) fn written(
        &self,
        relocation: &Relocation,
        kind: RelocationType,
        va: u64,
        per_cpu: Option<u64>,
    ) -> Result<Written, &'static str> {
        let value = self.symbols.value(&self.elf, &self.layout, relocation.symbol)?;
        let value = value.number(per_cpu).ok_or("a per-CPU variable's place must be known")?;
        relocate::compute(kind, value, relocation.addend, va.wrapping_add(relocation.offset))
    }

    /// Type and place of a relocation within `file`, the section's bytes.
    ///
    /// # Errors
    /// Why Linux would not apply it.
    #[inline]
    pub(super) fn checked(
        relocation: &Relocation,
        file: &[u8],
    ) -> Result<(RelocationType, core::ops::Range<usize>), &'static str> {
        let kind = relocation.known_type().ok_or("a relocation is of a type that Linux does not know")?;
        let start = usize::try_from(relocation.offset).map_err(|_| "a relocation is too far away")?;
        let end = start.checked_add(kind.width()).ok_or("a relocation is too far away")?;
        let bytes = file.get(start..end).ok_or("a relocation must lie within its section")?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err("the bytes at a relocation must be zero in the file");
        }
        Ok((kind, start..end))
    }

    /// The value of the symbol of a relocation.
    pub(super) fn value(&self, relocation: &Relocation) -> Result<Value, &'static str> {
        self.symbols.value(&self.elf, &self.layout, relocation.symbol)
    }

    /// Fills `into` with the file's bytes of a section from `at` on, relocated.
    ///
    /// # Errors
    /// When they are not all there, or a relocation can't be applied or crosses the ends.
    pub(super) fn original(
        &self,
        section: &Section<'_>,
        relocations: &Ordered<'_>,
        at: usize,
        into: &mut [u8],
    ) -> Result<(), &'static str> {
        let end = at.checked_add(into.len()).ok_or("code must lie within its section")?;
        let file = self.elf.bytes(section);
        into.copy_from_slice(file.get(at..end).ok_or("code must lie within its section")?);
        let va = self.layout.address(section.index).ok_or("code must be in memory")?;
        let mut next = relocations.before(at as u64);
        while let Some(relocation) = relocations.get(next).filter(|relocation| relocation.offset < end as u64) {
            let (kind, range) = Self::checked(&relocation, file)?;
            if kind != RelocationType::None {
                let written = self.written(&relocation, kind, va, None)?;
                let place = range.start - at..range.end - at;
                let field = into.get_mut(place).ok_or("a relocation must not cross the end of a site")?;
                field.copy_from_slice(written.as_slice());
            }
            next += 1;
        }
        Ok(())
    }

    /// The module's name for itself; empty when it has none.
    pub fn name(&self) -> &'a [u8] {
        self.info.get(b"name").unwrap_or_default()
    }

    /// What the module says about itself.
    pub const fn info(&self) -> &ModInfo<'a> {
        &self.info
    }

    /// The file.
    pub const fn elf(&self) -> &Elf<'a> {
        &self.elf
    }

    /// Where its sections are.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the symbol of that index stands for.
    ///
    /// # Errors
    /// When it does not exist, or is in a section that is not in memory.
    pub fn symbol_value(&self, index: usize) -> Result<Value, &'static str> {
        self.symbols.value(&self.elf, &self.layout, index)
    }

    /// The relocated fields of a section.
    pub(super) fn fields(&self, section: Section<'a>) -> Fields<'_, 'a> {
        Fields::new(self.source(), section)
    }

    /// The kinds of ranges that are explained.
    pub(super) fn explained() -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| kind.is_explained())
    }
}
