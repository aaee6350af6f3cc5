//! One life of a VTL0: what its processors share, the gate between them, what they know of VTL1's state, and how it ends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::cpu::World;
use super::options::Sabotage;
use super::trace::Trace;
use crate::vtl0::lists::Range;
use crate::vtl0::modules::Placed;

/// How long a processor waits for another one's call: on the hosted machine, and on the one that is so much slower.
const SOON: [Duration; 2] = [Duration::from_micros(400), Duration::from_millis(30)];

/// The first thing that went wrong.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The step.
    pub step: u64,
    /// The processor.
    pub vp: u32,
    /// The rule.
    pub rule: String,
}

/// What VTL0 knows of its modules; the rules about tokens are checked as answers come.
#[derive(Debug, Default)]
pub struct Known {
    /// Tokens of modules that live.
    pub tokens: BTreeSet<u64>,
    initialised: BTreeSet<u64>,
    /// Tokens of modules that were unloaded by guessing, before their loader learnt the token.
    early: BTreeSet<u64>,
    /// Where the made-up modules lie that were accepted last.
    pub placed: [Placed; 2],
}

impl Known {
    /// A call has returned.
    fn note(&mut self, id: u64, token: u64, result: i64) -> Result<()> {
        match F::from_id(id) {
            Some(F::ValidateModule) if result >= 0 => {
                let new = result.cast_unsigned();
                ensure!(new != 0, "ValidateModule returned 0, which is no token");
                if !self.early.remove(&new) {
                    ensure!(self.tokens.insert(new), "token {new} was given to two modules");
                }
            }
            Some(F::FreeModuleInit) if result == 0 => {
                ensure!(self.initialised.insert(token), "module {token} was initialised twice");
            }
            Some(F::UnloadModule) if result == 0 && !self.tokens.remove(&token) => {
                ensure!(self.early.insert(token), "module {token} was unloaded twice");
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the processors of a life share.
pub struct Life {
    /// What everything in it is drawn from.
    pub seed: u64,
    /// How many processors.
    pub vps: u32,
    /// Whether one thread plays them all, one step after the other.
    pub lockstep: bool,
    /// Whether hypercalls and mappings are made to fail in it.
    pub fails: bool,
    /// For so many steps VTL0 does not end its boot.
    pub boot_steps: u64,
    /// The protections that Linux asks for at boot.
    pub boot_ranges: Vec<Range>,
    /// The machine.
    pub world: Box<dyn World>,
    /// What happened last.
    pub trace: Trace,
    /// Held to read by every step, and to write by who wants VTL1 to be at rest.
    pub gate: RwLock<()>,
    /// What is done on purpose to see that it is found.
    pub sabotage: Option<Sabotage>,
    /// Whether that has been done.
    pub sabotaged: AtomicBool,
    /// The heap of this process in use, where it is counted.
    pub heap: Option<fn() -> usize>,
    known: Mutex<Known>,
    /// The call that was begun last, and how many were.
    begun: Mutex<(u64, [u64; 3])>,
    calls: AtomicU64,
    ended: AtomicBool,
    /// Whether all have rested since.
    rested: AtomicBool,
    /// How many processors have not been in VTL1 yet.
    outside: AtomicU32,
    next: AtomicU64,
    steps: u64,
    stopped: AtomicBool,
    broken: Mutex<Option<Broken>>,
    /// What each processor is at, and since when.
    beats: Vec<Mutex<Option<(u64, Instant)>>>,
}

/// What a life is made of.
pub struct Parts {
    /// See [`Life::seed`].
    pub seed: u64,
    /// See [`Life::vps`].
    pub vps: u32,
    /// See [`Life::lockstep`].
    pub lockstep: bool,
    /// See [`Life::fails`].
    pub fails: bool,
    /// How many steps.
    pub steps: u64,
    /// See [`Life::boot_steps`].
    pub boot_steps: u64,
    /// See [`Life::boot_ranges`].
    pub boot_ranges: Vec<Range>,
    /// See [`Life::sabotage`].
    pub sabotage: Option<Sabotage>,
    /// See [`Life::heap`].
    pub heap: Option<fn() -> usize>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Life {
    /// A life in `world`.
    #[must_use]
    pub fn new(parts: Parts, world: Box<dyn World>) -> Self {
        let Parts { seed, vps, lockstep, fails, steps, boot_steps, boot_ranges, sabotage, heap } = parts;
        Self {
            seed,
            vps,
            lockstep,
            fails,
            boot_steps,
            boot_ranges,
            world,
            trace: Trace::new(vps),
            gate: RwLock::default(),
            sabotage,
            sabotaged: AtomicBool::new(false),
            heap,
            known: Mutex::default(),
            begun: Mutex::default(),
            calls: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            rested: AtomicBool::new(false),
            // The first one is in when the life begins.
            outside: AtomicU32::new(vps.saturating_sub(1)),
            next: AtomicU64::new(0),
            steps,
            stopped: AtomicBool::new(false),
            broken: Mutex::default(),
            beats: (0..vps).map(|_| Mutex::default()).collect(),
        }
    }

    /// The number of the next step; nothing when the life is over.
    pub fn next_step(&self) -> Option<u64> {
        if self.is_stopped() {
            return None;
        }
        let step = self.next.fetch_add(1, Ordering::Relaxed);
        (step < self.steps).then_some(step)
    }

    /// How many steps were begun.
    #[must_use]
    pub fn step_count(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.steps)
    }

    /// Ends the life after the steps that are under way.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// A rule is broken; the first one counts.
    pub fn fail(&self, broken: Broken) {
        locked(&self.broken).get_or_insert(broken);
        self.stop();
    }

    /// What went wrong first.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        locked(&self.broken).clone()
    }

    /// Whether SignalEndOfBoot has returned.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Another processor has been in VTL1.
    pub fn enter(&self) {
        self.outside.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all processors have been in VTL1: before, a hypercall that is made to fail may be VTL0's own.
    #[must_use]
    pub fn has_all_inside(&self) -> bool {
        self.outside.load(Ordering::Relaxed) == 0
    }

    /// Whether all processors are to rest now because the boot has just ended: once true.
    pub fn is_to_rest(&self) -> bool {
        self.has_ended() && !self.rested.swap(true, Ordering::Relaxed)
    }

    /// Works on what VTL0 knows.
    pub fn with_known<R>(&self, work: impl FnOnce(&mut Known) -> R) -> R {
        work(&mut locked(&self.known))
    }

    /// A call begins.
    pub fn begin_call(&self, id: u64, parameters: [u64; 3]) {
        *locked(&self.begun) = (id, parameters);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// The call that was begun last: if others are at work, one that another processor is about to make, if that comes soon.
    #[must_use]
    pub fn latest_call(&self) -> (u64, [u64; 3]) {
        let before = self.calls.load(Ordering::Relaxed);
        let end = Instant::now() + SOON[usize::from(self.world.hosted().is_none())];
        while !self.lockstep && self.calls.load(Ordering::Relaxed) == before && Instant::now() < end {
            std::thread::yield_now();
        }
        *locked(&self.begun)
    }

    /// A call has returned: what follows for what VTL0 knows.
    ///
    /// # Errors
    /// The rule that the answer breaks.
    pub fn note(&self, id: u64, parameters: [u64; 3], result: i64) -> Result<()> {
        // Longer results would be cut off by VTL0's `int` (LVBS contract §3).
        ensure!((-4095..=0x7fff_ffff).contains(&result), "{result} is neither an errno nor a reply");
        if id == F::SignalEndOfBoot.id() && result == 0 {
            ensure!(!self.ended.swap(true, Ordering::SeqCst), "the boot has ended twice");
        }
        self.with_known(|known| known.note(id, parameters[0], result))
    }

    /// What must hold of VTL0's knowledge while no processor is in VTL1; the tokens that live.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn tokens_at_rest(&self) -> Result<BTreeSet<u64>> {
        self.with_known(|known| {
            ensure!(known.early.is_empty(), "modules {:?} were unloaded and never loaded", known.early);
            Ok(known.tokens.clone())
        })
    }

    /// Processor `vp` begins step `step`, or is at none.
    pub fn beat(&self, vp: u32, step: Option<u64>) {
        if let Some(beat) = usize::try_from(vp).ok().and_then(|vp| self.beats.get(vp)) {
            *locked(beat) = step.map(|step| (step, Instant::now()));
        }
    }

    /// The processor that has been at its step for the longest time: which, the step, and since when.
    #[must_use]
    pub fn slowest(&self) -> Option<(u32, u64, Instant)> {
        let beats = (0..).zip(&self.beats);
        let at_work = beats.filter_map(|(vp, beat)| locked(beat).map(|(step, since)| (vp, step, since)));
        at_work.min_by_key(|(.., since)| *since)
    }
}
