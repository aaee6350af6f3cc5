//! A hosted VTL1: memory, partition and platform together, booted as the LVBS contract has it, then called.

use std::ops::Range;
use std::sync::Arc;

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hardware::calls::set_vp_register;
use litebox_platform_lvbs::hv::hypercall::{EnablePartitionVtl, EnableVpVtl};
use litebox_platform_lvbs::hv::{
    HvRegisterName, HypercallCode, HypercallControl, HypercallResult, InputVtl, MapFlags, PARTITION_ID_SELF,
    VP_INDEX_SELF, VsmPartitionConfig, VsmVpSecureConfig, Vtl, msr,
};
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::vsm::{Gate, VsmJumpTable};
use litebox_platform_lvbs::{Platform, VsmError};
use vsm_handlers::{AnswerCheck, GATE, ROWS, VSM_TABLE, before_return, dispatch};
use zerocopy::IntoBytes;

use super::fetches;
use super::hardware::{HostedHardware, Vtl1Layout, as_vp, context};
use super::logging::{self, Collected};
use super::memory::HostedMemory;
use super::ring::RingPlace;
use super::view::ViewPlace;
use crate::hv::{Access, GuestMemory, MemoryAccess, Mode, Partition, PartitionConfig, ReferenceTime, Verdict};

/// The jump table, once for all machines.
static TABLE: VsmJumpTable = VSM_TABLE;
/// The rules before it.
static RULES: Gate = GATE;
/// The vector of VTL1's intercept source (LVBS contract §6).
pub(super) const SINT_VECTOR: u8 = 0xf3;
/// VTL0's hypercall page and the page of its hypercall input, at the very start of its memory.
const VTL0_HYPERCALL_PAGE: u64 = 0;
const VTL0_HYPERCALL_INPUT: u64 = 0x1000;
/// What lies in reserved fields of VTL0's hypercalls, for its driver never clears their page: bytes that were seen (LVBS
/// contract §11.12).
const STALE: [u8; 6] = [0x2f, 0xba, 0x81, 0x2f, 0xba, 0x81];

/// VTL0's kernel, with SMEP.
const KERNEL: Mode = Mode { user: false, smep_disabled: false };

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct HostedConfig {
    /// Guest RAM, VTL1's region included; must contain the first two frames, which VTL0 uses for hypercalls.
    pub ram: Vec<FrameRange>,
    /// The region VTL0 gives to VTL1.
    pub vtl1_region: FrameRange,
    /// How many processors.
    pub vps: u32,
}

impl Default for HostedConfig {
    /// 64 MiB of RAM, two processors, VTL1 at 32..48 MiB.
    fn default() -> Self {
        Self { ram: vec![mib(0, 64)], vtl1_region: mib(32, 48), vps: 2 }
    }
}

/// The frames from `start` to `end`, in MiB.
///
/// # Panics
/// When the range is empty or beyond 2^52.
pub fn mib(start: u64, end: u64) -> FrameRange {
    FrameRange::from_gfns(start << 8, end << 8).expect("the range ascends and lies below 2^52")
}

/// A VTL1 that runs as host code.
pub struct HostedMachine {
    pub(super) memory: Arc<HostedMemory>,
    pub(super) partition: Arc<Partition>,
    pub(super) layout: Vtl1Layout,
    ring: Arc<RingPlace>,
    views: Arc<ViewPlace>,
    log: Option<Collected>,
    pub(super) platform: Arc<Platform>,
}

impl HostedMachine {
    /// Makes a machine and boots VTL1 on processor 0, up to its first return.
    ///
    /// # Panics
    /// When `config` makes no sense, or the model refuses a step of the boot sequence.
    pub fn new(config: HostedConfig) -> Self {
        Self::loaded_by(Generation::G2, config)
    }

