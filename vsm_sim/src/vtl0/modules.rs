//! What VTL0's Linux and its HEKI driver do for a module: its memory, its file and its patch sites in frames, and the list
//! that names them (LVBS contract §5.1, §5.7).
//!
//! A module is as the kernel has it when it asks for validation: relocated, rewritten, nothing of it has run. Where its
//! bytes come from is not this file's business: captured or made up.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use vsm_integrity::module::Kind;

use super::bytes;
use super::kdata::{Site, append, patch_record};
use super::lists::Range;
use crate::hv::GuestMemory;
use crate::random::SplitMix;
use crate::trials::validate::captured::Captured;

const PAGE: u64 = 4096;
/// The attribute of the file's ranges, after the seven kinds of memory (LVBS contract §5.1).
pub const FILE: u64 = 7;
/// The attribute of the patch sites' ranges.
pub const PATCHES: u64 = 8;
/// The attribute of the ranges of thunk pages, which is VTL1's own and no part of the contract.
pub const THUNKS: u64 = 9;
/// Where the file and the patch sites appear in VTL0's virtual memory: Linux's vmalloc area.
const FILE_VA: u64 = 0xffff_c900_1000_0000;
const PATCHES_VA: u64 = 0xffff_c900_2000_0040;
/// What lies around the file in pages that it uses in part.
pub const NEIGHBOUR: u8 = 0xee;

/// A part of a module's memory: whole pages.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is for.
    pub kind: Kind,
    /// Its address.
    pub va: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A jump label of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its address.
    pub va: u64,
    /// The jump, 2 or 5 bytes.
    pub jump: Vec<u8>,
}

/// A static call of a module, or a trampoline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its address.
    pub va: u64,
    /// The instruction in memory when the module is validated.
    pub compiled: Vec<u8>,
    /// What Linux makes of it right after.
    pub direct: Vec<u8>,
}

/// A module, as its loader has it.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// The signed file.
    pub file: Vec<u8>,
    /// Its memory.
    pub parts: Vec<Part>,
    /// Its jump labels.
    pub labels: Vec<Label>,
    /// Its static calls.
    pub calls: Vec<Call>,
    /// Its pages of thunks against ITS: address and bytes of each.
    pub thunks: Vec<(u64, Vec<u8>)>,
    /// The names of the modules that it uses.
    pub uses: Vec<String>,
}

impl Module {
    /// A module that a real kernel had.
    ///
    /// # Errors
    /// When the capture lacks something.
    pub fn captured(captured: &Captured) -> Result<Self> {
        let parts = captured.ranges.iter();
        Ok(Self {
            name: captured.name.clone(),
            file: captured.file.clone(),
            parts: parts.map(|part| Part { kind: part.kind, va: part.va, bytes: part.bytes.clone() }).collect(),
            labels: captured.jump_labels()?.into_iter().map(|(va, jump)| Label { va, jump }).collect(),
            calls: captured.static_calls()?,
            thunks: captured.thunk_pages.clone(),
            uses: captured.depends(),
        })
    }

    /// The part of that kind.
    pub fn part_mut(&mut self, kind: Kind) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.kind == kind)
    }

    /// Puts everything into frames, the file's first byte at offset `file_start` of its page, and makes the list's ranges.
    ///
    /// # Errors
    /// When there are no frames left, or a frame is not RAM.
    pub fn place(&self, memory: &dyn GuestMemory, frames: &mut Frames, file_start: u64) -> Result<Placed> {
        let mut placed = self.place_memory(memory, frames, file_start)?;
        if !self.labels.is_empty() {
            let sites = placed.sites(self)?;
            placed.put(memory, frames, PATCHES, PATCHES_VA, &patch_record(&sites))?;
        }
        Ok(placed)
    }

    /// The same without its patch sites.
    pub(super) fn place_memory(
        &self,
        memory: &dyn GuestMemory,
        frames: &mut Frames,
        file_start: u64,
    ) -> Result<Placed> {
        let mut placed = Placed::default();
        // The driver's order: the file, the memory by its kinds, the sites (LVBS contract §11.3).
        placed.put(memory, frames, FILE, FILE_VA + file_start % PAGE, &self.file)?;
        let mut parts: Vec<&Part> = self.parts.iter().collect();
        parts.sort_by_key(|part| part.kind.number());
        for part in parts {
            placed.put(memory, frames, part.kind.number() as u64, part.va, &part.bytes)?;
        }
        for (va, page) in &self.thunks {
            placed.put(memory, frames, THUNKS, *va, page)?;
        }
        Ok(placed)
    }
}

