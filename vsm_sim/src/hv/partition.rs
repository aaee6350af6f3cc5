//! The partition: its state, how it is made and looked at, and what it asks of the machine.
//!
//! One lock covers everything; each operation of the model is one step for all processors.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hv::cpuid::Privileges;
use litebox_platform_lvbs::hv::{
    HvStatus, HypercallCode, MapFlags, PendingEvent, VsmCodePageOffsets, VsmPartitionConfig, VsmVpSecureConfig, Vtl,
};

use super::abilities::Abilities;
use super::clock::Clock;
use super::flush::Flush;
use super::injection::{Injection, Injections};
use super::protections::ProtectionMap;
use super::registers::RegisterFile;
use super::synic::Synic;
use super::trace::{Trace, TraceEvent};

/// What the partition is made of.
#[derive(Clone, Debug)]
pub struct PartitionConfig {
    /// Guest RAM; disjoint.
    pub ram: Vec<FrameRange>,
    /// How many virtual processors there are; at least 1. VTL0 is enabled on all of them.
    pub vps: u32,
    /// The highest VTL the partition may enable.
    pub maximum_vtl: Vtl,
    /// Whether mode-based execute control can be had.
    pub mbec_available: bool,
    /// What the partition may do.
    pub privileges: Privileges,
    /// Where the machine puts the VTL call and return sequences in its hypercall pages.
    pub code_page_offsets: VsmCodePageOffsets,
    /// The processors' clock, if the guest may know it; the privileges for it are to be given beside.
    pub clock: Option<Clock>,
}

impl PartitionConfig {
    /// A partition that has what the LVBS contract §2.1 asks for.
    pub fn new(ram: Vec<FrameRange>, vps: u32) -> Self {
        Self {
            ram,
            vps,
            maximum_vtl: Vtl::Vtl1,
            mbec_available: true,
            privileges: Privileges::VSM
                | Privileges::ACCESS_PARTITION_REFERENCE_COUNTER
                | Privileges::ACCESS_HYPERCALL_MSRS
                | Privileges::ACCESS_VP_INDEX
                | Privileges::ACCESS_INTR_CTRL_REGS
                | Privileges::START_VIRTUAL_PROCESSOR,
            code_page_offsets: VsmCodePageOffsets::new(0x40, 0x80),
            clock: None,
        }
    }
}

/// How the partition reference counter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceTime {
    /// With the host's clock.
    Host,
    /// By so many units of 100 ns with each read: a guest that waits makes its own time, however slow its processors are.
    PerRead(u64),
}

/// Something the machine has to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// VTL0's rights to the frames `start..end` have changed.
    Protection {
        /// First frame.
        start: u64,
        /// First frame after.
        end: u64,
        /// The rights now.
        flags: MapFlags,
    },
    /// VTL0's rights to all frames that were never set have changed.
    DefaultProtection(MapFlags),
    /// VTL1's translations are to be forgotten on some processors.
    Flush,
    /// A VTL's hypercall page lies over this frame now, or nowhere.
    HypercallPage {
        /// Whose.
        vtl: Vtl,
        /// The frame's number.
        gfn: Option<u64>,
    },
    /// A VTL's reference TSC page lies over this frame now, or nowhere.
    ReferenceTscPage {
        /// Whose.
        vtl: Vtl,
        /// The frame's number.
        gfn: Option<u64>,
    },
}

/// The guest did what the TLFS does not define, or what the model leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The processor.
    pub vp: u32,
    /// The VTL that did it.
    pub vtl: Vtl,
    /// What it did.
    pub what: String,
}

/// A partition with VSM. Shared by all threads that play its processors.
pub struct Partition {
    pub(super) config: PartitionConfig,
    pub(super) started: Instant,
    state: Mutex<State>,
}

/// Per VTL and partition (TLFS: the hypercall page and the guest's identity are partition-wide, one per VTL).
#[derive(Debug, Default)]
pub(super) struct VtlOfPartition {
    pub(super) guest_os_id: u64,
    pub(super) hypercall_page: u64,
    pub(super) reference_tsc: u64,
    pub(super) invariant_tsc: u64,
}

/// Per VTL and processor.
#[derive(Debug, Default)]
pub(super) struct VtlOfVp {
    pub(super) registers: RegisterFile,
    pub(super) assist_page: u64,
    pub(super) synic: Synic,
    pub(super) pending_event: PendingEvent,
    /// Vectors that wait for the VTL's interrupt controller.
    pub(super) interrupts: BTreeSet<u8>,
}

