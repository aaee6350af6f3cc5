//! Kexec images: KexecValidate.
//!
//! Linux may start another kernel without a reset. VTL1 accepts an image only if its kernel is one that a trusted key has
//! signed, and then keeps VTL0 from writing any page that the image is made of. What this covers and what it cannot is in
//! the documentation, on the page about kexec.

mod pages;
mod parts;
mod validate;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::logging::LogKind;
use litebox_platform_lvbs::vsm::{CallContext, Flags};
use litebox_platform_lvbs::vtl0::KexecSlot;
use log::info;
use vsm_macros::vsm_handler;

/// The image is the one that is started after a crash.
const CRASH: u64 = 1;

/// Verifies a kexec image before VTL0 may use it, or forgets the one verified before.
///
/// There are two images, the one started on command and the crash image; the flag says which. Without a list (0, 0) the image
/// is forgotten, and its frames are data that VTL0 may write and not execute; that there is none is fine. A range's attribute
/// says whether it holds Linux's description of the image, the kernel's file, or pages that the image is made of (LVBS
/// contract §5.10). One segment of the image must be the signed file's kernel, byte for byte. The former image is given up
/// only when the new one is accepted. All or nothing: on an error no permission has changed.
#[vsm_handler(
    VsmFunction::KexecValidate,
    phase = any,
    caller = any,
    errors(
        EINVAL = "an image that breaks a rule, or is not made of the signed kernel",
        EACCES = "a frame or a destination that is somebody else's",
        ENODATA = "the kernel has no signature",
        ENOPKG = "the signature is of a kind that is not supported",
        EBADMSG = "the file or the signature is broken",
        ENOKEY = "nobody whom VTL1 knows has signed it",
        EKEYREJECTED = "the signature does not hold, its signer may not sign, or signer or file is revoked",
        EFAULT = "a part that is not memory",
        ENOMEM = "VTL1 has no memory for the image",
        EIO = "the hypervisor refuses",
    ),
)]
fn kexec_validate(call: &CallContext<'_>, list: Option<HekiList>, flags: Flags<CRASH>) -> Result<(), VsmError> {
    let slot = if flags.contains(CRASH) { KexecSlot::Crash } else { KexecSlot::Normal };
    match list {
        Some(list) => validate::validate(call, list, slot),
        None => invalidate(call, slot),
    }
}

/// Gives an image's frames back and forgets it.
fn invalidate(call: &CallContext<'_>, slot: KexecSlot) -> Result<(), VsmError> {
    let platform = call.platform();
    let mut registry = platform.frames().lock();
    let mut images = platform.vtl0().kexec().lock();
    let mut transaction = registry.begin(platform.hardware(), platform.vtl0().phase.get())?;
    transaction.release_all(slot.owner(), Permission::RW);
    transaction.commit()?;
    if images.replace(slot, None).is_some()
        && let Some(logged) = platform.count_event(call.vp(), LogKind::KexecImage)
    {
        info!("KexecValidate: {} is forgotten{logged}", slot.owner());
    }
    Ok(())
}
