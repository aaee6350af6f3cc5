//! What differs between hypervisors and processors, and what the TLFS leaves to them. Each is a choice here, so that VTL1
//! can be tested with all of them; what Hyper-V does, as far as it is known, is the default.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hv::{CrInterceptControl, HvStatus};

use super::partition::Partition;

/// How HvCallModifyVtlProtectionMask ends at a frame whose rights cannot be changed: one that is no RAM, or that the
/// hypervisor itself holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// Hyper-V: INVALID_PARAMETER (TLFS "HvCallModifyVtlProtectionMask"), with the frames before it done.
    #[default]
    AtFrame,
    /// OpenVMM, which looks at the whole list first: OPERATION_DENIED, with none done.
    WholeList,
}

impl Refusal {
    /// The status.
    pub const fn status(self) -> HvStatus {
        match self {
            Self::AtFrame => HvStatus::INVALID_PARAMETER,
            Self::WholeList => HvStatus::OPERATION_DENIED,
        }
    }
}

/// What a hypervisor does about reserved fields of hypercall input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It does not look at them.
    Ignored,
    /// It refuses what is not zero.
    Checked,
}

/// What this hypervisor and its processors can do, where they differ.
pub(super) struct Abilities {
    /// Whether CPUID shows VMX or SVM.
    offers_virtualization: bool,
    /// Whether a VTL can deny lower ones to start processors.
    pub(super) deny_startup: bool,
    /// The accesses of VTL0 that VTL1 can ask to be told of.
    pub(super) cr_intercepts: CrInterceptControl,
    /// Whether writes that change no masked bit are intercepted as well.
    pub(super) ignores_masks: bool,
    /// What becomes of a hypercall with reserved fields that are not zero.
    pub(super) reserved: Reserved,
    /// How a frame that cannot be protected is refused.
    pub(super) refusal: Refusal,
    /// Frames of RAM that cannot be protected.
    held: Vec<FrameRange>,
}

impl Default for Abilities {
    fn default() -> Self {
        // What the model has rules for: all below the launch control of SGX.
        let beyond = CrInterceptControl::SGX_LAUNCH_CONTROL_WRITE.bits();
        Self {
            offers_virtualization: false,
            deny_startup: true,
            cr_intercepts: CrInterceptControl::from_bits_truncate(beyond - 1),
            ignores_masks: false,
            reserved: Reserved::Ignored,
            refusal: Refusal::default(),
            held: Vec::new(),
        }
    }
}

impl Abilities {
    /// Whether the hypervisor holds frame `gfn` itself.
    pub(super) fn holds(&self, gfn: u64) -> bool {
        self.held.iter().any(|held| held.start() <= gfn && gfn < held.end())
    }
}

impl Partition {
    /// Makes a partition whose processors offer virtualization. Only a hosted VTL1 asks here; the machine's asks CPUID.
    pub fn offer_virtualization(&self) {
        self.lock().abilities.offers_virtualization = true;
    }

    /// Whether the processors offer virtualization.
    pub fn offers_virtualization(&self) -> bool {
        self.lock().abilities.offers_virtualization
    }

    /// Makes a hypervisor with or without DenyLowerVtlStartup.
    pub fn set_can_deny_startup(&self, can: bool) {
        self.lock().abilities.deny_startup = can;
    }

    /// Makes a hypervisor that cannot intercept these accesses, as one on another processor.
    pub fn deny_cr_intercepts(&self, accesses: CrInterceptControl) {
        self.lock().abilities.cr_intercepts.remove(accesses);
    }

    /// Makes a hypervisor that tells VTL1 of every write of a register it asked for, also where the mask would spare it.
    pub fn ignore_cr_masks(&self) {
        self.lock().abilities.ignores_masks = true;
    }

    /// Makes a hypervisor that refuses hypercalls whose reserved fields are not zero, which the TLFS asks of callers but
    /// does not say to be checked ([`super::request`]).
    pub fn check_reserved_fields(&self) {
        self.lock().abilities.reserved = Reserved::Checked;
    }

    /// Sets how HvCallModifyVtlProtectionMask refuses a frame.
    pub fn set_refusal(&self, refusal: Refusal) {
        self.lock().abilities.refusal = refusal;
    }

    /// Makes a hypervisor that holds these frames itself, be it locked or under an overlay page: their rights do not change.
    pub fn hold_frames(&self, frames: FrameRange) {
        self.lock().abilities.held.push(frames);
    }
}
