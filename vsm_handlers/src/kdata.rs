//! Handing over certificates and kernel data: LoadKData.
//!
//! VTL0 names its objects in a HEKI list. Everything VTL1 wants of them is copied, once, then parsed and bounded by
//! `vsm_integrity`; only when all of it has been accepted does anything change. What is trusted: that VTL0's kernel,
//! during boot, tells the truth about itself; that it makes no mistakes, or leaves its memory alone, is not.

mod objects;
mod view;

use alloc::vec::Vec;

use litebox_platform_lvbs::access::{FetchOnce, refuse_vtl1};
use litebox_platform_lvbs::address::{PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::heki::{CheckedRange, HekiList};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vsm::BootContext;
use litebox_platform_lvbs::vtl0::{
    KernelData, KernelFunctions, KernelText, PatchData, PatchDataMap, SymbolTable, SymbolTableBuilder,
};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{info, warn};
use vsm_integrity::blocklist::{self, MAX_RECORDS, RECORD_BYTES};
use vsm_integrity::generation::KernelGeneration;
use vsm_integrity::kernel_info::KernelInfo;
use vsm_integrity::keys::{KeyStore, KeyStoreBuilder};
use vsm_integrity::ksymtab::{self, Export, Keeper, LoadError};
use vsm_integrity::module::{Instruction, Shape};
use vsm_integrity::patch_info::{self, PatchSite, SiteType};
use vsm_integrity::signature::marks::Marks;
use vsm_integrity::signature::{Certificate, SignatureError};
use vsm_integrity::{ParseError, der};
use vsm_macros::vsm_handler;

use crate::objects::{ObjectKind, Objects};
use objects::Kind;
use view::View;

/// The most certificates of a list. A distribution's kernel has a handful.
const MAX_CERTIFICATES: usize = 256;

/// Takes certificates, blocked hashes, kernel symbols and patch sites, and makes the kexec trampoline read-only.
///
/// A range's attribute says which of the seven kinds of kernel data it is part of (LVBS contract §5.5). Only the system
/// certificates are required. All or nothing: on an error nothing is kept and no permission has changed. Succeeds once;
/// a second call is refused as a whole, whatever it brings, for the system certificates may be set only once.
#[vsm_handler(
    VsmFunction::LoadKData,
    phase = boot,
    caller = any,
    errors(
        EBUSY = "kernel data have been taken already",
        EFAULT = "a range that is not memory, or bytes that are named twice",
        EINVAL = "an unknown kind, data that break a rule, a trampoline that is not made of pages",
        EACCES = "frames of VTL1, or a trampoline in frames of somebody else",
        ENOMEM = "VTL1 has no memory for the data",
        ENOSPC = "more certificates than VTL1 keeps",
        EBADMSG = "not any more: a revoked certificate counts whatever its encoding",
        ENOPKG = "not any more: a revoked certificate counts whatever its key",
        EIO = "the hypervisor refuses",
    ),
)]
fn load_kdata(call: &BootContext<'_>, list: HekiList) -> Result<(), VsmError> {
    let platform = call.platform();
    platform.vtl0().check_no_kernel_data(&platform.frames().lock())?;
    let mut memory = FetchOnce::new(platform);
    let objects = Objects::collect(platform, list, &mut memory)?;
    let (data, keys) = parse(platform, &objects, &mut memory)?;
    // VTL1 reads nothing of the trampoline, so there is nothing to freeze before a check. From here on nothing can be
    // refused but the trampoline's frames; the processor that gets the lock first has the one success.
    let mut registry = platform.frames().lock();
    platform.vtl0().check_no_kernel_data(&registry)?;
    let mut transaction = registry.begin(platform.hardware(), Phase::Boot)?;
    for range in objects.ranges(Kind::KexecTrampoline) {
        transaction.stage(range.frames()?, Owner::Trampoline, Owner::Trampoline, Permission::R)?;
    }
    transaction.commit()?;
    info!("LoadKData: {data}");
    platform.vtl0().set_kernel_data(&registry, data, keys)
}

