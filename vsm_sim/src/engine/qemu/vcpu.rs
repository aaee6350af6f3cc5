//! Driving one VP: which of its two VMCBs runs, moving the shared registers that live in a VMCB, events in flight, the watchdog, instruction counts.

use super::config::Mode;
use super::exits::{Outcome, interpret};
use super::layout::{control, operation};
use super::machine::Machine;
use super::vmcb::{CR2, DR6, RAX, Vmcb, encode_event};
use crate::engine::decode;
use crate::engine::error::{EngineError, Result};
use crate::engine::exit::{Event, EventKind, Exit, Intercepts, Reason};
use crate::engine::state::{PrivateState, SharedState};
use crate::engine::walk::{Translation, translate};
use crate::engine::{CONTEXTS, DeviceAccess, Instruction, Vcpu};
use core::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a CPU may take to leave its guest when told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a context has besides its VMCB.
pub struct Context {
    pub vmcb: Vmcb,
    pub intercepts: Intercepts,
    pub single_step: bool,
    /// Event for the next entry, in VMCB form with its error code.
    event: Option<(u64, u32)>,
    line: Option<u8>,
    taken: Option<u8>,
    instructions: u64,
}

/// The handle of one VP.
pub struct QemuVcpu {
    machine: Arc<Machine>,
    cpu: u32,
    /// The context whose VMCB holds RAX, CR2 and DR6.
    current: usize,
    contexts: [Context; CONTEXTS],
    /// An NMI for context 0 waits.
    nmi: bool,
}

impl QemuVcpu {
    /// Takes the VP; there can be one handle at a time.
    pub fn new(machine: &Arc<Machine>, cpu: u32) -> Result<Self> {
        let driven =
            machine.driven.get(cpu as usize).ok_or(EngineError::BadVp { vp: cpu, reason: "there is no such VP" })?;
        if driven.swap(true, SeqCst) {
            return Err(EngineError::BadVp { vp: cpu, reason: "it already has a handle" });
        }
        let context = |index| {
            let mode = if index == 0 { machine.mode } else { Mode::Script };
            let vmcb = Vmcb::new(machine.memory.clone(), cpu, index, machine.spaces().root(index), mode);
            Context {
                vmcb,
                intercepts: Intercepts::default(),
                single_step: false,
                event: None,
                line: None,
                taken: None,
                instructions: 0,
            }
        };
        Ok(Self { machine: machine.clone(), cpu, current: 0, contexts: [context(0), context(1)], nmi: false })
    }

    fn register(&self, index: usize) -> &core::sync::atomic::AtomicU64 {
        self.machine.control64(self.cpu, control::REGISTERS + 8 * index as u64)
    }

    /// Makes a context the one whose VMCB holds the shared registers.
    fn switch_to(&mut self, context: usize) {
        if self.current != context {
            for offset in [RAX, CR2, DR6] {
                let value = self.contexts[self.current].vmcb.get64(offset);
                self.contexts[context].vmcb.set64(offset, value);
            }
            self.current = context;
        }
    }

    /// One entry. Gives whether the guest was stopped by a kick.
    fn enter(&mut self, context: usize, limit: Instant) -> Result<bool> {
        let (machine, cpu) = (self.machine.clone(), self.cpu);
        machine.drop_stale_code(cpu)?;
        let this = &mut self.contexts[context];
        if context == 0 {
            // The stub changes the tables only when they do not suffice.
            let user = machine.control64(cpu, control::ROOT_OF_USER).load(SeqCst);
            let kernel = machine.control64(cpu, control::ROOT).load(SeqCst);
            this.vmcb.set_root(if this.vmcb.cpl() == 3 && user != 0 { user } else { kernel });
            if self.nmi && this.event.is_none() {
                self.nmi = false;
                this.event = Some(encode_event(Event { vector: 2, kind: EventKind::Nmi, error_code: None }));
            }
        }
        let event = this.event.take();
        this.vmcb.prepare(event.map(|event| event.0), event.map_or(0, |event| event.1), this.line);
        if this.single_step {
            this.vmcb.set_trap_flag(true);
        }
        let entries = machine.control64(cpu, control::ENTRIES).load(SeqCst);
        let ticks = machine.control64(cpu, control::TICKS).load(SeqCst);
        let mut too_long = false;
        if !machine.request(cpu, this.vmcb.address, limit)? {
            too_long = true;
            machine.kick(cpu)?;
            if !machine.finish(cpu, Instant::now() + STOP_LIMIT)? {
                return Err(EngineError::Stuck { vp: cpu, what: "leaving the guest after the watchdog's time" });
            }
        }
        let entries = machine.control64(cpu, control::ENTRIES).load(SeqCst) - entries;
        let ticks = machine.control64(cpu, control::TICKS).load(SeqCst) - ticks;
        if machine.counts {
            this.instructions += ticks.saturating_sub(entries * machine.entry_cost);
        }
        if this.single_step {
            this.vmcb.set_trap_flag(false);
        }
        if entries == 0 {
            this.event = event;
        } else {
            this.event = this.vmcb.cut_short();
            if this.line.is_some() && !this.vmcb.interrupt_waits() {
                this.taken = this.line.take();
            }
        }
        if machine.control32(cpu, control::NMI).swap(0, SeqCst) != 0 {
            // A script has no one who could send one: it comes from a call of ours that was late.
            self.nmi |= machine.mode == Mode::Guest;
        }
        let stopped = machine.control32(cpu, control::STOPPED).load(SeqCst) != 0;
        if stopped || too_long {
            machine.control32(cpu, control::STOP).store(0, SeqCst);
        }
        if too_long {
            let millis = u64::try_from(machine.watchdog.as_millis()).unwrap_or(u64::MAX);
            return Err(EngineError::Watchdog { vp: cpu, rip: this.vmcb.rip(), millis });
        }
        Ok(stopped)
    }
}

