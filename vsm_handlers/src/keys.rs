//! Keys that VTL0 adds after boot: CopySecondaryKey.
//!
//! VTL0 may be hostile by then: a key is taken only if a trusted key has signed it.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::FetchOnce;
use litebox_platform_lvbs::address::PAGE_SIZE;
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::vsm::CallContext;
use log::info;
use vsm_integrity::keys::Added;
use vsm_integrity::signature::certificate::MAX_CERTIFICATE_BYTES;
use vsm_macros::vsm_handler;

use crate::objects::{ObjectKind, Objects};

/// The one kind of object in the list (LVBS contract §5.8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Certificate;

impl ObjectKind for Certificate {
    const WHAT: &'static str = "kind of key";
    const MAX_RANGES: (u64, &'static str) = (64, "a key's list must not have more than 64 ranges");
    const ALL: &'static [Self] = &[Self];

    fn name(self) -> &'static str {
        "secondary key"
    }

    fn max_bytes(self) -> u64 {
        MAX_CERTIFICATE_BYTES as u64
    }
}

const _: () = assert!(MAX_CERTIFICATE_BYTES as u64 <= 64 * PAGE_SIZE);

/// Adds a certificate to the secondary trusted keys, if a trusted certificate that is not revoked has signed it.
///
/// The list names one DER certificate. Its signer is a key built into the kernel, also one that is no authority as the build
/// key is not, or an authority that was added later. The signer's path length and uses bind the key; one that they forbid is
/// refused. One that is trusted already is fine. On an error nothing has changed.
#[vsm_handler(
    VsmFunction::CopySecondaryKey,
    phase = any,
    caller = any,
    errors(
        ENOKEY = "no trusted certificate has the issuer's name",
        EKEYREJECTED = "a signature that does not hold, an issuer that may not certify it, what is critical or revoked",
        EBADMSG = "no certificate",
        ENOPKG = "a key that is not supported",
        ENOSPC = "there are 64 secondary keys",
        EFAULT = "a range that is not memory",
        EINVAL = "a list that breaks a rule",
        EACCES = "frames of VTL1",
        ENOMEM = "VTL1 has no memory for the key",
    ),
)]
fn copy_secondary_key(call: &CallContext<'_>, list: HekiList) -> Result<(), VsmError> {
    let platform = call.platform();
    let mut fetched = FetchOnce::new(platform);
    let objects = Objects::collect(platform, list, &mut fetched)?;
    let certificate = objects.copy(Certificate, &mut fetched)?;
    match platform.vtl0().with_keys(platform.hardware(), |keys| keys.add_secondary(&certificate))? {
        Added::New => info!("CopySecondaryKey: a certificate of {} bytes is trusted", certificate.len()),
        Added::NewByBuiltIn => info!(
            "CopySecondaryKey: a certificate of {} bytes is trusted: a key of the kernel's that is no authority signed it",
            certificate.len()
        ),
        Added::Known => {}
    }
    Ok(())
}