/// The first of `all`, which are in the order of loading, that uses a module which uses another one; and all modules that it
/// needs, itself the last. Empty when there is no such module.
#[must_use]
pub fn chain(all: &[Module]) -> Vec<Module> {
    let uses_others = |name: &String| all.iter().any(|module| module.name == *name && !module.uses.is_empty());
    let last = all.iter().find(|module| module.uses.iter().any(uses_others));
    let mut wanted: Vec<&String> = last.iter().map(|module| &module.name).collect();
    for module in all.iter().rev() {
        if wanted.contains(&&module.name) {
            wanted.extend(&module.uses);
        }
    }
    all.iter().filter(|module| wanted.contains(&&module.name)).cloned().collect()
}

/// What has been put into frames under one attribute.
#[derive(Clone, Debug)]
pub struct Object {
    /// The attribute.
    pub kind: u64,
    /// Virtual address of its first byte.
    pub va: u64,
    /// Physical addresses of its pages.
    pub pages: Vec<u64>,
}

/// A module in VTL0's memory.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// The list's ranges: neighbours are merged, as the driver does.
    pub ranges: Vec<Range>,
    /// What lies where.
    pub objects: Vec<Object>,
}

impl Placed {
    /// Puts an object into frames, and its ranges on the list.
    ///
    /// # Errors
    /// When there are no frames left, or a frame is not RAM.
    pub fn put(
        &mut self,
        memory: &dyn GuestMemory,
        frames: &mut Frames,
        kind: u64,
        va: u64,
        object: &[u8],
    ) -> Result<()> {
        let mut pages = Vec::new();
        let mut done = 0;
        while done < object.len() {
            let at = va + done as u64;
            let size = object.len().min(done + usize::try_from(PAGE - at % PAGE)?) - done;
            let page = frames.take()?;
            if size < 4096 {
                bytes::write(memory, page, &[NEIGHBOUR; 4096])?;
            }
            let pa = page + at % PAGE;
            bytes::write(memory, pa, &object[done..done + size])?;
            let range = Range { va: at, pa, epa: pa + size as u64, attributes: kind };
            // Pages of thunks are each for themselves, whatever frames they have.
            if kind == THUNKS {
                self.ranges.push(range);
            } else {
                append(&mut self.ranges, range);
            }
            pages.push(page);
            done += size;
        }
        self.objects.push(Object { kind, va, pages });
        Ok(())
    }

    /// The pages of an object; none when the module does not have it.
    pub fn pages(&self, kind: u64) -> &[u64] {
        self.objects.iter().find(|object| object.kind == kind).map_or(&[], |object| &object.pages)
    }

    /// The pages of thunks.
    pub fn thunks(&self) -> impl Iterator<Item = u64> + '_ {
        self.objects.iter().filter(|object| object.kind == THUNKS).flat_map(|object| object.pages.iter().copied())
    }

    /// The pages of the module's memory, with their kinds.
    pub fn memory(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        self.objects.iter().flat_map(|object| {
            let kind = Kind::from_number(object.kind);
            object.pages.iter().filter_map(move |page| Some((kind?, *page)))
        })
    }

    /// Physical address of the byte at a virtual address of the module's memory.
    pub fn physical(&self, va: u64) -> Option<u64> {
        self.objects.iter().filter(|object| object.kind < FILE).find_map(|object| {
            let offset = va.checked_sub(object.va)?;
            let page = object.pages.get(usize::try_from(offset / PAGE).ok()?)?;
            Some(page + offset % PAGE)
        })
    }

    /// Where the jump labels of the module, which has been placed here, lie.
    ///
    /// # Errors
    /// When one is not in its memory.
    pub fn sites(&self, module: &Module) -> Result<Vec<Site>> {
        let site = |label: &Label| {
            let mut jump = [0; 5];
            jump[..label.jump.len()].copy_from_slice(&label.jump);
            Ok(Site { jump, ..self.place_of(label.va, label.jump.len())? })
        };
        module.labels.iter().map(site).collect()
    }

    /// Where a site of `size` bytes at `va` lies; its jump is left out.
    ///
    /// # Errors
    /// When a byte of it is not the module's.
    pub fn place_of(&self, va: u64, size: usize) -> Result<Site> {
        let pa = self.physical(va).context("a site outside of the module")?;
        let next = (va / PAGE + 1) * PAGE;
        let next_page =
            if va + size as u64 > next { self.physical(next).context("a site that leaves the module")? } else { 0 };
        Ok(Site { pa, next_page, jump: [0; 5], size: u8::try_from(size)? })
    }

    /// Gives the frames of the objects for which `which` is true back to VTL0's allocator.
    pub fn free(&self, frames: &mut Frames, which: impl Fn(u64) -> bool) {
        for object in self.objects.iter().filter(|object| which(object.kind)) {
            frames.give(&object.pages);
        }
    }
}

