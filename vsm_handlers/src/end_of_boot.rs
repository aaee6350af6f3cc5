//! What VTL1 does on its own when the boot ends: it closes what VTL0 left open, and tells an operator where things stand.
//!
//! Nothing that is missing, and nothing that does not work, makes the end of boot fail.

use core::fmt;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameRegistry, Permission};
use litebox_platform_lvbs::hardware::Hardware;
use litebox_platform_lvbs::hardware::calls::{get_vp_register, set_vp_register};
use litebox_platform_lvbs::hv::{HvRegisterName, InputVtl, VsmCapabilities, VsmPartitionConfig};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::{Platform, VsmError};
use log::{info, warn};

/// Attempts to close frames that the end of boot makes at most, so that it ends soon whatever VTL0 has declared.
const ATTEMPTS: u32 = 4096;

/// Takes execution from the kernel's frames that VTL0 can also write, then logs the state: one line, and a warning for
/// each thing that VTL0 left open.
pub(crate) fn close(platform: &Platform) {
    info!("end of boot: {}", State(platform));
    let Closing { closed, open, first_open } = Closing::run(platform);
    if closed != 0 {
        warn!("end of boot: {closed} frames of the kernel were writable and executable: now only writable");
    }
    if open != 0 {
        warn!("end of boot: {open} frames of the kernel stay writable and executable, the first at {first_open:#x}");
    }
    match deny_startup(platform.hardware()) {
        Ok(true) => {}
        Ok(false) => warn!("end of boot: the hypervisor cannot deny VTL0 to start and reset processors"),
        Err(error) => warn!("end of boot: VTL0 can still start and reset processors: {error}"),
    }
    let Unnamed { frames, end } = Unnamed::count(&platform.frames().lock());
    if frames != 0 {
        warn!(
            "end of boot: {frames} frames below {end:#x}, and what memory there is above, were named by no \
             ProtectMemory: writable and executable"
        );
    }
}

/// From now on VTL0 starts no processor and resets none. One that VTL1 has not enabled itself on would run VTL0 without
/// locked registers and without MBEC, and nobody there could judge its violations; of those that VTL1 is on, the hypervisor
/// drops such a start anyway (LVBS contract §7). Linux has started all it will by now. False where the hypervisor has no such
/// thing.
///
/// To be told of starts instead (InterceptVpStartup) would add nothing: none is left to judge.
fn deny_startup(hardware: &dyn Hardware) -> Result<bool, VsmError> {
    let capabilities = get_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_CAPABILITIES)?;
    if !VsmCapabilities(capabilities).can_deny_startup() {
        return Ok(false);
    }
    let config = get_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_PARTITION_CONFIG)?;
    let wanted = config | VsmPartitionConfig::DENY_LOWER_VTL_STARTUP;
    set_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_PARTITION_CONFIG, wanted)?;
    Ok(true)
}

/// What became of the frames of the kernel that were writable and executable.
#[derive(Default)]
struct Closing {
    /// So many are only writable now.
    closed: u64,
    /// So many the hypervisor would not change: most likely they are no memory.
    open: u64,
    /// Address of the first of them.
    first_open: u64,
}

impl Closing {
    /// From now on no frame of the kernel is writable and executable, as far as the hypervisor agrees.
    ///
    /// What it refuses is tried again in halves, so that one frame it will not change keeps no other open.
    fn run(platform: &Platform) -> Self {
        let mut done = Self::default();
        let mut registry = platform.frames().lock();
        let mut next = registry.write_and_execute(0);
        let mut attempts = 0;
        while let Some(frames) = next {
            let (mut at, mut size) = (frames.start(), frames.count());
            while at < frames.end() {
                if attempts == ATTEMPTS {
                    done.leave(at, frames.end());
                    break;
                }
                attempts += 1;
                let end = at.saturating_add(size).min(frames.end());
                match close_frames(platform, &mut registry, at, end) {
                    Ok(()) => {
                        done.closed = done.closed.saturating_add(end - at);
                        (at, size) = (end, size.saturating_mul(2));
                    }
                    Err(_) if end - at > 1 => size = (end - at) / 2,
                    Err(_) => {
                        done.leave(at, end);
                        at = end;
                    }
                }
            }
            next = registry.write_and_execute(frames.end());
        }
        done
    }

    fn leave(&mut self, from: u64, to: u64) {
        if self.open == 0 {
            self.first_open = from << 12;
        }
        self.open = self.open.saturating_add(to - from);
    }
}

fn close_frames(platform: &Platform, registry: &mut FrameRegistry, from: u64, to: u64) -> Result<(), VsmError> {
    let mut transaction = registry.begin(platform.hardware(), Phase::Runtime)?;
    transaction.stage_write_xor_execute(FrameRange::from_gfns(from, to)?)?;
    transaction.commit()
}

/// The one line.
struct State<'a>(&'a Platform);

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = self.0;
        let possible = platform.config().possible_cpus;
        let locked = (0..possible)
            .filter(|vp| platform.processor(*vp).is_ok_and(|processor| processor.locked.lock().is_some()))
            .count();
        write!(f, "registers of {locked} of {possible} possible processors locked")?;
        if u32::try_from(locked) != Ok(possible) {
            f.write_str(" (VTL1 locks the others as it sees them)")?;
        }
        match Unnamed::sealed(&platform.frames().lock()) {
            0 => f.write_str("; NO memory is protected: VTL0 can write its own kernel"),
            frames => write!(f, "; {frames} frames of the kernel sealed"),
        }?;
        match platform.vtl0().kernel_data() {
            Some(data) => write!(f, "; {data}"),
            None => f.write_str("; NO certificates, symbols or patch sites: no module will load, no text be patched"),
        }?;
        match platform.log_ring().lock().as_ref() {
            Some(ring) => write!(f, "; log ring of {} KiB", ring.size() >> 10),
            None => f.write_str("; no log ring: the log is on COM2 only"),
        }
    }
}

/// Frames that VTL0's kernel can both write and execute because no call has named them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unnamed {
    /// So many below the last frame that one has named. VTL1 does not know where RAM ends.
    frames: u64,
    /// First byte after that last frame.
    end: u64,
}

impl Unnamed {
    /// Counts them; none where nothing is named, which the one line tells.
    fn count(registry: &FrameRegistry) -> Self {
        let mut unnamed = Self::default();
        // Frames count once something named follows.
        let mut gap = 0_u64;
        for state in registry.intervals() {
            match state.owner {
                Owner::Nobody if state.permission == Permission::ALL => gap = gap.saturating_add(state.frames.count()),
                Owner::Vtl1 => {}
                _ => {
                    unnamed.frames = unnamed.frames.saturating_add(core::mem::take(&mut gap));
                    unnamed.end = state.frames.end() << 12;
                }
            }
        }
        unnamed
    }

    /// How many frames ProtectMemory has sealed.
    fn sealed(registry: &FrameRegistry) -> u64 {
        let sealed = |owner| matches!(owner, Owner::BootProtected | Owner::KernelText);
        registry.intervals().filter(|state| sealed(state.owner)).map(|state| state.frames.count()).sum()
    }
}
