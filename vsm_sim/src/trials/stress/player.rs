//! VTL0 on one processor: draws a step, takes it, and has the rules checked.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::cpu::{Cpu, Outcome, PINNED};
use super::figures::Figures;
use super::input::Input;
use super::kinds::{Kind, draw};
use super::layout::Layout;
use super::life::{Broken, Life};
use super::options::Damage;
use super::trace::{Answer, name_of};
use crate::random::SplitMix;

/// Bytes that a step is drawn from: as much as the longest one takes.
const BYTES: usize = 768;
const PAGE: u64 = 4096;
/// A processor's steps from one check at rest to the next.
const REST_EVERY: u64 = 64;

/// A processor.
pub struct Player {
    /// Its machine.
    pub cpu: Box<dyn Cpu>,
    /// What it shares with others.
    pub life: Arc<Life>,
    /// Where it keeps what.
    pub layout: Layout,
    /// The list that it wrote last.
    pub list: [u64; 2],
    /// Whether memory is rewritten in the middle of its call.
    pub raced: bool,
    /// What it has done.
    pub figures: Figures,
    /// The values that its pinned registers had when they were locked.
    pub locked: Option<[u64; PINNED.len()]>,
    random: SplitMix,
    /// What it does first.
    opening: Vec<&'static Kind>,
    /// Whether it has been in VTL1.
    entered: bool,
    own_steps: u64,
    step: u64,
    /// What is under way.
    doing: &'static str,
}

impl Player {
    /// A player that has not begun; `entered` is whether it has been in VTL1.
    #[must_use]
    pub fn new(
        cpu: Box<dyn Cpu>,
        life: Arc<Life>,
        layout: &Layout,
        entered: bool,
        opening: Vec<&'static Kind>,
    ) -> Self {
        let vp = cpu.vp();
        // A stream of its own, whatever the others do.
        let random = SplitMix(SplitMix(life.seed ^ (u64::from(vp) << 56)).next());
        let opening = opening.into_iter().rev().collect();
        Self {
            layout: layout.for_vp(vp),
            cpu,
            life,
            list: [0; 2],
            raced: false,
            figures: Figures::default(),
            locked: None,
            random,
            opening,
            entered,
            own_steps: 0,
            step: 0,
            doing: "",
        }
    }

    /// The processor.
    #[must_use]
    pub fn vp(&self) -> u32 {
        self.cpu.vp()
    }

    /// Whether it has been in VTL1.
    #[must_use]
    pub fn has_entered(&self) -> bool {
        self.entered
    }

