//! SetPlatformRootKey: the secret that a trusted operating system derives its keys from.
//!
//! The bytes are VTL0's firmware's, and still VTL0's when they are read: a VTL0 that lies harms only the secrets it asks for.
//! They are copied from VTL0's memory into their place in the platform's state, with no buffer between.

use litebox_platform_lvbs::access::PhysConstPtr;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::vsm::BootContext;
use litebox_platform_lvbs::{Platform, VsmError};
use log::info;
use vsm_macros::vsm_handler;

use super::trusted_os::{NoTrustedOs, TrustedOs};

#[cfg(test)]
#[path = "tests/root_key.rs"]
mod tests;

/// Hands over the platform's root key: 32 bytes, contiguous in physical memory, from `key` on.
///
/// Once: VTL1 keeps the key as long as it runs. VTL0 should wipe its own copy then. On an error VTL1 has no byte of it.
#[vsm_handler(
    VsmFunction::SetPlatformRootKey,
    phase = boot,
    caller = any,
    errors(
        EBUSY = "there is a root key already",
        EFAULT = "bytes that are not memory",
        EACCES = "a key that ends in a frame of VTL1",
    )
)]
fn set_platform_root_key(call: &BootContext<'_>, key: PhysAddr) -> Result<(), VsmError> {
    hand_over(call.platform(), &NoTrustedOs, key)
}

/// Keeps the key at `key`, and lets the trusted operating system know it.
fn hand_over(platform: &Platform, os: &impl TrustedOs, key: PhysAddr) -> Result<(), VsmError> {
    let source = PhysConstPtr::new(platform, key)?;
    let mut root_key = platform.root_key().lock();
    root_key.set("the bytes of the platform's root key", |bytes| source.read_into(platform.hardware(), bytes))?;
    if let Some(bytes) = root_key.expose() {
        os.take_root_key(bytes);
    }
    drop(root_key);
    info!("SetPlatformRootKey: VTL1 has the platform's root key");
    Ok(())
}
