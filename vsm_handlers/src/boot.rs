//! The calls of the boot sequence: bringing the other processors into VTL1, and the end of boot.
//!
//! VTL0 still is what the firmware measured, but its memory is read as if it were hostile: once, and checked.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::PhysConstPtr;
use litebox_platform_lvbs::hardware::calls::enable_vp_vtl;
use litebox_platform_lvbs::hv::HvStatus;
use litebox_platform_lvbs::vsm::{BootContext, Vtl0Page};
use log::info;
use vsm_macros::vsm_handler;

use crate::arrival::BootSignal;
use crate::{end_of_boot, registers};

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
    mask.check(call)?;
    enable(call, &mask)
}

/// Brings every online processor into VTL1 for the first time.
///
/// `online` is the frame number of a page with a Linux cpumask; VTL1 is enabled on its processors where it is not yet, the
/// calling one passed over. `signal` is the frame number of the boot-signal page, where the loader has one: VTL1 then calls
/// each processor by its byte of that page, and returns when all have been to VTL1. Without such a page, and always for a
/// loader of the third generation, whose register holds anything, they come by themselves afterwards.
///
/// A refused mask or page has had no effect. Where a processor does not come in time, those that have come, and those that
/// come later, are served.
#[vsm_handler(
    VsmFunction::BootAPs,
    phase = boot,
    caller = bsp,
    errors(
        EINVAL = "a processor that is not possible",
        EFAULT = "the mask or the boot-signal page is not in memory",
        EACCES = "the boot-signal page is not VTL0's own",
        ENOMEM = "VTL1 has no memory for a processor",
        EIO = "the hypervisor refuses",
        ETIMEDOUT = "a processor has not come to VTL1 in time",
    ),
)]
fn boot_aps(call: &BootContext<'_>, online: Vtl0Page, signal: BootSignal) -> Result<(), VsmError> {
    let mask = CpuMask::read(call, online)?;
    mask.check(call)?;
    signal.check(call.platform())?;
    enable(call, &mask)?;
    signal.call(call.platform(), mask.others(call))?;
    info!("BootAPs: {} other processors are to run VTL1", mask.others(call).count());
    Ok(())
}

/// Enables VTL1 on the processors of `mask`, which have been checked.
fn enable(call: &BootContext<'_>, mask: &CpuMask) -> Result<(), VsmError> {
    mask.others(call).try_for_each(|cpu| {
        let context = call.platform().hardware().initial_vp_context(cpu)?;
        match enable_vp_vtl(call.platform().hardware(), cpu, &context) {
            Err(VsmError::Hypercall { status: HvStatus::VTL_ALREADY_ENABLED, .. }) => Ok(()),
            other => other,
        }
    })
}

/// Ends the boot phase, for good: from here on VTL1 takes VTL0 for hostile.
///
/// Returns when no other boot-phase call is at work. May come from any processor; only the first succeeds, and nothing
/// that was not set up makes it fail: what is missing stays closed, and the log says what is. A processor whose registers
/// are not locked is locked by VTL1 before it next goes back to VTL0; frames of the kernel that VTL0 can both write and
/// execute it can only write from then on.
#[vsm_handler(VsmFunction::SignalEndOfBoot, phase = boot, caller = any, errors(EPERM = "another has ended it first"))]
fn signal_end_of_boot(call: &BootContext<'_>) -> Result<(), VsmError> {
    registers::lock_before_end_of_boot(call.platform(), call.vp());
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

    /// Refuses a mask with a processor that is not possible. Comes first: a refused mask leaves no processor half enabled.
    fn check(&self, call: &BootContext<'_>) -> Result<(), VsmError> {
        self.cpus().try_for_each(|cpu| call.platform().processor(cpu).map(|_| ()))
    }

    /// The processors of the mask but the calling one.
    fn others(&self, call: &BootContext<'_>) -> impl Iterator<Item = u32> + Clone {
        let vp = call.vp();
        self.cpus().filter(move |cpu| *cpu != vp)
    }

    /// The processors whose bits are set, ascending. Linux numbers the bits of little-endian words, which is the
    /// same as those of bytes.
    fn cpus(&self) -> impl Iterator<Item = u32> + Clone {
        (0u32..)
            .step_by(8)
            .zip(&self.0)
            .filter(|(_, byte)| **byte != 0)
            .flat_map(|(first, byte)| (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| first | bit))
    }
}
