//! Protection of VTL0 memory: ProtectMemory.
//!
//! The list comes from VTL0 and is checked by `heki`; which frames may change is for the frame registry to say. What
//! is trusted: that VTL0, during boot, knows what its own kernel needs.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::frames::{Permission, Refused};
use litebox_platform_lvbs::heki::{CheckedRange, HekiList};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::vsm::BootContext;
use log::{error, info, warn};
use vsm_macros::vsm_handler;

/// Gives ranges of VTL0 memory the permissions that a HEKI list names.
///
/// The list covers all memory that VTL0's direct map does, VTL1's own region included: VTL1's frames, and those that
/// another call has taken, stay as they are. So do frames that the hypervisor refuses to change, for VTL0 names some that are
/// no memory; the log says how many. On an error no permission has changed.
#[vsm_handler(
    VsmFunction::ProtectMemory,
    phase = boot,
    caller = any,
    errors(
        EFAULT = "a range that breaks a rule",
        EACCES = "a later page of the list in a frame of VTL1",
        EINVAL = "a range that is not page-aligned, or attributes that are no permission",
        ENOMEM = "VTL1 has no memory for the registry",
        EIO = "the hypervisor lacks memory or time for it",
    ),
)]
fn protect_memory(call: &BootContext<'_>, list: HekiList) -> Result<(), VsmError> {
    let platform = call.platform();
    let mut registry = platform.frames().lock();
    let mut transaction = registry.begin(platform.hardware(), Phase::Boot)?;
    let mut tally = Tally::default();
    for range in list.walk(platform) {
        let range = range?;
        let (frames, permission) = (range.frames()?, range.memory_attributes()?.permission());
        let owner = owner_of(permission);
        let skipped = transaction.stage_skipping_foreign(frames, Owner::BootProtected, owner, permission)?;
        tally.add(&range, permission, skipped);
    }
    let refused = transaction.commit_leaving_refused(|status| !status.is_lack())?;
    tally.log(refused);
    Ok(())
}

/// Plain data stays without an owner: modules, kexec images and the log ring are made of it later. Anything else is the
/// kernel VTL0 wants sealed, and only another ProtectMemory can change it; patches may touch its text.
fn owner_of(permission: Permission) -> Owner {
    if permission == Permission::RW {
        Owner::Nobody
    } else if permission.contains(Permission::EXEC) && !permission.contains(Permission::WRITE) {
        Owner::KernelText
    } else {
        Owner::BootProtected
    }
}

/// What the log says about a list.
#[derive(Default)]
struct Tally {
    ranges: u64,
    bytes: u64,
    skipped: u64,
    write_and_execute: u64,
}

impl Tally {
    fn add(&mut self, range: &CheckedRange, permission: Permission, skipped: u64) {
        self.ranges = self.ranges.saturating_add(1);
        self.bytes = self.bytes.saturating_add(range.byte_count());
        self.skipped = self.skipped.saturating_add(skipped);
        if permission.is_write_and_execute() {
            self.write_and_execute = self.write_and_execute.saturating_add(1);
        }
    }

    fn log(&self, refused: Refused) {
        let Self { ranges, bytes, skipped, write_and_execute } = self;
        info!("ProtectMemory: {ranges} ranges, {} MiB, {skipped} frames of other owners left alone", bytes >> 20);
        if *write_and_execute != 0 {
            warn!("ProtectMemory: {write_and_execute} ranges are writable and executable");
        }
        let Refused { frames, runs, first, status, untried } = refused;
        if let Some(status) = status {
            warn!(
                "ProtectMemory: {frames} frames in {runs} places, the first at {:#x}, are as they were, most likely no \
                 memory: the hypervisor refuses them ({status})",
                first << 12
            );
        }
        if untried != 0 {
            error!("ProtectMemory: {untried} of these frames were not even tried and may be memory: NOT protected");
        }
    }
}
