//! Lives one after the other, each with its threads and a watchdog.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::figures::Figures;
use super::hosted::HostedWorld;
use super::kinds::{Kind, named};
use super::life::{Broken, Life, Parts};
use super::options::{Layer, Options};
use super::player::Player;
use super::real::RealWorld;
use super::trace::Record;
use crate::machine::guest::HYPERCALL_PAGE;
use crate::random::SplitMix;
use crate::vtl0::lists::Range;
use crate::vtl0::ranges::{ALL, Kernel, READ_EXECUTE, READ_WRITE, boot_ranges, kernel_ranges};

/// Steps of a life.
const HOSTED_STEPS: u64 = 1500;
const MACHINE_STEPS: u64 = 800;
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(20);
/// Records that a failure shows.
const RECORDS: usize = 40;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub figures: Figures,
    /// A sum over everything that was done, where one thread did it.
    pub sum: Option<u64>,
    /// The first rule that was broken.
    pub failure: Option<Failure>,
}

/// A rule is broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Where VTL1 ran.
    pub layer: Layer,
    /// The seed of the life in which it was broken.
    pub seed: u64,
    /// Which step, which processor, which rule.
    pub broken: Broken,
    /// How the life was driven.
    pub options: Options,
    /// What happened last, the oldest first.
    pub trace: Vec<Record>,
    /// What VTL1 printed last.
    pub console: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, seed, broken: Broken { step, vp, rule }, options, trace, console } = self;
        writeln!(f, "a rule is broken ({layer}): {rule}")?;
        writeln!(f, "at step {step} on VP {vp} of the life with seed {seed:#x}")?;
        write!(f, "again: cargo xtask stress --layer {layer} --vps {} --seed {seed:#x}", options.vps)?;
        if options.is_lockstep() {
            write!(f, " --lockstep --steps {}", step + 1)?;
        }
        if let Some(sabotage) = options.sabotage {
            write!(f, " --sabotage {}@{}", format!("{:?}", sabotage.damage).to_lowercase(), sabotage.step)?;
        }
        writeln!(f, "\nthe last {} things that VTL0 did:", trace.len())?;
        for record in trace {
            writeln!(f, "  {record}")?;
        }
        if !console.is_empty() {
            writeln!(f, "VTL1 printed last:")?;
            for line in console {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// Plays lives until the time is over, or the steps, or a rule is broken. `image` is what the machine boots.
///
/// # Errors
/// When a life cannot begin.
pub fn run(options: &Options, image: Option<&[u8]>) -> Result<Outcome> {
    let start = Instant::now();
    let end = start + options.time;
    let mut seed = options.seed;
    let mut outcome = Outcome { figures: Figures::default(), sum: None, failure: None };
    let mut left = options.steps.unwrap_or(u64::MAX);
    while left > 0 && Instant::now() < end && outcome.failure.is_none() {
        let (life, players) = begin(options, image, seed, left)?;
        let steps = play(options, &life, players, end, &mut outcome)?;
        left -= steps.min(left);
        seed = SplitMix(seed).next();
    }
    outcome.figures.time = start.elapsed();
    Ok(outcome)
}

/// What VTL0 does first: mostly what Linux does, so that there is something to attack.
fn opening(random: &mut SplitMix) -> Vec<&'static Kind> {
    ["LockRegs", "LoadKData of a sound kernel", "a ring", "ProtectMemory of all memory"]
        .into_iter()
        .filter(|_| !random.next().is_multiple_of(6))
        .map(named)
        .collect()
}

/// A life that has not begun.
fn begin(options: &Options, image: Option<&[u8]>, seed: u64, left: u64) -> Result<(Arc<Life>, Vec<Player>)> {
    let mut random = SplitMix(seed);
    let opening = opening(&mut random);
    let fails = random.next().is_multiple_of(3);
    let lockstep = options.is_lockstep();
    let most = if options.layer == Layer::Hosted { HOSTED_STEPS } else { MACHINE_STEPS };
    let mut parts = Parts {
        seed,
        vps: options.vps,
        lockstep,
        fails,
        steps: most.min(left),
        // A half of the life at most, and in some lives no time at all.
        boot_steps: (random.next() % (most / 2)).saturating_sub(most / 16),
        boot_ranges: Vec::new(),
        sabotage: options.sabotage,
        heap: options.heap,
    };
    let entered = |vp: u32| vp == 0;
    // The driver locks one processor after the other and then goes on from the last of them (LVBS contract §11.3).
    let last = options.vps.saturating_sub(1);
    let opening = |vp: u32| {
        let mine = opening.iter().filter(|kind| vp == last || kind.name == "LockRegs");
        mine.copied().collect::<Vec<_>>()
    };
    match options.layer {
        Layer::Hosted => {
            let world = HostedWorld::boot(options.vps)?;
            let layout = world.layout().clone();
            let cpus: Vec<_> = (0..options.vps).map(|vp| world.cpu(vp, lockstep)).collect();
            // All memory is data, the hole in it too; an unused part of it is text, and the hypercall page everything. A frame
            // of the text is named again, and the last one counts.
            let text = layout.target + 0x18;
            let named = |start: u64, end: u64, attributes| Range::direct(start << 12, end << 12, attributes);
            parts.boot_ranges = vec![
                named(0, 1, ALL),
                named(1, text, READ_WRITE),
                named(text, text + 8, READ_EXECUTE),
                named(text + 8, layout.ram_end, READ_WRITE),
                named(text + 1, text + 2, READ_WRITE),
                named(text + 1, text + 2, READ_EXECUTE),
            ];
            let life = Arc::new(Life::new(parts, Box::new(world)));
            let player = |cpu: super::hosted::HostedCpu| {
                let vp = super::cpu::Cpu::vp(&cpu);
                Player::new(Box::new(cpu), Arc::clone(&life), &layout, entered(vp), opening(vp))
            };
            let players = cpus.into_iter().map(player).collect();
            Ok((life, players))
        }
        Layer::Machine => {
            let (world, cpus) =
                RealWorld::boot(options.vps, image.context("no image to boot")?, seed, options.patience)?;
            let layout = world.layout().clone();
            parts.boot_ranges = match random.next() % 3 {
                0 => kernel_ranges(world.map(), Kernel::NoKaslr, HYPERCALL_PAGE),
                1 => kernel_ranges(world.map(), Kernel::Kaslr, HYPERCALL_PAGE),
                _ => boot_ranges(world.map(), 20, seed),
            };
            let life = Arc::new(Life::new(parts, Box::new(world)));
            let player = |cpu: super::real::RealCpu| {
                let vp = super::cpu::Cpu::vp(&cpu);
                Player::new(Box::new(cpu), Arc::clone(&life), &layout, entered(vp), opening(vp))
            };
            let players = cpus.into_iter().map(player).collect();
            Ok((life, players))
        }
    }
}

/// Plays a life; how many steps it had.
fn play(options: &Options, life: &Arc<Life>, players: Vec<Player>, end: Instant, outcome: &mut Outcome) -> Result<u64> {
    let groups: Vec<Vec<Player>> =
        if life.lockstep { vec![players] } else { players.into_iter().map(|player| vec![player]).collect() };
    let (sender, receiver) = channel();
    let mut threads = Vec::new();
    for group in groups {
        let (life, sender) = (Arc::clone(life), sender.clone());
        let thread = std::thread::Builder::new().name("VTL0".into());
        threads.push(thread.spawn(move || {
            let figures = drive(&life, group);
            // A thread that comes late is no longer waited for.
            let _ = sender.send(figures);
        })?);
    }
    drop(sender);
    let hung = watch(options, life, &receiver, threads.len(), end, outcome);
    if !hung {
        // What a thread has on the heap goes with it.
        for thread in threads {
            drop(thread.join());
        }
    }
    if !hung && life.broken().is_none() {
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.world.check_at_end(life)));
        let rule = match checked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("at the end of a life: {error:#}")),
            Err(_) => Some("at the end of a life: a panic, printed above".to_owned()),
        };
        if let Some(rule) = rule {
            life.fail(Broken { step: life.step_count(), vp: 0, rule });
        }
    }
    let figures = &mut outcome.figures;
    figures.lives += 1;
    figures.ended_boots += u64::from(life.has_ended());
    if life.lockstep {
        let sum = life.trace.sum();
        outcome.sum = Some(outcome.sum.map_or(sum, |before| before.rotate_left(1) ^ sum));
    }
    outcome.failure = life.broken().map(|broken| Failure {
        layer: options.layer,
        seed: life.seed,
        broken,
        options: options.clone(),
        trace: life.trace.last(RECORDS),
        console: life.world.console(),
    });
    Ok(life.step_count())
}

