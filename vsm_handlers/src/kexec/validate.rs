//! KexecValidate with a list: freeze, verify, compare, keep.
//!
//! Nothing is looked at that VTL0 can still change. The file's signature says which kernel may run; the image's description
//! and page list say which bytes will. The frame registry stays locked meanwhile, so that no other call takes or gives back
//! what is being looked at. Until the new image is accepted, the former one in its slot stays as it is.

use litebox_platform_lvbs::access::FetchOnce;
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{Permission, Transaction};
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::logging::{LogKind, Logged};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::CallContext;
use litebox_platform_lvbs::vtl0::{KexecMemoryMetadata, KexecSlot};
use litebox_platform_lvbs::{Platform, VsmError};
use log::{info, warn};
use vsm_integrity::ParseError;
use vsm_integrity::kexec::{BzImage, Kimage};
use vsm_integrity::pe::layout::MAX_HEADER_BYTES;
use vsm_integrity::pe::{ImageLayout, ImageSignatures};

use super::pages::{FrameSet, Sources, frames};
use super::parts::{Part, description};
use crate::frozen::{File, NamedFrames, Pieces};
use crate::objects::{ObjectKind, Objects};

/// Verifies an image, freezes its pages for good, and gives up the one it takes the place of.
pub(super) fn validate(call: &CallContext<'_>, list: HekiList, slot: KexecSlot) -> Result<(), VsmError> {
    let platform = call.platform();
    let owner = slot.owner();
    let mut fetched = FetchOnce::new(platform);
    let objects = Objects::collect(platform, list, &mut fetched)?;
    let mut registry = platform.frames().lock();
    let mut images = platform.vtl0().kexec().lock();
    let mut transaction = registry.begin(platform.hardware(), platform.vtl0().phase.get())?;
    let mut named = NamedFrames::default();
    let file = File::claim(&objects, Part::Kernel, owner, &mut fetched, &mut named, &mut transaction)?;
    let (described, size) = description(&objects)?;
    named.push(described)?;
    named.check(&mut fetched)?;
    transaction.stage(described, owner, owner, Permission::R)?;
    let mut pages = FrameSet::default();
    for range in objects.ranges(Part::Pages) {
        pages.push(FrameRange::from_bytes(range.start(), range.end())?)?;
    }
    drop(objects);
    freeze(&pages, owner, &mut transaction)?;
    let kimage = read(described, size, &transaction)?;
    for segment in kimage.segments() {
        let memory = frames(segment)?;
        // It is overwritten when the image starts; a crash image lies there already.
        let free = transaction.registry().check(memory, owner);
        if let Err(VsmError::FrameOwned(_, Owner::Vtl1)) = free
            && let Some(logged) = platform.count_event(call.vp(), LogKind::KexecImage)
        {
            // VTL0 takes VTL1's region for RAM like any other.
            let vtl1 = platform.config().vtl1_region;
            warn!(
                "KexecValidate: {owner} goes to {:#x}..{:#x}, where VTL1 is ({:#x}..{:#x}): boot with securekernel=SIZE@ADDR \
                 and an address that leaves the kernel its place{logged}",
                segment.start,
                segment.end,
                vtl1.start() << 12,
                vtl1.end() << 12,
            );
        }
        free?;
        if slot == KexecSlot::Crash {
            pages.push(memory)?;
        }
    }
    pages.settle()?;
    pages.check(&fetched)?;
    drop(fetched);
    freeze(&pages, owner, &mut transaction)?;
    let image = Image { call, slot, kimage: &kimage, transaction: &transaction };
    let kernel = image.verify(&file, &pages)?;
    file.release(&mut transaction)?;
    transaction.release_all(owner, Permission::RW);
    transaction.stage(described, owner, owner, Permission::R)?;
    for frames in pages.iter() {
        transaction.stage(frames, owner, owner, Permission::R)?;
    }
    transaction.commit()?;
    // And the page of the description.
    let frames = pages.count().saturating_add(described.count());
    images.replace(slot, Some(KexecMemoryMetadata { frames, segments: kimage.segments().len(), kernel }));
    Ok(())
}

/// Makes frames unwritable for VTL0, whatever comes of it in the end.
fn freeze(pages: &FrameSet, owner: Owner, transaction: &mut Transaction<'_>) -> Result<(), VsmError> {
    for frames in pages.iter() {
        transaction.stage(frames, owner, owner, Permission::R)?;
    }
    transaction.apply()
}

