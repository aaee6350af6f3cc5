//! ValidateModule: a module's file is verified, and its memory explained by it, byte by byte.
//!
//! Freeze, verify, explain, promote: nothing is looked at that VTL0 can still change, and nothing becomes executable that the
//! signed file and VTL1's own knowledge do not account for. The frame registry stays locked meanwhile, so that no other call
//! takes, patches or gives back what is being looked at.

use alloc::vec::Vec;

use litebox_platform_lvbs::access::FetchOnce;
use litebox_platform_lvbs::address::{PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::{FrozenView, Transaction};
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::CallContext;
use litebox_platform_lvbs::vtl0::patches::MAX_MODULE_SITES;
use litebox_platform_lvbs::vtl0::{
    MemoryContainer, ModuleFunctions, ModuleMemory as Module, ModuleMemoryMetadataMap, PatchData, PatchDataMap,
    SymbolTable, SymbolTableBuilder,
};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{debug, info, warn};
use vsm_integrity::ParseError;
use vsm_integrity::kernel_info;
use vsm_integrity::module::{Explained, Kernel, Kind, ModuleError, ModuleMemory, Plan, Range};
use vsm_integrity::patch_info::{self, PatchSite, SiteType};
use vsm_integrity::signature::{SignedMessage, trailer};

use super::memory;
use super::parts::Part;
use super::symbols::KnownSymbols;
use super::thunks;
use crate::frozen::{File, NamedFrames, Pieces};
use crate::objects::{ObjectKind, Objects};
use crate::sealed::Sealed;

/// Verifies a module, gives its memory the permissions that it has in Linux, and remembers it.
pub(super) fn validate(call: &CallContext<'_>, list: HekiList) -> Result<Token, VsmError> {
    let platform = call.platform();
    let mut fetched = FetchOnce::new(platform);
    let objects = Objects::collect(platform, list, &mut fetched)?;
    let wanted_sites =
        WantedSites { bytes: objects.copy(Part::Patches, &mut fetched)?, starts: objects.starts(Part::Patches)? };
    let mut registry = platform.frames().lock();
    let mut modules = platform.vtl0().modules().lock();
    let token = modules.prepare()?;
    let mut transaction = registry.begin(platform.hardware(), platform.vtl0().phase.get())?;
    let mut named = NamedFrames::default();
    let parts = memory::claim(&objects, token, &mut named, &mut transaction)?;
    let thunks = thunks::claim(&objects, token, &mut named, &mut transaction)?;
    let owner = Owner::Module { token, kind: ModuleMemoryKind::RoData };
    let file = File::claim(&objects, Part::File, owner, &mut fetched, &mut named, &mut transaction)?;
    named.check(&mut fetched)?;
    drop((objects, fetched));
    if let Some(other) = parts.iter().chain(&thunks).find_map(|part| modules.at(part.va, part.size())) {
        return Err(VsmError::ModuleOverlaps(other));
    }
    let kernel = platform.vtl0().kernel_data();
    let of_kernel = |part: &&MemoryContainer| kernel.is_some_and(|kernel| kernel.text.overlaps(part.va, part.size()));
    if let Some(part) = parts.iter().chain(&thunks).find(of_kernel) {
        // A branch there would enter the kernel's own text, wherever VTL0 likes.
        let rule = "its memory must not lie in the kernel's text";
        return Err(VsmError::InvalidObject { object: "module", at: part.va, rule });
    }
    transaction.apply()?;
    let frozen = Frozen { call, parts: &parts, thunks: &thunks, modules: &modules, transaction: &transaction };
    let Accepted { exports, uses, patches, functions, explained } = frozen.judge(&file, &wanted_sites)?;
    file.release(&mut transaction)?;
    memory::promote(&parts, token, &mut transaction)?;
    memory::promote(&thunks, token, &mut transaction)?;
    transaction.commit()?;
    let followed = if explained.habits.counts_calls() { COUNTED } else { "" };
    info!("ValidateModule: module {token} is accepted, {} bytes explained{followed}", explained.statistics.total());
    modules.habits = explained.habits;
    modules.insert(Module { token, parts, thunks, exports, uses, patches, functions, initialised: false });
    Ok(token)
}

/// What a module's line says where PatchText cannot serve its static calls.
const COUNTED: &str = "; its calls are counted (retbleed=stuff), which PatchText cannot follow";

/// What is kept of a module that is accepted.
struct Accepted {
    exports: SymbolTable,
    uses: Vec<Token>,
    patches: PatchDataMap,
    functions: ModuleFunctions,
    explained: Explained,
}

/// A module that VTL0 can no longer change.
struct Frozen<'a> {
    call: &'a CallContext<'a>,
    parts: &'a [MemoryContainer],
    thunks: &'a [MemoryContainer],
    modules: &'a ModuleMemoryMetadataMap,
    transaction: &'a Transaction<'a>,
}

