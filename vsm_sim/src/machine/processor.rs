//! One virtual processor: runs it, switches its VTLs, and comes back when VTL0's script has something to say.

use std::sync::Arc;

use anyhow::{Context, Result};
use litebox_platform_lvbs::hv::{EntryReason, HvRegisterName, Vtl};

use super::guest::Exception;
use super::msrs::Msrs;
use super::watch::{Change, Watch};
use super::{Machine, VTL1, registers};
use crate::engine::{Engine, Event, EventKind, PrivateState, SharedState, Vcpu};

/// Why a processor came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// VTL0 has switched the machine off. This and the next three come from guests with the machine's devices only.
    PowerOff,
    /// VTL0 has reset the machine.
    Reset,
    /// VTL0 has sent INIT to a processor, or to all others.
    Init {
        /// Which.
        target: Option<u32>,
    },
    /// VTL0 has sent a start-up to a processor, or to all others.
    StartUp {
        /// Which.
        target: Option<u32>,
        /// The page of low memory to start at.
        page: u8,
    },
    /// VTL0's snippet is done.
    Done,
    /// VTL0 has taken an exception or interrupt through its IDT.
    Exception(Exception),
    /// A VTL has executed HLT, with nothing that could wake it.
    Halted(Vtl),
    /// A triple fault, with the instruction pointer it left.
    Shutdown(Vtl, u64),
    /// A stop was requested, and there was nothing else to do.
    Kicked,
    /// A step of [`Processor::step`] is done; the VTL that runs next.
    Stepped(Vtl),
}

/// One virtual processor of a machine.
pub struct Processor {
    pub(super) machine: Arc<Machine>,
    pub(super) vp: u32,
    pub(super) vcpu: Box<dyn Vcpu>,
    pub(super) msrs: [Msrs; Vtl::COUNT],
    vtl1_started: bool,
    /// The model has a DR6 for each VTL (HvRegisterVsmCapabilities, Dr6Shared = 0); the engine has one.
    dr6: [u64; Vtl::COUNT],
    intercepts: (u64, u64, u64),
    mbec: bool,
    /// Where the next interrupt command of VTL0 goes, as far as its writes stop.
    pub(super) command_target: u32,
    watch: Option<Box<dyn Watch>>,
}

impl Processor {
    /// The processor with index `vp`, in VTL0 with `state`.
    pub fn new(machine: Arc<Machine>, vp: u32, state: &PrivateState) -> Result<Self> {
        let mut vcpu = machine.engine.vcpu(vp)?;
        vcpu.set_state(super::VTL0, state);
        let msrs = [Msrs::new(vp), Msrs::new(vp)];
        Ok(Self {
            machine,
            vp,
            vcpu,
            msrs,
            vtl1_started: false,
            dr6: [0xffff_0ff0; 2],
            intercepts: (0, 0, 0),
            mbec: false,
            command_target: 0,
            watch: None,
        })
    }

    /// Who is told what this processor does from now on.
    pub fn set_watch(&mut self, watch: Box<dyn Watch>) {
        self.watch = Some(watch);
    }

    /// The machine it belongs to.
    #[must_use]
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// An architectural MSR of a VTL's; nothing for one that there is not.
    pub fn msr(&mut self, vtl: Vtl, number: u32) -> Option<u64> {
        self.vcpu.state(vtl.index()).msr(number).or_else(|| self.msrs[vtl.index()].read(number))
    }

    /// Its index.
    #[must_use]
    pub fn vp(&self) -> u32 {
        self.vp
    }

    /// The engine's handle.
    pub fn vcpu(&mut self) -> &mut dyn Vcpu {
        &mut *self.vcpu
    }

    /// Instructions VTL1 has executed on this processor so far.
    #[must_use]
    pub fn vtl1_instructions(&self) -> u64 {
        self.vcpu.instructions(VTL1)
    }

    /// Runs until VTL0's script has something to say.
    pub fn run(&mut self) -> Result<Stop> {
        loop {
            if let Some(stop) = self.run_once()? {
                return Ok(stop);
            }
        }
    }

    /// Runs one instruction of VTL1, or, while VTL0 is active, until something else stops it.
    pub fn step(&mut self) -> Result<Stop> {
        self.vcpu.set_single_step(VTL1, true);
        let stop = loop {
            match self.run_once() {
                Ok(None) if self.active() == Vtl::Vtl1 => break Ok(Stop::Stepped(Vtl::Vtl1)),
                Ok(None) => {}
                Ok(Some(stop)) => break Ok(stop),
                Err(error) => break Err(error),
            }
        };
        self.vcpu.set_single_step(VTL1, false);
        stop
    }

    /// The VTL that runs.
    #[must_use]
    pub fn active(&self) -> Vtl {
        self.machine.partition.active_vtl(self.vp)
    }