/// The description, of which `size` bytes of a frozen page are.
fn read(described: FrameRange, size: usize, transaction: &Transaction<'_>) -> Result<Kimage, VsmError> {
    let page = [described];
    let pieces = Pieces::of_frames(&page)?;
    let view = pieces.view(transaction)?;
    Kimage::parse(view.get(..size).unwrap_or_default()).map_err(|error| refuse(Part::Description, error))
}

/// An image that VTL0 can no longer change.
struct Image<'a> {
    call: &'a CallContext<'a>,
    slot: KexecSlot,
    kimage: &'a Kimage,
    transaction: &'a Transaction<'a>,
}

impl Image<'_> {
    /// Checks that one of the segments is the kernel of the signed file; where that goes.
    fn verify(&self, file: &File, pages: &FrameSet) -> Result<FrameRange, VsmError> {
        let platform = self.call.platform();
        let pieces = file.pieces()?;
        let view = pieces.view(self.transaction)?;
        let file = file.bytes(&view);
        let logged = platform.count_event(self.call.vp(), LogKind::KexecImage);
        let signed = check_signature(platform, file, logged)?;
        let sources = Sources::find(self.slot, self.kimage, pages, self.transaction)?;
        let kernel = self.find(&signed, file, &sources)?;
        if logged.is_some() {
            self.log(kernel);
        }
        self.kimage.segments().get(kernel).map(frames).ok_or(NO_KERNEL)?
    }

    /// The segment that is the kernel.
    fn find(&self, signed: &BzImage, file: &[u8], sources: &Sources) -> Result<usize, VsmError> {
        let content = file.get(signed.kernel.clone()).unwrap_or_default();
        let mut found = None;
        for (index, segment) in self.kimage.segments().iter().enumerate() {
            // A kernel with less memory would unpack itself over other segments.
            let room = segment.end - segment.start >= signed.init_size;
            if segment.bytes != content.len() as u64 || !room {
                continue;
            }
            if sources.hold(self.kimage, index, content, self.transaction)? && found.replace(index).is_some() {
                return Err(Part::Description.refuse(segment.start, "two segments are the signed kernel"));
            }
        }
        let kernel = found.ok_or(NO_KERNEL)?;
        let is_entered = self.kimage.segments().get(kernel).is_some_and(|segment| segment.contains(self.kimage.start));
        if is_entered {
            // Linux enters its purgatory, which goes on to the kernel's entry point.
            let rule = "the image must not be entered within the kernel";
            return Err(Part::Description.refuse(self.kimage.start, rule));
        }
        Ok(kernel)
    }

    /// Says what has been verified, and what has only been frozen.
    fn log(&self, kernel: usize) {
        for (index, segment) in self.kimage.segments().iter().enumerate() {
            let what = if index == kernel {
                "is the signed kernel"
            } else if segment.contains(self.kimage.start) {
                "is frozen, not compared: purgatory"
            } else {
                "is frozen, not compared: initrd, command line or the like"
            };
            info!("KexecValidate: {}, {:#x}..{:#x} {what}", self.slot.owner(), segment.start, segment.end);
        }
        info!("KexecValidate: {} is described as by {}", self.slot.owner(), self.kimage.form);
        if self.slot == KexecSlot::Crash {
            info!(
                "KexecValidate: with CONFIG_CRASH_HOTPLUG, unload the crash image (kexec -p -u) before a processor or memory \
                 comes or goes, and load it anew: Linux would write to it, which is a #GP"
            );
        }
    }
}

/// Checks the file's signatures; which of its bytes are the kernel.
fn check_signature(platform: &Platform, file: &[u8], logged: Option<Logged>) -> Result<BzImage, VsmError> {
    let head = file.get(..MAX_HEADER_BYTES).unwrap_or(file);
    let layout = ImageLayout::parse(head, file.len())?;
    let table = file.get(layout.certificates.clone()).unwrap_or_default();
    let signatures = ImageSignatures::parse(table, layout.certificates.start)?;
    platform.vtl0().with_keys(platform.hardware(), |keys| {
        let mut hasher = keys.image_hasher(&layout, &signatures, platform.hardware().sha256_compress());
        hasher.update(file);
        let verified = keys.verify_image(&signatures, &hasher.finish()?)?;
        if let Some(logged) = logged {
            info!("KexecValidate: a file of {} bytes signed by {}{logged}", file.len(), verified.trusted);
        }
        Ok::<_, VsmError>(())
    })?;
    BzImage::parse(file).map_err(|error| refuse(Part::Kernel, error))
}

const NO_KERNEL: VsmError =
    VsmError::InvalidObject { object: "kexec image", at: 0, rule: "no segment is the kernel of the signed file" };

fn refuse(part: Part, error: ParseError) -> VsmError {
    part.refuse(error.offset as u64, error.rule)
}
