//! Stress on the hosted machine: VTL1 as host code, its registry and state open to the checks.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::hv::{HvRegisterName, HvRegisterValue, MapFlags, PendingEvent, Vtl};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use litebox_platform_lvbs::vtl0::KexecSlot;

use super::cpu::{Attempt, Cpu, Outcome, World};
use super::input::Input;
use super::layout::Layout;
use super::life::Life;
use super::memory::AsVtl0;
use super::rules::{Frames, Snapshot};
use super::{kexec, modules};
use crate::hosted::{HostedConfig, HostedMachine};
use crate::hv::registers::{Kind, RegisterFile, kind};
use crate::hv::{Access, ExecutionState, GuestMemory, Instruction, MemoryAccess, Mode, Partition, Verdict};

/// Where VTL0's instructions are, and how long they are.
const RIP: u64 = 0xffff_ffff_8100_0000;
const LENGTH: u8 = 3;
/// Accesses of VTL1 to VTL0's memory, from one at which another processor gets its turn to the next.
const MEET_EVERY: u32 = 37;
/// What VTL0's registers are at the start: as a Linux kernel has them.
const REGISTERS: [(HvRegisterName, u64); 14] = [
    (HvRegisterName::CR0, 0x8005_0033),
    (HvRegisterName::CR4, 0x0037_06f0),
    (HvRegisterName::LSTAR, 0xffff_ffff_8200_0080),
    (HvRegisterName::STAR, 0x0023_0010_0000_0000),
    (HvRegisterName::CSTAR, 0xffff_ffff_8200_1500),
    (HvRegisterName::APIC_BASE, 0xfee0_0800),
    (HvRegisterName::EFER, 0xd01),
    (HvRegisterName::SYSENTER_CS, 0x10),
    (HvRegisterName::SYSENTER_ESP, 0xffff_8880_0000_2000),
    (HvRegisterName::SYSENTER_EIP, 0xffff_ffff_8200_1480),
    (HvRegisterName::SFMASK, 0x25_7fd5),
    (HvRegisterName::XFEM, 7),
    (HvRegisterName::TSC_AUX, 0),
    (HvRegisterName::MISC_ENABLE, 0x85_0089),
];

/// The hosted machine of a life.
pub struct HostedWorld {
    machine: Arc<HostedMachine>,
    layout: Layout,
    /// When it was looked at last after the end of boot: frames that VTL0 could write and execute, and those that were sealed.
    after_boot: Mutex<Option<(Vec<bool>, Vec<FrameState>)>>,
    kernel_data: Mutex<Option<String>>,
}

impl HostedWorld {
    /// A machine with `vps` processors on which VTL1 is enabled, and has been entered on the first one.
    ///
    /// # Errors
    /// When the boot fails.
    pub fn boot(vps: u32) -> Result<Self> {
        let layout = Layout::hosted();
        let frames = |start, end| FrameRange::from_gfns(start, end).context("the frames ascend");
        let mut machine = HostedMachine::new(HostedConfig {
            ram: vec![frames(0, layout.hole.start)?, frames(layout.hole.end, layout.ram_end)?],
            vtl1_region: frames(layout.vtl1.start, layout.vtl1.end)?,
            vps,
        });
        machine.keep_log();
        for vp in 0..vps {
            for (name, value) in REGISTERS {
                with_file(machine.partition(), vp, name, |file| {
                    // What is a processor's own.
                    let own = match name {
                        HvRegisterName::SYSENTER_ESP | HvRegisterName::APIC_BASE => u64::from(vp) << 12,
                        HvRegisterName::TSC_AUX => vp.into(),
                        _ => 0,
                    };
                    file.load(name, value + own);
                });
            }
        }
        let mask = layout.buffers << 12;
        ensure!(vps <= 16, "{vps} processors are too many");
        let bits = u16::try_from((1_u32 << vps) - 1)?;
        machine.memory().write(mask, &bits.to_le_bytes()).ok().context("the mask's page is RAM")?;
        let enabled = machine.vtl_call(0, F::EnableAPsVtl.id(), layout.buffers, 0, 0);
        ensure!(enabled == 0, "EnableAPsVtl returned {enabled}");
        let mut accesses = 0_u32;
        machine.memory().set_race(Some(Box::new(move |_, _| {
            // Where there are fewer cores than processors, they would else seldom meet in the middle of a call.
            accesses = accesses.wrapping_add(1);
            if accesses.is_multiple_of(MEET_EVERY) {
                std::thread::yield_now();
            }
        })));
        Ok(Self { machine: Arc::new(machine), layout, after_boot: Mutex::default(), kernel_data: Mutex::default() })
    }

