//! The processors of a run: a thread drives each, from its start-up to its rest, and another one, which drives none,
//! watches them and can stop them all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use litebox_platform_lvbs::hv::Vtl;

use super::bzimage::Entry;
use super::calls::{Intercepts, Watcher};
use super::{End, Event, Observer, Options};
use crate::engine::{Engine, PrivateState};
use crate::machine::{Machine, Processor, Stop};

/// How often the watching thread looks, and calls those who are to stop.
const LOOK: Duration = Duration::from_millis(20);

/// What a processor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It waits for a start-up.
    Rests,
    /// It was told to start at this page.
    Starts(u8),
    /// It runs.
    Runs,
    /// It runs and is to stop, for it was sent INIT.
    Stops,
}

/// Figures of one processor, or of all.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Exits by VTL and cause.
    pub exits: BTreeMap<String, u64>,
    /// VTL calls.
    pub calls: u64,
    /// Instructions of VTL0 and VTL1.
    pub instructions: [u64; 2],
}

struct State {
    lives: Vec<Life>,
    end: Option<End>,
}

/// What the threads of a run share.
pub struct Run {
    pub(super) machine: Arc<Machine>,
    began: Instant,
    observer: Observer,
    /// Milliseconds from the beginning to the last line or exit.
    last: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Run {
    /// A run that begins now.
    pub(super) fn new(machine: Arc<Machine>, began: Instant, observer: Observer, trace: bool) -> Arc<Self> {
        let lives = vec![Life::Rests; machine.config().vps as usize];
        let state = Mutex::new(State { lives, end: None });
        let run = Arc::new(Self { machine, began, observer, last: AtomicU64::new(0), state, changed: Condvar::new() });
        // The machine belongs to the run, so what it holds must not hold the run.
        let observer = Arc::clone(&run.observer);
        run.machine.read_console(Box::new(move |line| observer(began.elapsed(), Event::Vtl1Line(line))));
        let tracer = Intercepts::new(run.machine.config().vps, began, Arc::clone(&run.observer), trace);
        run.machine.partition().set_trace(Box::new(tracer));
        run
    }

    /// Tells the observer.
    pub(super) fn tell(&self, event: Event<'_>) {
        (self.observer)(self.began.elapsed(), event);
    }

    /// The guest has done something.
    pub(super) fn active(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the run; what was first stays.
    fn finish(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Changes the life of `target`, or of all but `vp`, which asks.
    fn change(&self, vp: u32, target: Option<u32>, change: impl Fn(Life) -> Life) -> Result<()> {
        let mut state = self.lock();
        let mut calls = Vec::new();
        for (index, life) in (0..).zip(&mut state.lives) {
            if target.map_or(index != vp, |target| index == target) {
                let before = std::mem::replace(life, change(*life));
                if before != *life && *life == Life::Stops {
                    calls.push(index);
                }
            }
        }
        drop(state);
        self.changed.notify_all();
        for index in calls {
            self.machine.engine().kick(index)?;
        }
        Ok(())
    }

    /// Waits for the processor's start-up; `None` when the run is over.
    fn wait(&self, vp: u32) -> Option<u8> {
        let mut state = self.lock();
        loop {
            if state.end.is_some() {
                return None;
            }
            if let Life::Starts(page) = state.lives[vp as usize] {
                return Some(page);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sets the life of a processor. While one rests, the start-ups that it waits for are watched.
    fn set_life(&self, vp: u32, life: Life) -> Result<()> {
        let (before, now) = {
            let mut state = self.lock();
            let rests = |state: &State| state.lives.iter().any(|life| *life != Life::Runs);
            let before = rests(&state);
            state.lives[vp as usize] = life;
            (before, rests(&state))
        };
        if self.machine.config().vps > 1 && before != now {
            self.machine.engine().watch_startup(now)?;
        }
        Ok(())
    }

    /// A processor has halted with interrupts off, or was sent INIT.
    fn rest(&self, vp: u32) -> Result<()> {
        self.set_life(vp, Life::Rests)?;
        self.tell(Event::Processor { vp, started: false });
        let all = self.lock().lives.iter().all(|life| *life == Life::Rests);
        if all {
            self.finish(End::Halted);
        }
        Ok(())
    }
}

/// Runs all processors to the end of the run; how it ended.
pub(super) fn drive(run: &Arc<Run>, entry: &Entry, options: &Options) -> Result<(End, Figures)> {
    let mut threads = Vec::new();
    for vp in 0..options.vps {
        let state = if vp == 0 { entry.state } else { PrivateState::started_at(0) };
        let mut processor = Processor::new(Arc::clone(&run.machine), vp, &state)?;
        processor.vcpu().set_shared(&entry.shared);
        let run = Arc::clone(run);
        let name = format!("VP {vp}");
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let figures = Arc::default();
            if let Err(error) = live(&run, vp, &mut processor, &figures) {
                run.finish(End::Error(format!("{error:#}")));
            }
            let vcpu = processor.vcpu();
            let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
            figures.instructions = [vcpu.instructions(0), vcpu.instructions(1)];
            figures
        });
        threads.push(thread.context("a thread for a processor")?);
    }
    let end = watch(run, options);
    // Who runs is called until it has heard: a call may meet an interrupt that is handled first.
    while threads.iter().any(|thread| !thread.is_finished()) {
        for vp in 0..options.vps {
            let _ = run.machine.engine().kick(vp);
        }
        std::thread::sleep(LOOK);
    }
    let mut all = Figures::default();
    for thread in threads {
        let Ok(figures) = thread.join() else { continue };
        for (kind, count) in figures.exits {
            *all.exits.entry(kind).or_default() += count;
        }
        all.calls += figures.calls;
        all.instructions = core::array::from_fn(|index| all.instructions[index] + figures.instructions[index]);
    }
    Ok((end, all))
}

/// Waits for the end, which may be that the guest does nothing any more.
fn watch(run: &Run, options: &Options) -> End {
    let mut state = run.lock();
    loop {
        if let Some(end) = &state.end {
            return end.clone();
        }
        let now = run.began.elapsed();
        if now >= options.limit {
            state.end = Some(End::Limit);
        } else if now.saturating_sub(Duration::from_millis(run.last.load(SeqCst))) >= options.watchdog {
            state.end = Some(End::Watchdog);
        } else {
            let waited = run.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            continue;
        }
        run.changed.notify_all();
    }
}

/// A processor's life: one run after another.
fn live(run: &Arc<Run>, vp: u32, processor: &mut Processor, figures: &Arc<Mutex<Figures>>) -> Result<()> {
    processor.set_watch(Box::new(Watcher::new(Arc::clone(run), vp, Arc::clone(figures))));
    if vp == 0 {
        // The boot processor runs from the start.
        run.lock().lives[0] = Life::Starts(0);
    }
    let mut first = vp == 0;
    while let Some(page) = run.wait(vp) {
        if !std::mem::take(&mut first) {
            processor.start_up(page);
        }
        run.set_life(vp, Life::Runs)?;
        run.tell(Event::Processor { vp, started: true });
        one_run(run, vp, processor)?;
    }
    Ok(())
}

fn one_run(run: &Run, vp: u32, processor: &mut Processor) -> Result<()> {
    loop {
        match processor.run()? {
            Stop::Kicked if run.is_over() => return Ok(()),
            Stop::Kicked => {
                if run.lock().lives[vp as usize] == Life::Stops {
                    return run.rest(vp);
                }
            }
            // VTL1 may have taken that from VTL0 (TLFS "DenyLowerVtlStartup").
            Stop::StartUp { .. } | Stop::Init { .. } if run.machine.partition().denies_startup() => {}
            Stop::StartUp { target, page } => run.change(vp, target, |life| match life {
                Life::Rests | Life::Starts(_) => Life::Starts(page),
                // A processor that runs does not hear it.
                life => life,
            })?,
            Stop::Init { target } => run.change(vp, target, |life| match life {
                Life::Runs => Life::Stops,
                Life::Starts(_) => Life::Rests,
                life => life,
            })?,
            Stop::Halted(Vtl::Vtl0) => return run.rest(vp),
            Stop::PowerOff => run.finish(End::PowerOff),
            Stop::Reset => run.finish(End::Reboot),
            Stop::Shutdown(Vtl::Vtl0, _) => run.finish(End::TripleFault { vp }),
            Stop::Halted(Vtl::Vtl1) | Stop::Shutdown(Vtl::Vtl1, _) => run.finish(End::Vtl1Failed { vp }),
            other @ (Stop::Done | Stop::Exception(_) | Stop::Stepped(_)) => {
                run.finish(End::Error(format!("VP {vp} stopped as a script does: {other:x?}")));
            }
        }
        if run.is_over() {
            return Ok(());
        }
    }
}