/// Copies and checks everything that is to be kept.
fn parse(
    platform: &Platform,
    objects: &Objects<Kind>,
    memory: &mut FetchOnce<'_>,
) -> Result<(KernelData, KeyStore), VsmError> {
    let keys = keys(platform, objects, memory)?;
    let text = KernelText::new(objects.ranges(Kind::KernelData).map(|range| (range.va(), range.start())));
    let patches = patches(platform, objects, &text, memory)?;
    let (symbols, arch) = symbols(objects, memory)?;
    let rodata = objects.ranges(Kind::KernelData).next().map_or(0, CheckedRange::va);
    let functions = KernelFunctions::new(&symbols, rodata)?;
    let generation = KernelGeneration::from_exports(|name| symbols.find(name).is_some());
    let mut trampoline_frames = 0u64;
    for range in objects.ranges(Kind::KexecTrampoline) {
        trampoline_frames = trampoline_frames.saturating_add(range.frames()?.count());
    }
    let (system_certificates, _) = keys.counts();
    let (revoked_certificates, blocked_hashes) = keys.revoked_counts();
    let data = KernelData {
        system_certificates,
        revoked_certificates,
        blocked_hashes,
        symbols,
        generation,
        text,
        functions,
        arch,
        patches,
        trampoline_frames,
    };
    Ok((data, keys))
}