    /// VTL0's kernel on processor `vp`; `exact` is whether no other processor works while it makes a call.
    #[must_use]
    pub fn cpu(&self, vp: u32, exact: bool) -> HostedCpu {
        HostedCpu { machine: Arc::clone(&self.machine), vp, exact }
    }

    /// The places.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn tokens(&self) -> BTreeSet<u64> {
        self.machine.platform().vtl0().modules().lock().iter().map(|module| u64::from(module.token.get())).collect()
    }

    /// Loads and unloads the made-up modules and a kexec image, each time with the same heap in use afterwards.
    fn check_heap(&self, heap: fn() -> usize) -> Result<()> {
        // Not a vector, which would grow itself.
        let mut found = [0; 6];
        for found in &mut found {
            self.unload_all()?;
            let memory = AsVtl0::new(self.machine.partition(), self.machine.memory(), 0);
            for which in [0, 1] {
                let placed = modules::place(&mut Input::new(&[which]), &memory, &self.layout);
                if let Some(attempt) = placed {
                    let [first, count] = attempt.list;
                    let token = self.machine.vtl_call(0, F::ValidateModule.id(), first, count, 0);
                    if token > 0 && which == 0 {
                        self.machine.vtl_call(0, F::FreeModuleInit.id(), token.cast_unsigned(), 0, 0);
                    }
                }
            }
            self.unload_all()?;
            if let Some(image) = kexec::place(&mut Input::new(&[]), &memory, &self.layout, false) {
                let [first, count] = image.list;
                self.machine.vtl_call(0, F::KexecValidate.id(), first, count, 0);
            }
            self.forget_images()?;
            self.machine.forget_log();
            *found = heap();
        }
        // The first rounds make tables grow that do not shrink again.
        let same = found.windows(2).skip(2).all(|pair| pair[0] == pair[1]);
        ensure!(same, "the heap in use grows by every module or image that comes and goes: {found:?} bytes");
        Ok(())
    }

    /// The frames of kexec images are those of the images that VTL1 knows.
    fn check_kexec(&self) -> Result<()> {
        let frames = Frames::of(&self.machine);
        let images = self.machine.platform().vtl0().kexec().lock();
        for (slot, crash) in [(KexecSlot::Normal, false), (KexecSlot::Crash, true)] {
            let (known, owned) = (images.get(slot).map_or(0, |image| image.frames), frames.of_kexec(crash));
            ensure!(known == owned, "{slot:?}: an image of {known} frames, but {owned} belong to it");
        }
        Ok(())
    }

    /// Kexec images can be given up at any time, whether there are any or not.
    fn forget_images(&self) -> Result<()> {
        for crash in [0, 1] {
            let result = self.machine.vtl_call(0, F::KexecValidate.id(), 0, 0, crash);
            ensure!(result == 0, "a kexec image cannot be forgotten: {result}");
        }
        self.check_kexec()
    }

    /// Users come before what they use.
    fn unload_all(&self) -> Result<()> {
        for _ in 0..3 {
            for token in self.tokens() {
                self.machine.vtl_call(0, F::UnloadModule.id(), token, 0, 0);
            }
        }
        ensure!(self.tokens().is_empty(), "modules {:?} cannot be unloaded", self.tokens());
        Ok(())
    }
}

impl World for HostedWorld {
    fn hosted(&self) -> Option<&HostedMachine> {
        Some(&self.machine)
    }

    fn partition(&self) -> &Partition {
        self.machine.partition()
    }