    /// The same, with VTL1 loaded by `loader`.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn loaded_by(loader: Generation, config: HostedConfig) -> Self {
        let HostedConfig { ram, vtl1_region, vps } = config;
        assert!(Vtl1Layout::frames(vps) <= vtl1_region.count(), "VTL1's region is too small for {vps} processors");
        let memory = Arc::new(HostedMemory::new(ram.clone()));
        let partition = Arc::new(Partition::new(PartitionConfig::new(ram, vps)));
        // 0.1 s a read: a test of a processor that does not come should not wait for it.
        partition.set_reference_time(ReferenceTime::PerRead(1_000_000));
        let layout = Vtl1Layout { region: vtl1_region };
        let ring = Arc::new(RingPlace::default());
        let views = Arc::new(ViewPlace::default());
        let hardware = HostedHardware {
            memory: Arc::clone(&memory),
            partition: Arc::clone(&partition),
            layout,
            ring: Arc::clone(&ring),
            views: Arc::clone(&views),
        };
        let platform_config = PlatformConfig { vtl1_region, possible_cpus: vps, boot_vp: 0, loader };
        let platform = Arc::new(Platform::new(Box::new(hardware), platform_config).expect("the platform"));
        let machine = Self { memory, partition, layout, ring, views, log: None, platform };
        machine.boot();
        machine
    }

    /// Guest memory, without regard to protections.
    pub fn memory(&self) -> &HostedMemory {
        &self.memory
    }

    /// The hypervisor model.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The same, to share with a race or a trace.
    pub fn shared_partition(&self) -> Arc<Partition> {
        Arc::clone(&self.partition)
    }

    /// The frames that VTL0 gave to VTL1.
    pub fn vtl1_region(&self) -> Range<u64> {
        self.layout.region.start()..self.layout.region.end()
    }

    /// VTL1's views of frozen memory.
    pub fn views(&self) -> &ViewPlace {
        &self.views
    }

    /// VTL1's state.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Makes a VSM call on `vp` through the jump table, and returns the result register.
    ///
    /// # Panics
    /// When VTL1 is not enabled on `vp`, or has not been entered for the first time ([`Self::first_entry`]); when the call
    /// answers with an errno that its row, or its handler if that answers, does not list.
    pub fn vtl_call(&self, vp: u32, id: u64, a1: u64, a2: u64, a3: u64) -> i64 {
        self.enter(vp);
        let answer = self.serve(vp, || dispatch(&TABLE, &RULES, &self.platform, vp, [id, a1, a2, a3]));
        self.partition.vtl_return(vp, 0, 1, &*self.memory).expect("VTL return");
        AnswerCheck::new(&ROWS).check(id, answer).unwrap_or_else(|unlisted| panic!("{unlisted}"))
    }

    /// Runs `work` as VTL1 on `vp`, between a VTL call and a VTL return.
    ///
    /// # Panics
    /// When VTL1 is not enabled on `vp`.
    pub fn in_vtl1<R>(&self, vp: u32, work: impl FnOnce(&Platform) -> R) -> R {
        self.enter(vp);
        let result = self.serve(vp, || work(&self.platform));
        self.partition.vtl_return(vp, 0, 1, &*self.memory).expect("VTL return");
        result
    }

    /// What the image does between an entry and the return.
    pub(super) fn serve<R>(&self, vp: u32, work: impl FnOnce() -> R) -> R {
        let serve = || {
            let result = work();
            before_return(&self.platform, vp);
            result
        };
        as_vp(vp, || {
            fetches::watch(|| match &self.log {
                Some(log) => log.collect(&self.platform, serve),
                None => serve(),
            })
        })
    }

    /// Keeps VTL1's log from now on: its lines, and what goes into the ring. Without this the log is dropped.
    pub fn keep_log(&mut self) {
        logging::install();
        self.log.get_or_insert_default();
    }

    /// Forgets the lines that VTL1 has logged so far, so that they take no memory.
    pub fn forget_log(&self) {
        self.log.iter().for_each(Collected::forget);
    }

    /// The lines VTL1 has logged since [`Self::keep_log`], as on its console.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.as_ref().map(Collected::lines).unwrap_or_default()
    }

    /// Where the log ring is mapped.
    pub fn ring(&self) -> &RingPlace {
        &self.ring
    }

    /// Makes a hypercall as VTL0 of `vp`; `input` is at most a page.
    ///
    /// # Panics
    /// When `input` is longer than a page.
    pub fn vtl0_hypercall(&self, vp: u32, control: HypercallControl, input: &[u8]) -> HypercallResult {
        self.memory.write(VTL0_HYPERCALL_INPUT, input).expect("VTL0's input page");
        let [from, to] = [VTL0_HYPERCALL_INPUT, VTL0_HYPERCALL_PAGE];
        self.partition.hypercall(vp, Vtl::Vtl0, control.raw(), from, to, &*self.memory)
    }

    /// Writes memory as VTL0's kernel on `vp`: the bytes must not cross a page.
    ///
    /// # Errors
    /// Why not; nothing has been written then.
    pub fn vtl0_write(&self, vp: u32, gpa: u64, bytes: &[u8]) -> Result<(), Verdict> {
        let access = MemoryAccess { gpa, gva: None, access: Access::Write, mode: KERNEL };
        let written = self.partition.while_allowed(vp, &access, || self.memory.write(gpa, bytes))?;
        written.map_err(|_| Verdict::Unmapped)
    }

    /// Reads memory as VTL0's kernel on `vp`: the bytes must not cross a page.
    ///
    /// # Errors
    /// Why not.
    pub fn vtl0_read(&self, vp: u32, gpa: u64, into: &mut [u8]) -> Result<(), Verdict> {
        self.vtl0_may(vp, gpa, Access::Read)?;
        self.memory.read(gpa, into).map_err(|_| Verdict::Unmapped)
    }

    /// Whether VTL0's kernel on `vp` may access memory in this way.
    ///
    /// # Errors
    /// Why not.
    pub fn vtl0_may(&self, vp: u32, gpa: u64, access: Access) -> Result<(), Verdict> {
        match self.partition.may_access(vp, &MemoryAccess { gpa, gva: None, access, mode: KERNEL }) {
            Verdict::Allowed => Ok(()),
            refused => Err(refused),
        }
    }

    /// Enters VTL1 on `vp` for the first time, where it configures the processor. VTL1 must be enabled there.
    ///
    /// # Errors
    /// The hypercall that failed.
    ///
    /// # Panics
    /// When VTL1 is not enabled on `vp`.
    pub fn first_entry(&self, vp: u32) -> Result<(), VsmError> {
        self.enter(vp);
        let write = |number, value| {
            self.partition.msr_write(vp, Vtl::Vtl1, number, value, &*self.memory).expect("an MSR VTL1 may write");
        };
        write(msr::GUEST_OS_ID, msr::guest_os_id(1, 1, 0));
        write(msr::HYPERCALL, msr::page_enabled(self.layout.hypercall_page()));
        write(msr::VP_ASSIST_PAGE, msr::page_enabled(self.layout.assist_page(vp)));
        write(msr::SIMP, msr::page_enabled(self.layout.message_page(vp)));
        write(msr::SINT0, msr::Sint::auto_eoi(SINT_VECTOR).0);
        write(msr::SCONTROL, msr::SCONTROL_ENABLE);
        let config = VsmVpSecureConfig::MBEC | VsmVpSecureConfig::TLB_LOCKED;
        let hardware = self.platform.hardware();
        let result = as_vp(vp, || {
            if vp == 0 {
                let config = VsmPartitionConfig::new(MapFlags::ALL);
                set_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_PARTITION_CONFIG, config.0)?;
            }
            let name = HvRegisterName::VSM_VP_SECURE_CONFIG_VTL0;
            set_vp_register(hardware, InputVtl::CURRENT, name, config)?;
            self.platform.set_entered(vp);
            before_return(&self.platform, vp);
            Ok(())
        });
        self.partition.vtl_return(vp, 0, 1, &*self.memory).expect("VTL return");
        result
    }

    fn enter(&self, vp: u32) {
        // They are not carried out here: only those of the last call are kept, for tests to look at.
        self.partition.take_effects();
        self.partition.vtl_call(vp, 0, 0, &*self.memory).expect("VTL call");
    }

    /// LVBS contract §2.8, steps 1 to 3.
    fn boot(&self) {
        let memory = &*self.memory;
        for (number, value) in
            [(msr::GUEST_OS_ID, msr::guest_os_id(1, 1, 0)), (msr::HYPERCALL, msr::page_enabled(VTL0_HYPERCALL_PAGE))]
        {
            self.partition.msr_write(0, Vtl::Vtl0, number, value, memory).expect("an MSR VTL0 may write");
        }
        let enable = EnablePartitionVtl {
            partition: PARTITION_ID_SELF,
            target_vtl: 1,
            flags: EnablePartitionVtl::ENABLE_MBEC,
            reserved: STALE,
        };
        let control = HypercallControl::new(HypercallCode::ENABLE_PARTITION_VTL);
        let result = self.vtl0_hypercall(0, control, enable.as_bytes());
        assert!(result.status().is_success(), "enabling VTL1: {}", result.status());
        let enable = EnableVpVtl {
            partition: PARTITION_ID_SELF,
            vp_index: VP_INDEX_SELF,
            target_vtl: 1,
            reserved: [STALE[0], STALE[1], STALE[2]],
            context: context(self.layout.region.start() << 12, 0),
        };
        let control = HypercallControl::new(HypercallCode::ENABLE_VP_VTL);
        let result = self.vtl0_hypercall(0, control, enable.as_bytes());
        assert!(result.status().is_success(), "enabling VTL1 on processor 0: {}", result.status());
        self.first_entry(0).expect("VTL1's first entry");
        self.in_vtl1(0, |platform| {
            platform.frames().lock().close_vtl1(platform.hardware()).expect("VTL1 protects itself");
        });
    }
}