/// Per processor.
#[derive(Debug)]
pub(super) struct Vp {
    pub(super) active: Vtl,
    pub(super) vtl1_enabled: bool,
    pub(super) shared: RegisterFile,
    pub(super) vtls: [VtlOfVp; Vtl::COUNT],
    /// VTL1's configuration of VTL0.
    pub(super) secure_config: VsmVpSecureConfig,
    pub(super) cr_intercept_control: u64,
    /// CR0, CR4, IA32_MISC_ENABLE.
    pub(super) cr_intercept_masks: [u64; 3],
}

pub(super) struct State {
    pub(super) vtl1_enabled: bool,
    pub(super) mbec_enabled: bool,
    pub(super) partition_config: VsmPartitionConfig,
    pub(super) protections: ProtectionMap,
    pub(super) vtls: [VtlOfPartition; Vtl::COUNT],
    pub(super) vps: Vec<Vp>,
    pub(super) injections: Injections,
    pub(super) hypercall_counts: HashMap<HypercallCode, u64>,
    reference_time: (ReferenceTime, u64),
    pub(super) abilities: Abilities,
    pub(super) flushes: Vec<Flush>,
    effects: VecDeque<Effect>,
    reports: Vec<Report>,
    trace: Option<Box<dyn Trace>>,
}

impl State {
    /// The processor with index `vp`, which the machine guarantees to exist.
    ///
    /// # Panics
    /// When there is no such processor: a mistake of the machine, not of the guest.
    pub(super) fn vp(&mut self, vp: u32) -> &mut Vp {
        let count = self.vps.len();
        usize::try_from(vp)
            .ok()
            .and_then(|index| self.vps.get_mut(index))
            .unwrap_or_else(|| panic!("the machine named VP {vp}, the partition has {count}"))
    }

    pub(super) fn vtl(&mut self, vp: u32, vtl: Vtl) -> &mut VtlOfVp {
        &mut self.vp(vp).vtls[vtl.index()]
    }

    pub(super) fn event(&self, event: &TraceEvent<'_>) {
        if let Some(trace) = &self.trace {
            trace.event(event);
        }
    }

    /// What the partition reference counter reads: it never goes back.
    pub(super) fn reference_time(&mut self, started: Instant) -> u64 {
        let (time, count) = &mut self.reference_time;
        *count = match *time {
            ReferenceTime::Host => u64::try_from(started.elapsed().as_nanos() / 100).unwrap_or(u64::MAX).max(*count),
            ReferenceTime::PerRead(step) => count.saturating_add(step),
        };
        *count
    }