impl Frozen<'_> {
    /// Looks at the file and the memory in place.
    fn judge(&self, file: &File, wanted_sites: &WantedSites) -> Result<Accepted, VsmError> {
        let file_pieces = file.pieces()?;
        let file_view = file_pieces.view(self.transaction)?;
        let content = verify(self.call.platform(), self.call.vp(), file.bytes(&file_view))?;
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(self.parts.len()).map_err(out_of_memory)?;
        for part in self.parts {
            pieces.push(if part.kind.is_explained() { Some(Pieces::of_frames(&part.frames)?) } else { None });
        }
        let mut views: Vec<Option<FrozenView<'_>>> = Vec::new();
        views.try_reserve_exact(self.parts.len()).map_err(out_of_memory)?;
        for pieces in &pieces {
            views.push(pieces.as_ref().map(|pieces| pieces.view(self.transaction)).transpose()?);
        }
        let mut ranges = Vec::new();
        ranges.try_reserve_exact(self.parts.len()).map_err(out_of_memory)?;
        for (part, view) in self.parts.iter().zip(&views) {
            let bytes = view.as_deref().unwrap_or_default();
            ranges.push(Range { kind: part.kind, va: part.va, size: part.size(), bytes });
        }
        self.explain(content, &ranges, wanted_sites)
    }

    fn explain(&self, content: &[u8], ranges: &[Range<'_>], wanted_sites: &WantedSites) -> Result<Accepted, VsmError> {
        let refused = |error| self.refused(error);
        let platform = self.call.platform();
        let kernel = platform.vtl0().kernel_data();
        let arch = kernel.and_then(|kernel| kernel_info::arch_info(&kernel.arch));
        let (Some(kernel), Some(arch)) = (kernel, arch) else {
            return Err(VsmError::Module("VTL1 must know the kernel that the module is for"));
        };
        let memory = ModuleMemory::new(ranges).map_err(refused)?;
        let known = KnownSymbols::new(&kernel.symbols, self.modules)?;
        let registry = self.transaction.registry();
        let text = Sealed { registry, kernel: Some(kernel), modules: self.modules, hardware: platform.hardware() };
        let kernel = Kernel { arch, generation: kernel.generation, text: &text };
        let plan = Plan::new(content, &memory, kernel, &known).map_err(refused)?;
        let explained = plan.explain(&memory, &self.modules.habits).map_err(refused)?;
        thunks::check(self.thunks, &explained.thunk_pages, &plan, self.transaction, refused)?;
        let mut exports = Exports(SymbolTableBuilder::default());
        plan.exports(explained.per_cpu.map(|(offset, _)| offset), |export| exports.keep(&export))
            .map_err(|error| error.into_vsm(refused))?;
        let patches = self.patches(&plan, wanted_sites)?;
        let [text, init] = [Kind::Text, Kind::InitText].map(|kind| plan.functions(kind).map_err(refused));
        let functions = ModuleFunctions::new(text?, init?);
        Ok(Accepted { exports: exports.0.finish(), uses: known.used()?, patches, functions, explained })
    }

    /// Where the module may be patched: the jump labels that VTL0 wants and the signed file has, and all static calls of the
    /// file, of which VTL0 says nothing.
    fn patches(&self, plan: &Plan<'_>, wanted: &WantedSites) -> Result<PatchDataMap, VsmError> {
        let refused = |error| self.refused(error);
        let mut labels = Vec::new();
        plan.jump_labels(|label| {
            let (start, next_page) = self.place(label.va, label.jump().len())?;
            keep(&mut labels, PatchData::new(start, next_page, label.jump())?)
        })
        .map_err(|error: Failure| error.into_vsm(refused))?;
        let mut sites = accepted_sites(&PatchDataMap::new(labels)?, wanted)?;
        plan.static_calls(|call| {
            let (start, next_page) = self.place(call.va, call.compiled().len())?;
            keep(&mut sites, PatchData::static_call(start, next_page, call.shape, call.va, call.compiled())?)
        })
        .map_err(|error: Failure| error.into_vsm(refused))?;
        PatchDataMap::new(sites)
    }

    /// The physical address of the byte at virtual address `va`, and the page in which `size` bytes from there on end, if
    /// that is another one.
    fn place(&self, va: u64, size: usize) -> Result<(PhysAddr, Option<PhysAddr>), VsmError> {
        let pa = |va| self.parts.iter().find_map(|part| part.physical(va)).ok_or(VsmError::InvalidVirtualAddress(va));
        let last = va.wrapping_add(size as u64).wrapping_sub(1);
        let next_page = last - last % PAGE_SIZE;
        let next_page = if va < next_page { Some(PhysAddr::new(pa(next_page)?)?) } else { None };
        Ok((PhysAddr::new(pa(va)?)?, next_page))
    }

    /// Tells what is wrong with the module, and what VTL0 gets to hear of it.
    fn refused(&self, error: ModuleError) -> VsmError {
        if let Some(logged) = self.call.platform().count_event(self.call.vp(), LogKind::RefusedModule) {
            warn!("ValidateModule: {error}{logged}");
        }
        error.into()
    }
}