    fn check(&self, life: &Life) -> Result<()> {
        // Taken over the look at the frames, so that every look comes after the one before.
        let mut after_boot = self.after_boot.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = life.has_ended();
        let frames = Frames::of(&self.machine);
        frames.check_agreement();
        if ended {
            let sealed = frames.sealed();
            if let Some((before, sealed_before)) = &*after_boot {
                frames.check_no_new(before);
                let gone = sealed_before.iter().find(|state| !sealed.contains(state));
                let new = sealed.iter().find(|state| !sealed_before.contains(state));
                ensure!(gone.or(new).is_none(), "what was sealed when the boot ended has changed: {gone:?} {new:?}");
            }
            *after_boot = Some((frames.write_and_execute(), sealed));
        }
        drop(after_boot);
        let reports = self.machine.partition().reports();
        ensure!(reports.is_empty(), "VTL1 did what the TLFS does not define: {reports:?}");
        Ok(())
    }

    fn check_at_rest(&self, life: &Life) -> Result<()> {
        let snapshot = Snapshot::of(&self.machine);
        snapshot.check_at_rest(&self.machine);
        if !life.fails {
            snapshot.check_locks();
        }
        modules::check_all(&self.machine);
        let tokens = self.tokens();
        ensure!(life.tokens_at_rest()? == tokens, "VTL1 has the modules {tokens:?}, VTL0 {:?}", life.tokens_at_rest()?);
        let owning = Frames::of(&self.machine).owning_tokens();
        let owning: BTreeSet<u64> = owning.into_iter().map(|token| u64::from(token.get())).collect();
        ensure!(owning == tokens, "the modules are {tokens:?}, but frames belong to {owning:?}");
        self.check_kexec()?;
        if life.has_ended() && !life.fails {
            snapshot.check_closed();
        }
        let data = self.machine.platform().vtl0().kernel_data().map(ToString::to_string);
        let mut before = self.kernel_data.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(before.is_none() || *before == data, "the kernel data have changed from {before:?} to {data:?}");
        *before = data;
        self.let_succeed();
        self.machine.forget_log();
        Ok(())
    }

    fn check_at_end(&self, life: &Life) -> Result<()> {
        self.let_succeed();
        self.unload_all()?;
        self.forget_images()?;
        Frames::of(&self.machine).check_agreement();
        life.heap.map_or(Ok(()), |heap| self.check_heap(heap))
    }

    fn tamper_with_permission(&self) {
        let last = self.layout.vtl1.end;
        self.machine.partition().force_protection(last - 1, last, MapFlags::READ_WRITE);
    }

    fn console(&self) -> Vec<String> {
        self.machine.log_lines()
    }
}

impl HostedWorld {
    /// Nothing that was made to fail fails any more.
    fn let_succeed(&self) {
        let_succeed(&self.machine);
    }
}

fn let_succeed(machine: &HostedMachine) {
    machine.partition().clear_injections();
    machine.ring().set_failing(false);
    machine.views().fail_after(u64::MAX);
}

/// Works with the file that has the register: VTL0's own, or the one that the VTLs share.
fn with_file<R>(partition: &Partition, vp: u32, name: HvRegisterName, work: impl FnOnce(&mut RegisterFile) -> R) -> R {
    match kind(name) {
        Kind::Shared => partition.with_shared_registers(vp, work),
        Kind::Private | Kind::Synthetic => partition.with_registers(vp, Vtl::Vtl0, work),
    }
}

/// VTL0's kernel on a processor of the hosted machine.
pub struct HostedCpu {
    machine: Arc<HostedMachine>,
    vp: u32,
    exact: bool,
}

impl HostedCpu {
    fn register_write(&self, name: HvRegisterName, msr: Option<u32>, new: HvRegisterValue) -> Verdict {
        let (partition, memory) = (self.machine.partition(), self.machine.memory());
        let old = with_file(partition, self.vp, name, |file| file.get(name));
        let verdict = match msr {
            Some(number) => partition.msr_write_access(self.vp, number, old.low, new.low, &INSTRUCTION, memory),
            None => partition.register_write(self.vp, name, old, new, &INSTRUCTION, memory),
        };
        if verdict == Verdict::Allowed {
            with_file(partition, self.vp, name, |file| file.load(name, new));
        }
        verdict
    }

    fn memory_access(&self, access: Access, gpa: u64) -> Verdict {
        let mode = Mode { user: false, smep_disabled: false };
        let at = MemoryAccess { gpa, gva: None, access, mode };
        let (partition, memory) = (self.machine.partition(), self.machine.memory());
        let done = partition.while_allowed(self.vp, &at, || match access {
            Access::Write => memory.write(gpa, &0x5a5a_5a5a_5a5a_5a5a_u64.to_le_bytes()),
            Access::Read | Access::Execute => memory.read(gpa, &mut [0; 8]),
        });
        match done {
            Ok(_) => Verdict::Allowed,
            // Between the two another processor may have allowed it: then it takes place after all.
            Err(Verdict::Intercepted) => partition.gpa_access(self.vp, &at, &INSTRUCTION, memory),
            Err(verdict) => verdict,
        }
    }
}

