//! Locking of control registers and MSRs: LockRegs.
//!
//! What is trusted: the values VTL0's registers have during boot. From then on the hypervisor tells VTL1 of every
//! write that could change a pinned bit, and `intercept` decides. A processor that was not locked by the end of boot is
//! locked by VTL1 itself, with the values of the first one that was: its own may have been changed in bad faith. The
//! processor that ends the boot is locked before the boot ends, so that there is such a one. A locked processor that VTL0
//! resets is locked again: `restart`.

mod late;
mod lock;
mod pins;
pub(crate) mod restart;

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::vsm::BootContext;
use log::info;
use vsm_macros::vsm_handler;

pub use late::before_return;
pub(crate) use late::lock_before_end_of_boot;
use lock::lock;
pub(crate) use pins::pinned;

/// Locks the control registers and MSRs of the calling processor with the values they have now.
///
/// A processor that is locked already stays as it is. All or nothing: on an error nothing is intercepted. Two hypercalls:
/// all values in one, all controls in the other; more only on the first processor of a hypervisor that does not know some
/// of what VTL1 would like to lock.
#[vsm_handler(VsmFunction::LockRegs, phase = boot, caller = any, errors(EIO = "the hypervisor refuses"))]
fn lock_regs(call: &BootContext<'_>) -> Result<(), VsmError> {
    if lock(call.platform(), call.vp(), None)? {
        info!("LockRegs: the registers of VP {} are locked", call.vp());
    }
    Ok(())
}