impl Drop for QemuVcpu {
    fn drop(&mut self) {
        self.machine.driven[self.cpu as usize].store(false, SeqCst);
    }
}

impl Vcpu for QemuVcpu {
    fn vp(&self) -> u32 {
        self.cpu
    }

    fn state(&self, context: usize) -> PrivateState {
        self.contexts[context].vmcb.state()
    }

    fn set_state(&mut self, context: usize, state: &PrivateState) {
        self.contexts[context].vmcb.set_state(state);
    }

    fn shared(&self) -> SharedState {
        let vmcb = &self.contexts[self.current].vmcb;
        let [rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15] =
            core::array::from_fn(|index| self.register(index).load(SeqCst));
        let (rax, cr2, dr6) = (vmcb.get64(RAX), vmcb.get64(CR2), vmcb.get64(DR6));
        SharedState { rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, cr2, dr6 }
    }

    fn set_shared(&mut self, state: &SharedState) {
        let SharedState { rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, cr2, dr6 } = *state;
        for (index, value) in
            [rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15].into_iter().enumerate()
        {
            self.register(index).store(value, SeqCst);
        }
        let vmcb = &self.contexts[self.current].vmcb;
        for (offset, value) in [(RAX, rax), (CR2, cr2), (DR6, dr6)] {
            vmcb.set64(offset, value);
        }
    }

    fn run(&mut self, context: usize) -> Result<Exit> {
        self.switch_to(context);
        let limit = Instant::now() + self.machine.watchdog;
        loop {
            if self.enter(context, limit)? {
                let rip = self.contexts[context].vmcb.rip();
                return Ok(Exit { reason: Reason::Kicked, rip, instruction_len: 0 });
            }
            let (state, shared) = (self.state(context), self.shared());
            match interpret(&self.machine.ram, &self.contexts[context], &state, &shared) {
                Outcome::Exit(exit) => return Ok(exit),
                Outcome::Again => {}
                Outcome::Inject(event) => self.inject(context, event),
                Outcome::MsrRead { value, len } => {
                    let (low, high) = (value & 0xffff_ffff, value >> 32);
                    self.set_shared(&SharedState { rax: low, rdx: high, ..shared });
                    self.advance(context, len);
                }
                Outcome::State { state, len } => {
                    self.set_state(context, &state);
                    self.advance(context, len);
                }
            }
        }
    }

    fn inject(&mut self, context: usize, event: Event) {
        let this = &mut self.contexts[context];
        // An interrupt that the new event displaces is not lost: it goes back to the line, if that is free.
        if let Some((old, _)) = this.event
            && matches!(old >> 8 & 7, 0)
            && this.line.is_none()
        {
            this.line = Some(old.to_le_bytes()[0]);
        }
        this.event = Some(encode_event(event));
    }

    fn event_pending(&self, context: usize) -> bool {
        self.contexts[context].event.is_some()
    }

    fn set_interrupt(&mut self, context: usize, vector: Option<u8>) {
        self.contexts[context].line = vector;
    }

    fn take_interrupt(&mut self, context: usize) -> Option<u8> {
        self.contexts[context].taken.take()
    }

    fn set_intercepts(&mut self, context: usize, intercepts: &Intercepts) {
        let this = &mut self.contexts[context];
        this.vmcb.set_intercepts(intercepts, this.single_step);
        this.intercepts = intercepts.clone();
    }

    fn advance(&mut self, context: usize, len: u8) {
        let counts = self.machine.counts;
        let this = &mut self.contexts[context];
        this.vmcb.advance(len);
        this.instructions += u64::from(counts);
    }

    fn translate(&self, context: usize, gva: u64) -> Option<Translation> {
        translate(&self.machine.ram, &self.state(context), gva)
    }

    fn set_user_execution(&mut self, context: usize, on: bool) {
        if context == 0 {
            let root = if on { self.machine.spaces().root_of_user() } else { 0 };
            self.machine.control64(self.cpu, control::ROOT_OF_USER).store(root, SeqCst);
        }
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u32; 4]> {
        self.machine.operate(self.cpu, operation::CPUID, [leaf, 0, subleaf, 0])
    }

    fn device(&mut self, access: DeviceAccess) -> Result<u32> {
        let width = |size: u8| u64::from(size.trailing_zeros().min(2));
        let (operation, words) = match access {
            DeviceAccess::In { port, size } => (operation::IN + width(size), [u32::from(port), 0, 0, 0]),
            DeviceAccess::Out { port, size, value } => (operation::OUT + width(size), [u32::from(port), value, 0, 0]),
            DeviceAccess::Store { address, value } => (operation::STORE, [address, value, 0, 0]),
        };
        let [value, ..] = self.machine.operate(self.cpu, operation, words)?;
        Ok(value)
    }

    fn stored_value(&self, context: usize) -> Option<u64> {
        decode::stored_value(&self.machine.ram, &self.state(context), &self.shared())
    }

    fn instruction(&self, context: usize) -> Instruction {
        decode::decode(&self.machine.ram, &self.state(context)).0
    }

    fn instructions(&self, context: usize) -> u64 {
        self.contexts[context].instructions
    }

    fn set_single_step(&mut self, context: usize, on: bool) {
        let this = &mut self.contexts[context];
        this.single_step = on;
        this.vmcb.set_intercepts(&this.intercepts, on);
    }
}