/// VTL0's free frames.
#[derive(Clone, Debug)]
pub struct Frames {
    free: VecDeque<u64>,
}

impl Frames {
    /// The pages between two addresses, to be handed out in their order.
    #[must_use]
    pub fn consecutive(start: u64, end: u64) -> Self {
        Self { free: (start / PAGE..end / PAGE).map(|gfn| gfn * PAGE).collect() }
    }

    /// The same in an order drawn from `seed`.
    #[must_use]
    pub fn scattered(start: u64, end: u64, seed: u64) -> Self {
        let mut frames = Self::consecutive(start, end);
        let mut random = SplitMix(seed);
        for index in (1..frames.free.len()).rev() {
            let other = usize::try_from(random.next() % (index as u64 + 1)).unwrap_or(0);
            frames.free.swap(index, other);
        }
        frames
    }

    /// A page.
    ///
    /// # Errors
    /// When there is none left.
    pub fn take(&mut self) -> Result<u64> {
        self.free.pop_front().context("VTL0 has no frame left")
    }

    /// Gives pages back; they are handed out again after all others.
    pub fn give(&mut self, pages: &[u64]) {
        self.free.extend(pages);
    }
}

#[cfg(test)]
mod tests {
    use litebox_platform_lvbs::address::FrameRange;

    use super::*;
    use crate::hosted::HostedMemory;

    #[test]
    fn objects_are_split_at_pages_and_neighbours_merged() {
        let memory = HostedMemory::new(vec![FrameRange::from_gfns(0, 0x100).unwrap()]);
        let text = Part { kind: Kind::Text, va: 0xffff_ffff_c000_0000, bytes: vec![0x90; 0x3000] };
        let label = Label { va: text.va + 0xffe, jump: vec![0xe9, 1, 2, 3, 4] };
        let module = Module {
            name: "m".into(),
            file: vec![1; 0x1800],
            parts: vec![text],
            labels: vec![label],
            calls: Vec::new(),
            thunks: Vec::new(),
            uses: Vec::new(),
        };
        let placed = module.place(&memory, &mut Frames::consecutive(0x1_0000, 0x2_0000), 0x900).unwrap();
        let ranges: Vec<_> = placed.ranges.iter().map(|range| (range.pa, range.epa, range.attributes)).collect();
        assert_eq!(ranges, [(0x1_0900, 0x1_2100, 7), (0x1_3000, 0x1_6000, 0), (0x1_6040, 0x1_6088, 8)]);
        let mut site = [0; 24];
        bytes::read(&memory, 0x1_6040 + 48, &mut site).unwrap();
        assert_eq!(site[..16], [0x1_3ffe_u64.to_le_bytes(), 0x1_4000_u64.to_le_bytes()].concat());
        let backwards = Frames { free: [0x9000, 0x8000, 0x7000, 0x6000, 0x5000, 0x4000, 0x3000].into() };
        let placed = module.place(&memory, &mut backwards.clone(), 0).unwrap();
        assert_eq!(placed.ranges.len(), 3 + 2 + 1);
        assert_eq!(placed.physical(0xffff_ffff_c000_1234), Some(0x6234));
        assert_eq!(placed.memory().map(|(_, page)| page).collect::<Vec<_>>(), [0x7000, 0x6000, 0x5000]);
    }
}