    /// Takes step number `step` of the life. What goes wrong ends the life; a panic too.
    pub fn play(&mut self, step: u64) {
        self.step = step;
        let (life, vp) = (Arc::clone(&self.life), self.vp());
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.try_play()));
        life.beat(vp, None);
        let rule = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(ToString::to_string);
                text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
            }
        };
        life.fail(Broken { step, vp, rule });
    }

    fn try_play(&mut self) -> Result<()> {
        let life = Arc::clone(&self.life);
        if !self.entered {
            // Not behind the gate: a call of another processor may be waiting for this one.
            life.beat(self.vp(), Some(self.step));
            return self.enter(&life);
        }
        {
            // Who waits at the gate waits for another one, and is not the one that hangs.
            let _gate = life.gate.read().unwrap_or_else(PoisonError::into_inner);
            life.beat(self.vp(), Some(self.step));
            self.act()?;
            self.damage(&life);
            self.check_locked()?;
            life.world.check(&life)?;
        }
        life.beat(self.vp(), None);
        self.figures.steps += 1;
        self.own_steps += 1;
        if self.own_steps.is_multiple_of(REST_EVERY) || life.is_to_rest() {
            let _gate = life.gate.write().unwrap_or_else(PoisonError::into_inner);
            life.beat(self.vp(), Some(self.step));
            life.world.check_at_rest(&life)?;
        }
        Ok(())
    }

    /// Enters VTL1 for the first time.
    fn enter(&mut self, life: &Life) -> Result<()> {
        self.begin("first entry", [0; 4]);
        self.cpu.first_entry()?;
        self.entered = true;
        life.enter();
        self.end(Answer::Done, Duration::ZERO);
        self.figures.steps += 1;
        // After the end of boot it comes back locked, and its first instruction may be one that VTL1 stops.
        self.check_locked()?;
        life.world.check(life)
    }

    fn act(&mut self) -> Result<()> {
        let mut bytes = [0; BYTES];
        for word in bytes.as_chunks_mut::<8>().0 {
            *word = self.random.next().to_le_bytes();
        }
        let mut input = Input::new(&bytes);
        let kind = self.opening.pop().unwrap_or_else(|| draw(&mut input, &self.life));
        (kind.play)(self, &mut input).with_context(|| format!("while VTL0 tried \"{}\"", kind.name))
    }

    /// Breaks something on purpose when it is time to.
    fn damage(&mut self, life: &Life) {
        let Some(sabotage) = life.sabotage.filter(|sabotage| self.step >= sabotage.step) else { return };
        let possible = sabotage.damage != Damage::Register || self.locked.is_some();
        if !possible || life.sabotaged.swap(true, Ordering::Relaxed) {
            return;
        }
        match sabotage.damage {
            Damage::Permission => life.world.tamper_with_permission(),
            Damage::Register => self.cpu.tamper_with_register(),
            // Until the watchdog ends the life.
            Damage::Hang => {
                while life.broken().is_none() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    fn pinned_values(&mut self) -> [u64; PINNED.len()] {
        PINNED.map(|pinned| if self.cpu.stops_at(pinned.name) { self.cpu.register(pinned.name) } else { 0 })
    }

    /// Pinned registers keep the values that they were locked with, and a locked processor stays so.
    fn check_locked(&mut self) -> Result<()> {
        if self.life.fails && self.life.world.hosted().is_none() {
            // The intercepts may stay on, half taken back, without VTL1's taking the processor for locked; only it knows.
            return Ok(());
        }
        let is_locked = self.cpu.is_locked();
        let values = self.pinned_values();
        match &self.locked {
            None if is_locked => self.locked = Some(values),
            None => {}
            Some(locked) => {
                ensure!(is_locked, "VP {} is no longer locked", self.vp());
                let fails = self.life.fails;
                let pinned = PINNED.iter().zip(values).zip(locked);
                // Where hypercalls fail, the hypervisor may have seemed not to know a register that need not be locked.
                for ((pinned, now), value) in pinned.filter(|((pinned, _), _)| !(fails && pinned.optional)) {
                    let changed = (now ^ value) & pinned.mask;
                    ensure!(
                        changed == 0,
                        "{} of VP {} was locked as {value:#x} and is {now:#x}",
                        pinned.name,
                        self.vp()
                    );
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, what: &'static str, words: [u64; 4]) {
        self.doing = what;
        self.life.trace.begin(self.step, self.vp(), what, words);
    }

    fn end(&mut self, answer: Answer, time: Duration) {
        self.life.trace.end(self.vp(), answer);
        self.figures.count(self.doing, answer, time);
    }

    /// Makes a VSM call.
    ///
    /// # Errors
    /// The rule that it or its answer breaks.
    pub fn call(&mut self, id: u64, parameters: [u64; 3]) -> Result<i64> {
        // Else the boot would end, by some call with any id, before much was done in it.
        let too_early = id == F::SignalEndOfBoot.id() && self.step < self.life.boot_steps;
        let id = if too_early { F::LockRegs.id() } else { id };
        let [a1, a2, a3] = parameters;
        let harmed = match F::from_id(id) {
            Some(F::AllocateRingbufferMemory) => self.layout.needs(a1, a2),
            Some(F::Query) => self.layout.needs(a1, PAGE),
            Some(F::OpteeMessage) => self.layout.needs(a1 << 12, PAGE),
            Some(F::BootAPs) => self.layout.needs(a2 << 12, PAGE),
            _ => false,
        };
        if harmed {
            // VTL0 would give away what it runs on, or have VTL1 write there.
            return Ok(0);
        }
        self.begin(name_of(id), [id, a1, a2, a3]);
        let ended = self.life.has_ended();
        self.life.begin_call(id, parameters);
        let start = Instant::now();
        let result = self.cpu.call(id, parameters)?;
        self.end(Answer::Value(result), start.elapsed());
        let locked = !ended || self.life.fails || self.cpu.is_locked();
        ensure!(locked, "VP {} came back from VTL1 after the end of boot, and is not locked", self.vp());
        self.life.note(id, parameters, result)?;
        Ok(result)
    }

    /// Executes an instruction.
    ///
    /// # Errors
    /// When nothing that is defined came of it.
    pub fn attempt(&mut self, what: &'static str, attempt: &super::cpu::Attempt) -> Result<Outcome> {
        use super::cpu::Attempt as A;
        let words = match attempt {
            A::Msr(number, _, value) => [u64::from(*number), *value, 0, 0],
            A::Control(name, value) => [u64::from(name.0), *value, 0, 0],
            A::Table(name) => [u64::from(name.0), 0, 0, 0],
            A::Memory(_, gpa) => [*gpa, 0, 0, 0],
        };
        self.begin(what, words);
        let start = Instant::now();
        let outcome = self.cpu.attempt(attempt)?;
        self.end(Answer::Outcome(outcome), start.elapsed());
        Ok(outcome)
    }

    /// Does something to memory or to the machine that has no answer.
    pub fn quietly(&mut self, what: &'static str, work: impl FnOnce(&mut Self)) {
        self.begin(what, [0; 4]);
        work(self);
        self.end(Answer::Done, Duration::ZERO);
    }
}
