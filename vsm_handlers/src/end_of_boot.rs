//! What VTL1 does on its own when the boot ends: it closes what VTL0 left open, and tells an operator where things stand.
//!
//! Nothing that is missing, and nothing that does not work, makes the end of boot fail.

use core::fmt;
use core::sync::atomic::Ordering;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameRegistry, Permission};
use litebox_platform_lvbs::hardware::Hardware;
use litebox_platform_lvbs::hardware::calls::{get_vp_register, set_vp_register, vtl0_hypercall_register};
use litebox_platform_lvbs::hv::{HvRegisterName, InputVtl, VsmCapabilities, VsmPartitionConfig, msr};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::{Platform, VsmError};
use log::{info, warn};

/// Takes writing from the kernel's frames that VTL0 can also execute, then logs the state: one line, and a warning for
/// each thing that VTL0 left open.
pub(crate) fn close(platform: &Platform) {
    info!("end of boot: {}", State(platform));
    let Closing { closed, open, first_open, open_hypercall_page } = Closing::run(platform);
    if closed != 0 {
        warn!("end of boot: {closed} frames of the kernel were writable and executable: now only executable");
    }
    if open != 0 {
        warn!("end of boot: {open} frames of the kernel stay writable and executable, the first at {first_open:#x}");
    }
    if let Some(page) = open_hypercall_page {
        warn!("end of boot: one of them is VTL0's hypercall page at {page:#x}, over which the hypervisor's own lies");
    }
    let all_are_locked = u32::try_from(locked(platform)) == Ok(platform.config().possible_cpus);
    match if all_are_locked { Ok(true) } else { deny_startup(platform.hardware()) } {
        Ok(true) => {}
        Ok(false) => warn!("end of boot: the hypervisor cannot deny VTL0 to start and reset processors"),
        Err(error) => warn!("end of boot: VTL0 can still start and reset processors: {error}"),
    }
    if platform.vtl0().modules().lock().habits.counts_calls() {
        warn!(
            "end of boot: this kernel counts calls (retbleed=stuff): PatchText cannot follow its modules' static calls"
        );
    }
    let Unnamed { frames, end } = Unnamed::count(&platform.frames().lock());
    if frames != 0 {
        warn!(
            "end of boot: {frames} frames below {end:#x}, and what memory there is above, were named by no \
             ProtectMemory: writable and executable"
        );
    }
}

/// From now on VTL0 starts no processor and resets none: one that VTL1 has not locked would run VTL0 without pinned registers,
/// and one that it has not enabled itself on without MBEC, and no VTL1 there could judge its violations. Where all possible
/// processors are locked nothing of that can be, and they may go offline and come back: a locked one stays pinned over a reset
/// (`registers::restart`). False where the hypervisor has no such thing.
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

/// How many processors are locked.
fn locked(platform: &Platform) -> usize {
    let is_locked = |vp: &u32| platform.processor(*vp).is_ok_and(|processor| processor.locked.lock().is_some());
    (0..platform.config().possible_cpus).filter(is_locked).count()
}

/// What became of the frames of the kernel that were writable and executable.
#[derive(Default)]
struct Closing {
    /// So many are only executable now.
    closed: u64,
    /// So many the hypervisor would not change: most likely they are no memory.
    open: u64,
    /// Address of the first of them.
    first_open: u64,
    /// Address of VTL0's hypercall page, if that is one of those that stay open.
    open_hypercall_page: Option<u64>,
}

impl Closing {
    /// From now on no frame of the kernel is writable and executable, as far as the hypervisor agrees.
    fn run(platform: &Platform) -> Self {
        let mut registry = platform.frames().lock();
        let frames = open_frames(&registry).fold(0, |sum: u64, frames| sum.saturating_add(frames.count()));
        if frames == 0 {
            return Self::default();
        }
        if let Err(error) = close_frames(platform, &mut registry) {
            warn!("end of boot: {error}");
        }
        let mut done = Self::default();
        for frames in open_frames(&registry) {
            if done.open == 0 {
                done.first_open = frames.start() << 12;
            }
            done.open = done.open.saturating_add(frames.count());
        }
        done.closed = frames.saturating_sub(done.open);
        if done.open != 0 {
            let is_open = |page: &u64| open_frames(&registry).any(|open| open.start() <= *page && *page < open.end());
            done.open_hypercall_page = hypercall_pages(platform).find(is_open).map(|page| page << 12);
        }
        done
    }
}

/// The owned frames that VTL0 can both write and execute.
fn open_frames(registry: &FrameRegistry) -> impl Iterator<Item = FrameRange> {
    core::iter::successors(registry.write_and_execute(0), |frames| registry.write_and_execute(frames.end()))
}

fn close_frames(platform: &Platform, registry: &mut FrameRegistry) -> Result<(), VsmError> {
    let mut transaction = registry.begin(platform.hardware(), Phase::Runtime)?;
    transaction.stage_write_xor_execute();
    transaction.commit_leaving_refused(|_| true)?;
    Ok(())
}

/// The frames over which VTL0's hypercall pages lie, as the processors that have been to VTL1 have them. The hypervisor puts
/// a page of its own there, which VTL0 can run and not write (TLFS "Establishing the Hypercall Interface"); the
/// frame below shows when VTL0 moves it.
fn hypercall_pages(platform: &Platform) -> impl Iterator<Item = u64> {
    let entered = (0..platform.config().possible_cpus)
        .filter(|vp| platform.processor(*vp).is_ok_and(|processor| processor.has_entered.load(Ordering::Acquire)));
    entered
        .filter_map(|vp| vtl0_hypercall_register(platform.hardware(), vp).ok())
        .filter(|value| value & msr::PAGE_ENABLE != 0)
        .map(|value| value >> 12)
}

/// The one line.
struct State<'a>(&'a Platform);

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platform = self.0;
        let possible = platform.config().possible_cpus;
        let locked = locked(platform);
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
                // Named, and no memory.
                _ if state.refused => {}
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