/// Checks the file's signature; what has been signed.
fn verify<'f>(platform: &Platform, vp: u32, file: &'f [u8]) -> Result<&'f [u8], VsmError> {
    let tail = file.get(file.len().saturating_sub(trailer::TAIL_BYTES)..).unwrap_or_default();
    let layout = trailer::locate(file.len(), tail)?;
    let content = file.get(..layout.content).unwrap_or_default();
    let message = SignedMessage::parse(file.get(layout.signature).unwrap_or_default())?;
    platform.vtl0().with_keys(platform.hardware(), |keys| {
        let mut hasher = keys.content_hasher(&message, platform.hardware().sha256_compress())?;
        hasher.update(content);
        let verified = keys.verify_module(&message, &hasher.finish())?;
        if let Some(logged) = platform.count_event(vp, LogKind::SignedModule) {
            info!("ValidateModule: {} bytes signed by {}{logged}", content.len(), verified.trusted);
        }
        Ok(content)
    })
}

/// Keeps another patch site, up to a limit.
fn keep(sites: &mut Vec<PatchData>, site: PatchData) -> Result<(), Failure> {
    if sites.len() >= MAX_MODULE_SITES {
        return Err(Failure::Vsm(VsmError::Module("a module must not have more than 65536 patch sites")));
    }
    sites.try_reserve(1).map_err(|_| Failure::Vsm(OUT))?;
    sites.push(site);
    Ok(())
}

/// The records of patch sites that VTL0 sends along.
struct WantedSites {
    bytes: Vec<u8>,
    /// Where a record may begin that VTL0 has allocated by itself.
    starts: Vec<usize>,
}

impl WantedSites {
    /// All sites, record by record.
    fn iter(&self) -> impl Iterator<Item = Result<PatchSite, VsmError>> {
        let refuse = |error: ParseError| Part::Patches.refuse(error.offset as u64, error.rule);
        patch_info::sites_from(&self.bytes, &self.starts).map(move |site| site.map_err(refuse))
    }
}

/// The jump labels that VTL0 wants to patch, of those that the signed file has.
///
/// Others are passed over. Linux finds records by the address of the `struct module`, and keeps that of a module that was
/// refused: the next one there hands over the sites of the dead one too, or its own twice (LVBS contract §11.5). No site comes
/// from VTL0 alone.
fn accepted_sites(signed: &PatchDataMap, wanted: &WantedSites) -> Result<Vec<PatchData>, VsmError> {
    let mut sites = Vec::new();
    let mut named = 0_usize;
    for site in wanted.iter() {
        let site = site?;
        named = named.saturating_add(1);
        let next_page = if site.next_page == 0 { None } else { Some(PhysAddr::new(site.next_page)?) };
        let wanted = PatchData::new(PhysAddr::new(site.pa)?, next_page, site.jump())?;
        if site.kind == SiteType::JumpLabel && signed.at(wanted.start()) == Some(&wanted) {
            sites.try_reserve(1).map_err(out_of_memory)?;
            sites.push(wanted);
        }
    }
    sites.sort_unstable_by_key(PatchData::start);
    sites.dedup();
    if named != sites.len() {
        debug!("ValidateModule: {} patch sites passed over, not the file's or named before", named - sites.len());
    }
    Ok(sites)
}

/// What the module exports, in the making.
struct Exports(SymbolTableBuilder);

impl Exports {
    fn keep(&mut self, export: &vsm_integrity::module::exports::ModuleExport<'_>) -> Result<(), Failure> {
        let number = self.0.len();
        self.0.push(export.name, export.value, export.gpl)?;
        if !export.namespace.is_empty() {
            let namespace = self.0.namespace(export.namespace)?;
            self.0.assign(number, namespace);
        }
        Ok(())
    }
}

/// Of a walk over the file's tables: the file's failure, or VTL1's.
enum Failure {
    Module(ModuleError),
    Vsm(VsmError),
}

impl Failure {
    fn into_vsm(self, refused: impl FnOnce(ModuleError) -> VsmError) -> VsmError {
        match self {
            Self::Module(error) => refused(error),
            Self::Vsm(error) => error,
        }
    }
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        Self::Module(error)
    }
}

impl From<VsmError> for Failure {
    fn from(error: VsmError) -> Self {
        Self::Vsm(error)
    }
}

const OUT: VsmError = VsmError::OutOfMemory("a module");

fn out_of_memory<T>(_: T) -> VsmError {
    OUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_so_many_patch_sites_and_no_more() {
        let site = PatchData::new(PhysAddr::new(0x1000).unwrap(), None, &[0xeb, 0]).unwrap();
        let mut sites = Vec::new();
        assert!((0..MAX_MODULE_SITES).all(|_| keep(&mut sites, site).is_ok()));
        assert!(matches!(keep(&mut sites, site), Err(Failure::Vsm(VsmError::Module(_)))));
        assert_eq!(sites.len(), MAX_MODULE_SITES);
    }
}