/// Plays the processors of a group, in an order that is drawn from the seed, until the life is over.
fn drive(life: &Life, mut players: Vec<Player>) -> Figures {
    let mut random = SplitMix(life.seed.rotate_right(7));
    while let Some(step) = life.next_step() {
        let count = players.len() as u64;
        let drawn = usize::try_from(random.next() % count.max(1)).unwrap_or_default();
        // Where one thread plays all, no call may wait for a processor that has not come yet.
        let index = players.iter().position(|player| !player.has_entered()).unwrap_or(drawn);
        if let Some(player) = players.get_mut(index) {
            player.play(step);
        }
    }
    let mut figures = Figures::default();
    for player in &players {
        figures.add(&player.figures);
    }
    figures
}

/// Waits for the threads; true when one of them hangs, and is left to itself.
fn watch(
    options: &Options,
    life: &Life,
    receiver: &Receiver<Figures>,
    threads: usize,
    end: Instant,
    outcome: &mut Outcome,
) -> bool {
    let mut done = 0;
    while done < threads {
        match receiver.recv_timeout(LOOK) {
            Ok(figures) => {
                outcome.figures.add(&figures);
                done += 1;
            }
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= end {
            life.stop();
        }
        if let Some((vp, step, since)) = life.slowest()
            && since.elapsed() > options.patience
        {
            let seconds = since.elapsed().as_secs();
            let rule = format!("VP {vp} has not come back from a step for {seconds} s");
            life.fail(Broken { step, vp, rule });
            return true;
        }
    }
    false
}