/// The instruction that VTL0 is stopped at.
const INSTRUCTION: Instruction = Instruction {
    rip: RIP,
    length: LENGTH,
    rflags: 2,
    cs: litebox_platform_lvbs::hv::SegmentRegister { base: 0, limit: 0, selector: 8, attributes: 0xa09b },
    cpl: 0,
    cr8: 0xf,
    state: ExecutionState::Long,
};

impl Cpu for HostedCpu {
    fn vp(&self) -> u32 {
        self.vp
    }

    fn partition(&self) -> &Partition {
        self.machine.partition()
    }

    fn ram(&self) -> &dyn GuestMemory {
        self.machine.memory()
    }

    fn first_entry(&mut self) -> Result<()> {
        self.machine.first_entry(self.vp).map_err(|error| anyhow::anyhow!("VTL1's first entry: {error}"))
    }

    fn call(&mut self, id: u64, [a1, a2, a3]: [u64; 3]) -> Result<i64> {
        if !self.exact {
            return Ok(self.machine.vtl_call(self.vp, id, a1, a2, a3));
        }
        let before = Snapshot::of(&self.machine);
        let result = self.machine.vtl_call(self.vp, id, a1, a2, a3);
        let_succeed(&self.machine);
        Snapshot::of(&self.machine).check(&before, result, &self.machine);
        Ok(result)
    }

    fn attempt(&mut self, attempt: &Attempt) -> Result<Outcome> {
        let partition = self.machine.partition();
        let rip = |vp| partition.with_registers(vp, Vtl::Vtl0, |file| file.get(HvRegisterName::RIP)).low;
        partition.with_registers(self.vp, Vtl::Vtl0, |file| file.load(HvRegisterName::RIP, RIP));
        let verdict = match *attempt {
            Attempt::Msr(number, name, value) => self.register_write(name, Some(number), value.into()),
            Attempt::Control(name, value) => self.register_write(name, None, value.into()),
            Attempt::Table(name) => {
                let now = partition.with_registers(self.vp, Vtl::Vtl0, |file| file.get(name));
                self.register_write(name, None, now)
            }
            Attempt::Memory(access, gpa) => self.memory_access(access, gpa),
        };
        match verdict {
            Verdict::Allowed => return Ok(Outcome::Done),
            // The partition's parent refuses, which is a #GP.
            Verdict::Unmapped => return Ok(Outcome::Fault),
            Verdict::Intercepted => {}
        }
        let served = self.machine.serve_intercepts(self.vp);
        if self.exact {
            let_succeed(&self.machine);
        }
        ensure!(served > 0, "VTL0 was stopped by {attempt:x?}, and VTL1 was told nothing");
        match partition.take_pending_event(self.vp, Vtl::Vtl0) {
            Some(PendingEvent::GENERAL_PROTECTION) => Ok(Outcome::Fault),
            Some(other) => bail!("VTL0 was to get {other:?} for {attempt:x?}"),
            None if rip(self.vp) == RIP + u64::from(LENGTH) => Ok(Outcome::Done),
            None => {
                // Not even the #GP could be raised, where hypercalls fail: VTL0 would be stopped again.
                Ok(Outcome::Fault)
            }
        }
    }

    fn stops_at(&self, _: HvRegisterName) -> bool {
        true
    }

    fn register(&mut self, name: HvRegisterName) -> u64 {
        with_file(self.machine.partition(), self.vp, name, |file| file.get(name)).low
    }

    fn is_locked(&self) -> bool {
        let processor = self.machine.platform().processor(self.vp);
        processor.is_ok_and(|processor| processor.locked.lock().is_some())
    }

    fn tamper_with_register(&mut self) {
        let smep = 1 << 20;
        let now = self.register(HvRegisterName::CR4);
        self.machine.partition().with_registers(self.vp, Vtl::Vtl0, |file| file.load(HvRegisterName::CR4, now ^ smep));
    }
}