    pub(super) fn report(&mut self, vp: u32, vtl: Vtl, what: String) {
        self.event(&TraceEvent::Undefined { vp, vtl, what: &what });
        self.reports.push(Report { vp, vtl, what });
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// Sets VTL0's rights to `start..end`, and tells the observers.
    pub(super) fn protect(&mut self, start: u64, end: u64, flags: MapFlags) {
        self.protections.set(start, end, flags);
        self.event(&TraceEvent::Protection { start, end, flags });
        self.effect(Effect::Protection { start, end, flags });
    }
}

impl Partition {
    /// Makes the partition, all processors in VTL0, VTL1 not enabled.
    ///
    /// # Panics
    /// When `config` has no processor.
    pub fn new(config: PartitionConfig) -> Self {
        assert!(config.vps > 0, "a partition has at least one processor");
        let vps = (0..config.vps)
            .map(|_| Vp {
                active: Vtl::Vtl0,
                vtl1_enabled: false,
                shared: RegisterFile::default(),
                vtls: Default::default(),
                secure_config: VsmVpSecureConfig::default(),
                cr_intercept_control: 0,
                cr_intercept_masks: [0; 3],
            })
            .collect();
        Self {
            config,
            started: Instant::now(),
            state: Mutex::new(State {
                vtl1_enabled: false,
                mbec_enabled: false,
                // TLFS "Zero Memory on Reset": on by default.
                partition_config: VsmPartitionConfig(VsmPartitionConfig::ZERO_MEMORY_ON_RESET),
                protections: ProtectionMap::default(),
                vtls: Default::default(),
                vps,
                injections: Injections::default(),
                hypercall_counts: HashMap::new(),
                // 10 us a read: what waits for processors of the software CPU has patience.
                reference_time: (ReferenceTime::PerRead(100), 0),
                abilities: Abilities::default(),
                flushes: Vec::new(),
                effects: VecDeque::new(),
                reports: Vec::new(),
                trace: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how the partition reference counter runs from now on.
    pub fn set_reference_time(&self, time: ReferenceTime) {
        self.lock().reference_time.0 = time;
    }

    /// Who is told of every event from now on.
    pub fn set_trace(&self, trace: Box<dyn Trace>) {
        self.lock().trace = Some(trace);
    }

    /// What the partition was made of.
    pub fn config(&self) -> &PartitionConfig {
        &self.config
    }

    /// Whether frame `gfn` is guest RAM.
    pub fn is_ram(&self, gfn: u64) -> bool {
        self.config.ram.iter().any(|slot| slot.start() <= gfn && gfn < slot.end())
    }

    /// VTL0's rights to frame `gfn`, whether or not a VTL1 is there to enforce them.
    pub fn protection(&self, gfn: u64) -> MapFlags {
        self.lock().protections.get(gfn)
    }

    /// VTL0's rights to all frames at this moment.
    pub fn protections(&self) -> ProtectionMap {
        self.lock().protections.clone()
    }

    /// VTL0's rights to all of RAM, as the fewest intervals: first frame, first frame after, rights. Equal before and
    /// after a call exactly when the call has left every permission as it was.
    pub fn effective_protections(&self) -> Vec<(u64, u64, MapFlags)> {
        let state = self.lock();
        let slots = self.config.ram.iter();
        slots.flat_map(|slot| state.protections.effective(slot.start(), slot.end())).collect()
    }

    /// The VTL that runs on `vp`.
    pub fn active_vtl(&self, vp: u32) -> Vtl {
        self.lock().vp(vp).active
    }

    /// Whether `vp` may enter `vtl`.
    pub fn is_vtl_enabled(&self, vp: u32, vtl: Vtl) -> bool {
        vtl == Vtl::Vtl0 || self.lock().vp(vp).vtl1_enabled
    }

    /// VTL1's partition-wide configuration.
    pub fn partition_config(&self) -> VsmPartitionConfig {
        self.lock().partition_config
    }

    /// Whether VTL0 may start and reset no processor (TLFS "DenyLowerVtlStartup").
    pub fn denies_startup(&self) -> bool {
        self.partition_config().denies_startup()
    }

    /// VTL1's configuration of VTL0 on `vp`.
    pub fn secure_config(&self, vp: u32) -> VsmVpSecureConfig {
        self.lock().vp(vp).secure_config
    }

    /// Which accesses of VTL0 on `vp` are intercepted: control word, CR0 mask, CR4 mask.
    pub fn cr_intercepts(&self, vp: u32) -> (u64, u64, u64) {
        let mut state = self.lock();
        let vp = state.vp(vp);
        (vp.cr_intercept_control, vp.cr_intercept_masks[0], vp.cr_intercept_masks[1])
    }

    /// Works on a VTL's private registers: the machine's way to keep the model up to date.
    pub fn with_registers<R>(&self, vp: u32, vtl: Vtl, work: impl FnOnce(&mut RegisterFile) -> R) -> R {
        work(&mut self.lock().vtl(vp, vtl).registers)
    }

    /// Works on the registers a processor's VTLs share.
    pub fn with_shared_registers<R>(&self, vp: u32, work: impl FnOnce(&mut RegisterFile) -> R) -> R {
        work(&mut self.lock().vp(vp).shared)
    }

    /// The event to deliver as `vtl` of `vp` runs on, if there is one; it is no longer pending afterwards.
    pub fn take_pending_event(&self, vp: u32, vtl: Vtl) -> Option<PendingEvent> {
        let event = std::mem::take(&mut self.lock().vtl(vp, vtl).pending_event);
        event.is_pending().then_some(event)
    }

    /// What the machine has to carry out before any processor runs on, oldest first.
    pub fn take_effects(&self) -> Vec<Effect> {
        self.lock().effects.drain(..).collect()
    }

    /// What the guest did beyond the TLFS, so far.
    pub fn reports(&self) -> Vec<Report> {
        self.lock().reports.clone()
    }

    /// Makes a hypercall fail.
    pub fn inject(&self, injection: Injection) {
        self.lock().injections.add(injection);
    }

    /// Makes the `k`-th next hypercall (0 is the next one) fail with `status`, before it does anything.
    pub fn fail_hypercall_at(&self, k: u64, status: HvStatus) {
        self.inject(Injection::new(k, status));
    }

    /// Forgets all failures that still wait.
    pub fn clear_injections(&self) {
        self.lock().injections.clear();
    }

    /// How many hypercalls with `code` were made so far, refused ones included.
    pub fn hypercall_count(&self, code: HypercallCode) -> u64 {
        self.lock().hypercall_counts.get(&code).copied().unwrap_or(0)
    }
}
