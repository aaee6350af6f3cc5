//! The calls of the boot sequence: bringing the other processors into VTL1, and the end of boot.
//!
//! VTL0 still is what the firmware measured, but its memory is read as if it were hostile: once, and checked.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::hv::HvStatus;
use litebox_platform_lvbs::hv::calls::enable_vp_vtl;
use litebox_platform_lvbs::vsm::{BootContext, Vtl0Page};
use litebox_platform_lvbs::vtl0::PhysConstPtr;
use vsm_macros::vsm_handler;

use crate::end_of_boot;

/// Enables VTL1 on the processors that Linux is about to start.
///
/// `present` is the frame number of a page with a Linux cpumask: bit n stands for the processor with index n. The
/// calling processor runs in VTL1 already and is passed over, like one on which VTL1 is enabled. -EINVAL for a
/// processor that is not possible; nothing has been enabled then.
#[vsm_handler(
    VsmFunction::EnableAPsVtl,
    phase = boot,
    caller = bsp,
    errors(
        EINVAL = "a processor that is not possible",
        EFAULT = "the mask is not in memory",
        ENOMEM = "VTL1 has no memory for a processor",
        EIO = "the hypervisor refuses",
    ),
)]
fn enable_aps_vtl(call: &BootContext<'_>, present: Vtl0Page) -> Result<(), VsmError> {
    let mask = CpuMask::read(call, present)?;
    // All checks come first: a refused mask leaves no processor half enabled.
    for cpu in mask.cpus() {
        call.platform().processor(cpu)?;
    }
    mask.cpus().filter(|cpu| *cpu != call.vp()).try_for_each(|cpu| {
        let context = call.platform().hardware().initial_vp_context(cpu)?;
        match enable_vp_vtl(call.platform().hardware(), cpu, &context) {
            Err(VsmError::Hypercall { status: HvStatus::VTL_ALREADY_ENABLED, .. }) => Ok(()),
            other => other,
        }
    })
}

/// Brings every online processor into VTL1 for the first time.
#[vsm_handler(VsmFunction::BootAPs, phase = boot, caller = bsp, not_implemented)]
fn boot_aps() {}

/// Ends the boot phase, for good: from here on VTL1 takes VTL0 for hostile.
///
/// Returns when no other boot-phase call is at work. May come from any processor; only the first succeeds, and nothing
/// that was not set up makes it fail: what is missing stays closed, and the log says what is. A processor whose registers
/// are not locked is locked by VTL1 before it next goes back to VTL0; frames of the kernel that VTL0 can both write and
/// execute it can only write from then on.
#[vsm_handler(VsmFunction::SignalEndOfBoot, phase = boot, caller = any, errors())]
fn signal_end_of_boot(call: &BootContext<'_>) -> Result<(), VsmError> {
    call.boot_call().end_boot()?;
    end_of_boot::close(call.platform());
    Ok(())
}

/// Bytes of a cpumask page: one page, whatever Linux's `NR_CPUS` (LVBS contract §4).
const CPU_MASK_BYTES: usize = 4096;

/// VTL1's copy of a Linux cpumask page.
struct CpuMask([u8; CPU_MASK_BYTES]);

impl CpuMask {
    /// Copies the page, once.
    fn read(call: &BootContext<'_>, page: Vtl0Page) -> Result<Self, VsmError> {
        let platform = call.platform();
        PhysConstPtr::new(platform, page.start())?.read(platform.hardware()).map(Self)
    }

    /// The processors whose bits are set, ascending. Linux numbers the bits of little-endian words, which is the
    /// same as those of bytes.
    fn cpus(&self) -> impl Iterator<Item = u32> {
        (0u32..)
            .step_by(8)
            .zip(&self.0)
            .filter(|(_, byte)| **byte != 0)
            .flat_map(|(first, byte)| (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| first | bit))
    }
}