    fn run_once(&mut self) -> Result<Option<Stop>> {
        self.machine.apply_effects()?;
        if self.active() == Vtl::Vtl0 && self.machine.partition.interrupt_entry(self.vp, &self.machine.ram) {
            self.switch(Vtl::Vtl0, Vtl::Vtl1);
            self.tell_change(Change::Enter(EntryReason::INTERRUPT));
        }
        let vtl = self.active();
        self.inject_pending(vtl);
        if vtl == Vtl::Vtl1 {
            let waiting = self.machine.partition.pending_interrupt(self.vp, Vtl::Vtl1);
            self.vcpu.set_interrupt(VTL1, waiting);
        }
        let exit = self.vcpu.run(vtl.index()).with_context(|| format!("VP {} in {vtl}", self.vp))?;
        if vtl == Vtl::Vtl1
            && let Some(vector) = self.vcpu.take_interrupt(VTL1)
        {
            self.machine.partition.acknowledge_interrupt(self.vp, Vtl::Vtl1, vector);
        }
        if let Some(watch) = &mut self.watch {
            watch.stopped(vtl, &exit, &self.vcpu.shared());
        }
        self.handle(vtl, &exit)
    }

    /// Tells who watches that the VTLs have changed.
    pub(super) fn tell_change(&mut self, change: Change) {
        if let Some(watch) = &mut self.watch {
            watch.changed(change, &self.vcpu.shared(), self.vcpu.instructions(VTL1));
        }
    }

    /// Delivers what a hypercall has made pending for `vtl`.
    fn inject_pending(&mut self, vtl: Vtl) {
        if let Some(event) = self.machine.partition.take_pending_event(self.vp, vtl) {
            let vector = u8::try_from(event.vector()).unwrap_or(u8::MAX);
            self.vcpu.inject(vtl.index(), Event { vector, kind: EventKind::Exception, error_code: event.error_code() });
        }
    }

    /// Makes `to` the running VTL; the model has decided so already.
    pub(super) fn switch(&mut self, from: Vtl, to: Vtl) {
        if to == Vtl::Vtl1 && !self.vtl1_started {
            self.vtl1_started = true;
            let state = self.machine.partition.with_registers(self.vp, Vtl::Vtl1, |file| registers::initial(file));
            self.vcpu.set_state(VTL1, &state);
        }
        let mut shared = self.vcpu.shared();
        self.dr6[from.index()] = shared.dr6;
        shared.dr6 = self.dr6[to.index()];
        self.vcpu.set_shared(&shared);
    }

    /// Changes shared registers.
    pub(super) fn change_shared(&mut self, change: impl FnOnce(&mut SharedState)) {
        let mut shared = self.vcpu.shared();
        change(&mut shared);
        self.vcpu.set_shared(&shared);
    }

    /// Brings the model's registers up to date, lets `work` have them, and carries back what was written.
    pub(super) fn with_model_registers<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let partition = &self.machine.partition;
        for vtl in Vtl::ALL {
            // Before its first entry VTL1 has only what HvCallEnableVpVtl gave the model.
            if vtl == Vtl::Vtl0 || self.vtl1_started {
                let state = self.vcpu.state(vtl.index());
                let msrs = &self.msrs[vtl.index()];
                partition.with_registers(self.vp, vtl, |file| {
                    registers::load(file, state);
                    msrs.load(file);
                });
            }
        }
        let shared = self.vcpu.shared();
        partition.with_shared_registers(self.vp, |file| registers::load_shared(file, shared));
        let result = work(self);
        for vtl in Vtl::ALL {
            self.apply_written(vtl);
        }
        let written = self.machine.partition.with_shared_registers(self.vp, crate::hv::RegisterFile::take_written);
        self.change_shared(|shared| {
            for (name, value) in written {
                registers::apply_shared(shared, name, value);
            }
        });
        self.apply_intercepts();
        result
    }

    fn apply_written(&mut self, vtl: Vtl) {
        let written = self.machine.partition.with_registers(self.vp, vtl, crate::hv::RegisterFile::take_written);
        if written.is_empty() {
            return;
        }
        let mut state = self.vcpu.state(vtl.index());
        for (name, value) in written {
            if name == HvRegisterName::DR6 {
                self.dr6[vtl.index()] = value.low;
            } else if !registers::apply(&mut state, name, value) {
                self.msrs[vtl.index()].apply(name, value.low);
            }
        }
        self.vcpu.set_state(vtl.index(), &state);
    }

    /// Tells the engine which accesses of VTL0 to stop at, when VTL1 has changed that.
    fn apply_intercepts(&mut self) {
        let wanted = self.machine.partition.cr_intercepts(self.vp);
        if wanted != self.intercepts {
            self.intercepts = wanted;
            self.vcpu.set_intercepts(super::VTL0, &super::msrs::intercepts(wanted.0));
        }
        let mbec = self.machine.partition.secure_config(self.vp).is_mbec_enabled();
        if mbec != self.mbec {
            self.mbec = mbec;
            self.vcpu.set_user_execution(super::VTL0, mbec);
        }
    }
}