/// Who may sign, and what must not be trusted whatever its signature says.
fn keys(platform: &Platform, objects: &Objects<Kind>, memory: &mut FetchOnce<'_>) -> Result<KeyStore, VsmError> {
    let mut keys = KeyStoreBuilder::new();
    let system = certificates(objects, memory, Kind::SystemCertificates, |certificate| {
        // A key's numbers are made with the heap's reserve.
        match platform.vtl0().with_keys(platform.hardware(), |_| keys.trust(certificate)) {
            Err(error @ (SignatureError::Full(_) | SignatureError::OutOfMemory(_))) => Err(error.into()),
            // As Linux does (`x509_load_certificate_list`): what VTL1 cannot use it does not trust, and no more is lost.
            Err(error) => {
                warn!("LoadKData: a system certificate is left out: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    })?;
    if system == 0 {
        return Err(Kind::SystemCertificates.refuse(0, "there must be at least one certificate"));
    }
    // To go on without one of these would be to trust it; to stop at one that is oddly encoded, to trust nobody at all.
    certificates(objects, memory, Kind::RevocationCertificates, |certificate| {
        if let Err(error) = Certificate::parse(certificate) {
            warn!("LoadKData: {error}; what is revoked is what can be read of it: {}", Marks::read(certificate));
        }
        Ok(keys.revoke(certificate)?)
    })?;
    let bytes = objects.copy_first(Kind::BlockedHashes, MAX_RECORDS * RECORD_BYTES, memory)?;
    let surplus = objects.byte_count(Kind::BlockedHashes).saturating_sub(bytes.len() as u64);
    if surplus > 0 {
        let records = surplus.div_ceil(RECORD_BYTES as u64);
        warn!(
            "LoadKData: {records} blocked hashes beyond {MAX_RECORDS} are left out, and what has them is not blocked"
        );
    }
    for hash in blocklist::records(&bytes) {
        let hash = hash.map_err(|error| refuse(Kind::BlockedHashes, error))?;
        keys.block(hash.of, hash.bytes())?;
    }
    // Whether a revoked key signed one of these is arithmetic too.
    Ok(platform.vtl0().with_keys(platform.hardware(), |_| keys.finish()))
}

/// Hands each certificate of an object to `keep`; how many there are.
fn certificates(
    objects: &Objects<Kind>,
    memory: &mut FetchOnce<'_>,
    kind: Kind,
    mut keep: impl FnMut(&[u8]) -> Result<(), VsmError>,
) -> Result<usize, VsmError> {
    let bytes = objects.copy(kind, memory)?;
    let mut count = 0;
    for certificate in der::sequences(&bytes) {
        let certificate = certificate.map_err(|error| refuse(kind, error))?;
        if count >= MAX_CERTIFICATES {
            return Err(kind.refuse(bytes.len() as u64, "there must not be more than 256 certificates"));
        }
        keep(certificate)?;
        count += 1;
    }
    Ok(count)
}

fn patches(
    platform: &Platform,
    objects: &Objects<Kind>,
    text: &KernelText,
    memory: &mut FetchOnce<'_>,
) -> Result<PatchDataMap, VsmError> {
    let bytes = objects.copy(Kind::PatchInfo, memory)?;
    let checked = |raw: u64| -> Result<PhysAddr, VsmError> {
        let pa = PhysAddr::new(raw)?;
        refuse_vtl1(platform, pa, 1)?;
        Ok(pa)
    };
    let mut sites = Vec::new();
    for site in patch_info::sites(&bytes) {
        let site = site.map_err(|error| refuse(Kind::PatchInfo, error))?;
        let next_page = match site.next_page {
            0 => None,
            page => Some(checked(page)?),
        };
        sites.try_reserve(1).map_err(|_| VsmError::OutOfMemory("the patch sites"))?;
        let start = checked(site.pa)?;
        sites.push(match site.kind {
            SiteType::JumpLabel => PatchData::new(start, next_page, site.jump())?,
            SiteType::StaticCall => {
                let (shape, va) = static_call(&site, text).map_err(|rule| Kind::PatchInfo.refuse(site.pa, rule))?;
                PatchData::static_call(start, next_page, shape, va, site.jump())?
            }
        });
    }
    PatchDataMap::new(sites)
}

/// The shape and the address of one of the kernel's own static calls, or of a trampoline. Where it goes depends on where VTL0
/// has it, and what was compiled may stand there always: so it lies in the kernel's text, and goes into that.
fn static_call(site: &PatchSite, text: &KernelText) -> Result<(Shape, u64), &'static str> {
    let va = text.virtual_of(site.pa).ok_or("a static call must lie in the kernel's text, as far as VTL1 knows it")?;
    let last = site.pa.saturating_add(site.jump().len() as u64 - 1);
    if site.next_page != 0 && site.next_page != last - last % PAGE_SIZE {
        return Err("a static call must go on in the next page");
    }
    let shape = Shape::of_code(site.jump());
    let target = shape.and_then(|shape| Some((shape, shape.decode(site.jump(), va)?)));
    match target {
        Some((shape, Instruction::Branch(target))) if text.contains(target) => Ok((shape, va)),
        _ => Err("a static call must go into the kernel's text"),
    }
}

/// The export tables and what `struct heki_kinfo` holds besides.
fn symbols(objects: &Objects<Kind>, memory: &mut FetchOnce<'_>) -> Result<(SymbolTable, Vec<u64>), VsmError> {
    let bytes = objects.copy(Kind::KernelInfo, memory)?;
    if bytes.is_empty() {
        if let Some(range) = objects.ranges(Kind::KernelData).next() {
            return Err(Kind::KernelData.refuse(range.va(), "kernel data need the kernel information"));
        }
        return Ok((SymbolTable::default(), Vec::new()));
    }
    let info = KernelInfo::parse(&bytes).map_err(|error| refuse(Kind::KernelInfo, error))?;
    let mut arch = Vec::new();
    arch.try_reserve_exact(info.arch_words().len()).map_err(|_| VsmError::OutOfMemory("the kernel information"))?;
    arch.extend(info.arch_words());
    let count = info.ksymtab.count().saturating_add(info.ksymtab_gpl.count()).min(ksymtab::MAX_SYMBOLS);
    let count = usize::try_from(count).map_err(|_| VsmError::OutOfMemory("the kernel's symbols"))?;
    let mut table = Symbols(SymbolTableBuilder::new(count)?);
    let mut view = View::new(objects, memory);
    ksymtab::load(&mut view, &info.ksymtab, &info.ksymtab_gpl, &mut table).map_err(|error| match error {
        LoadError::Rule { va, rule } => Kind::KernelData.refuse(va, rule),
        LoadError::OutOfMemory => VsmError::OutOfMemory("the kernel's symbols"),
        LoadError::Other(error) => error,
    })?;
    Ok((table.0.finish(), arch))
}

/// The symbols, as they come.
struct Symbols(SymbolTableBuilder);

impl Keeper for Symbols {
    type Error = VsmError;

    fn symbol(&mut self, export: Export<'_>) -> Result<(), VsmError> {
        self.0.push(export.name, export.value, export.gpl)
    }

    fn namespace(&mut self, name: &[u8]) -> Result<u8, VsmError> {
        self.0.namespace(name)
    }

    fn assign(&mut self, symbol: usize, namespace: u8) {
        self.0.assign(symbol, namespace);
    }
}

fn refuse(kind: Kind, error: ParseError) -> VsmError {
    kind.refuse(error.offset as u64, error.rule)
}
