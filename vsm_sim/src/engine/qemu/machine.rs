//! One emulated machine: its memory layout, requests to the stub on each CPU, and changes of rights that every CPU must see.

use super::config::{Config, Mode};
use super::devices::{self, Clock};
use super::layout::{self, control, operation};
use super::lines::Lines;
use super::npt::Pool;
use super::process::{self, LOW_MEMORY, Process, Started, machine_address};
use super::spaces::{Spaces, TREES};
use crate::engine::CONTEXTS;
use crate::engine::error::{EngineError, Result};
use crate::engine::exit::Access;
use crate::engine::ram::{GuestRam, Mapping, Placed};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst, fence};
use rustix::net::{RecvFlags, recv};
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const LARGE_PAGE: u64 = 2 << 20;
/// How long the stub may take for what it does by itself.
const STUB_LIMIT: Duration = Duration::from_secs(20);
/// When a CPU that does not react is woken once more.
const WAKE_AGAIN: Duration = Duration::from_millis(20);
/// When a call that shows no effect is taken for lost.
const LOST: Duration = Duration::from_millis(200);
/// Turns of the stub's idle loop before it halts.
const SPIN_TURNS: u32 = 4000;

/// One emulated machine.
pub struct Machine {
    pub memory: Arc<Mapping>,
    pub ram: Arc<GuestRam>,
    pub cpus: u32,
    pub mode: Mode,
    pub counts: bool,
    /// Whether one host thread runs all CPUs.
    shares_thread: bool,
    pub watchdog: Duration,
    /// Instructions that every entry adds to the stub's count.
    pub entry_cost: u64,
    /// A guest's clock.
    pub clock: Option<Clock>,
    /// A guest's COM1, until somebody takes it.
    pub console: Mutex<Option<UnixStream>>,
    spaces: Mutex<Spaces>,
    /// Which VPs have a handle.
    pub driven: Vec<AtomicBool>,
    /// The CPU that was last told to drop translated code.
    touching: Mutex<Option<u32>>,
    doorbells: Vec<Mutex<UnixStream>>,
    lines: Lines,
    /// When each CPU was last called.
    called: Vec<Mutex<Instant>>,
    /// Ticks of the time-stamp counter for which an NMI may be a late call of ours.
    pub late_ticks: u64,
    cpuid: HashMap<(u32, u32), [u32; 4]>,
    pub process: Process,
}

/// A lock that survives a panic of another user: all data behind our locks is valid at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lays the slots out in the memory file, so that guest-physical and machine addresses agree modulo 2 MiB. Gives the slots and the file's size.
fn place(config: &Config) -> Result<(Vec<Placed>, u64)> {
    let mut slots = config.slots.clone();
    slots.sort_by_key(|slot| slot.gpa);
    let mut next = LOW_MEMORY;
    let mut placed: Vec<Placed> = Vec::new();
    let mut last = 0;
    for slot in slots {
        let end = slot.gpa.checked_add(slot.size).filter(|end| *end <= 1 << 40);
        let whole = slot.size > 0 && (slot.gpa | slot.size).is_multiple_of(0x1000);
        let Some(end) = end.filter(|_| whole && slot.gpa >= last) else {
            return Err(EngineError::Config(format!("slot {slot:x?}: not whole pages, beyond 2^40, or overlapping")));
        };
        let offset = next + slot.gpa % LARGE_PAGE;
        placed.push(Placed { slot, offset });
        next = (offset + slot.size).next_multiple_of(LARGE_PAGE);
        last = end;
    }
    if placed.is_empty() {
        return Err(EngineError::Config("no RAM".into()));
    }
    if config.mode == Mode::Guest {
        return Ok(devices::place(&config.slots));
    }
    Ok((placed, next))
}

impl Machine {
    /// Starts the emulator and waits for its CPUs.
    pub fn start(config: &Config) -> Result<Self> {
        if config.vps == 0 || config.vps > layout::MAX_CPUS {
            return Err(EngineError::Config(format!("{} VPs; 1 to {} are possible", config.vps, layout::MAX_CPUS)));
        }
        let (placed, size) = place(config)?;
        let memory = Arc::new(Mapping::new(size)?);
        // All trees split to the last page, their upper tables, and a few pages of our own.
        let pool_end = layout::POOL + ((size / LARGE_PAGE * TREES + TREES * 64 + 64) << 12);
        let limit = if config.mode == Mode::Guest { layout::END } else { LOW_MEMORY };
        if pool_end > limit {
            return Err(EngineError::Config(format!("{size:#x} bytes of RAM are too many")));
        }
        let mut spaces = Spaces::new(&memory, Pool::new(pool_end), &placed)?;
        for offset in (0..0x3000).step_by(8) {
            memory.u64(layout::IO_MAP + offset).store(u64::MAX, SeqCst);
        }
        for cpu in 0..u64::from(config.vps) {
            memory.u64(layout::CONTROL + cpu * 0x1000 + control::ROOT).store(spaces.root(0), SeqCst);
        }
        if config.mode == Mode::Guest {
            devices::give(&memory, &mut spaces, config.vps)?;
        }
        let Started { process, doorbells, lines, console } = process::start(config, &memory)?;
        for doorbell in &doorbells {
            let timeout = doorbell.set_read_timeout(Some(WAKE_AGAIN));
            timeout
                .map_err(|error| EngineError::System { call: "setsockopt of a doorbell", reason: error.to_string() })?;
        }
        let mut machine = Self {
            ram: Arc::new(GuestRam::new(memory.clone(), placed)),
            memory,
            cpus: config.vps,
            mode: config.mode,
            counts: config.count_instructions,
            shares_thread: config.shares_thread(),
            watchdog: config.watchdog,
            entry_cost: 0,
            clock: None,
            console: Mutex::new(Some(console)),
            spaces: Mutex::new(spaces),
            driven: (0..config.vps).map(|_| AtomicBool::new(false)).collect(),
            touching: Mutex::new(None),
            doorbells: doorbells.into_iter().map(Mutex::new).collect(),
            lines,
            called: (0..config.vps).map(|_| Mutex::new(Instant::now())).collect(),
            late_ticks: u64::MAX / 2,
            cpuid: HashMap::new(),
            process,
        };
        for cpu in 0..machine.cpus {
            let turns = if machine.shares_thread { 1 } else { SPIN_TURNS };
            machine.control32(cpu, control::SPIN).store(turns, SeqCst);
            let limit = Instant::now() + STUB_LIMIT;
            if !machine.listen(cpu, limit, || machine.control64(cpu, control::READY).load(SeqCst) != 0)? {
                return Err(EngineError::Stuck { vp: cpu, what: "start of the emulated CPU" });
            }
        }
        machine.cpuid = machine.collect_cpuid()?;
        Ok(machine)
    }

    /// The address spaces.
    pub fn spaces(&self) -> MutexGuard<'_, Spaces> {
        lock(&self.spaces)
    }

    /// A 64-bit word of a CPU's control page.
    pub fn control64(&self, cpu: u32, offset: u64) -> &AtomicU64 {
        self.memory.u64(layout::CONTROL + u64::from(cpu) * 0x1000 + offset)
    }

    /// A 32-bit word of a CPU's control page.
    pub fn control32(&self, cpu: u32, offset: u64) -> &AtomicU32 {
        self.memory.u32(layout::CONTROL + u64::from(cpu) * 0x1000 + offset)
    }

    /// Reads a CPU's doorbell until `ready`; false if that does not happen before `limit`.
    fn listen(&self, cpu: u32, limit: Instant, ready: impl Fn() -> bool) -> Result<bool> {
        let mut doorbell = lock(&self.doorbells[cpu as usize]);
        let mut bytes = [0; 64];
        if ready() {
            // Its bytes must not pile up: the emulator stands still when it cannot write one.
            while recv(&*doorbell, &mut bytes, RecvFlags::DONTWAIT).is_ok_and(|(_, count)| count == bytes.len()) {}
            return Ok(true);
        }
        loop {
            if ready() {
                return Ok(true);
            }
            match doorbell.read(&mut bytes) {
                Ok(0) => return Err(self.process.died()),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    if ready() {
                        return Ok(true);
                    }
                    if self.control64(cpu, control::FAULT).load(SeqCst) != 0 {
                        return Err(EngineError::Stuck { vp: cpu, what: "the stub itself raised a fault" });
                    }
                    if Instant::now() >= limit {
                        return Ok(false);
                    }
                    if self.waits_for_wake(cpu) {
                        self.wake(cpu)?;
                    }
                    // With one host thread for all CPUs, nothing else takes the turn from a guest that spins for another's sake. One with devices
                    // pauses when it does, and is not to be woken.
                    let spins = self.mode == Mode::Script && self.shares_thread && self.cpus > 1;
                    if spins && self.control32(cpu, control::RUNNING).load(SeqCst) != 0 {
                        self.wake(cpu)?;
                    }
                }
                // The peer is gone.
                Err(_) => return Err(self.process.died()),
            }
        }
    }

    /// Calls a CPU: if it has halted it wakes up, if it runs a guest it leaves it. Where a guest may send NMIs of its own, a
    /// call that is on its way serves: each gives one NMI, so that the stub knows the guest's.
    fn wake(&self, cpu: u32) -> Result<()> {
        let mut called = lock(&self.called[cpu as usize]);
        if self.control32(cpu, control::CALLED).swap(1, SeqCst) != 0 {
            if self.mode == Mode::Guest && called.elapsed() < LOST {
                return Ok(());
            }
            // It is lost, or only late: then another NMI of ours comes soon after the first.
            self.control64(cpu, control::CALLS_FOR).store(self.late_ticks, SeqCst);
        }
        *called = Instant::now();
        self.lines.ring(cpu)
    }

    /// Has a CPU that is outside of its guest do something; see [`operation`].
    pub fn operate(&self, cpu: u32, operation: u64, words: [u32; 4]) -> Result<[u32; 4]> {
        let word = |index: usize| self.control32(cpu, control::WORDS + 4 * index as u64);
        for (index, value) in words.into_iter().enumerate() {
            word(index).store(value, SeqCst);
        }
        if !self.request(cpu, operation, Instant::now() + STUB_LIMIT)? {
            return Err(EngineError::Stuck { vp: cpu, what: "what the stub does by itself" });
        }
        Ok([0, 1, 2, 3].map(|index| word(index).load(SeqCst)))
    }

    /// Whether the CPU has been, or should have been, woken and has not noticed. QEMU changes its word of pending interrupts without a lock when a guest is
    /// entered or left, so that an interrupt of that very moment can get lost; the next call makes it look again.
    fn waits_for_wake(&self, cpu: u32) -> bool {
        let word = |offset| self.control32(cpu, offset).load(SeqCst) != 0;
        word(control::SLEEPING) || word(control::RUNNING) && word(control::STOP)
    }

    /// Waits, for a short while, until all other CPUs have halted or run a guest. All CPUs share one clock of instructions, so that what the stub of
    /// another CPU still does on its way to rest would be counted as this CPU's.
    fn wait_for_rest(&self, cpu: u32) {
        let rests = |other: &u32| {
            [control::SLEEPING, control::RUNNING].iter().any(|word| self.control32(*other, *word).load(SeqCst) != 0)
        };
        let limit = Instant::now() + Duration::from_millis(100);
        while !(0..self.cpus).filter(|other| *other != cpu).all(|other| rests(&other)) && Instant::now() < limit {
            std::thread::sleep(Duration::from_micros(10));
        }
    }

    /// Hands a request to a CPU and waits for its end; false if `limit` passes first (the request is then still under way).
    pub fn request(&self, cpu: u32, vmcb: u64, limit: Instant) -> Result<bool> {
        if self.counts {
            self.wait_for_rest(cpu);
        }
        self.control64(cpu, control::REQUEST).store(vmcb, SeqCst);
        let number = self.control64(cpu, control::GO).load(SeqCst) + 1;
        self.control64(cpu, control::GO).store(number, SeqCst);
        fence(SeqCst);
        if self.control32(cpu, control::SLEEPING).load(SeqCst) != 0 {
            self.wake(cpu)?;
        }
        self.finish(cpu, limit)
    }

    /// To be called before a CPU enters a guest: sees to it that the emulator has dropped, or drops on this CPU before the entry, all code translated
    /// from memory that the host has written since.
    pub fn drop_stale_code(&self, cpu: u32) -> Result<()> {
        let mut touching = lock(&self.touching);
        let count = |cpu: u32| self.control32(cpu, control::TOUCH_COUNT);
        let limit = Instant::now() + STUB_LIMIT;
        while let Some(other) = *touching {
            if count(other).load(SeqCst) == 0 {
                *touching = None;
            } else if Instant::now() >= limit {
                return Err(EngineError::Stuck { vp: other, what: "dropping translated code" });
            } else {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        let mut ranges = self.ram.take_writes();
        if ranges.is_empty() {
            return Ok(());
        }
        if ranges.len() > control::MAX_TOUCHES {
            // Too many to name: everything from the first to the last in each stretch of neighbours.
            ranges.sort_unstable();
            let per_stretch = ranges.len().div_ceil(control::MAX_TOUCHES);
            ranges = ranges
                .chunks(per_stretch)
                .map(|part| (part[0].0, part.iter().map(|range| range.1).max().unwrap_or(part[0].1)))
                .collect();
        }
        for (index, (start, end)) in ranges.iter().enumerate() {
            let (start, end) = (start & !7, end.next_multiple_of(8));
            let at = control::TOUCHES + 16 * index as u64;
            self.control64(cpu, at).store(machine_address(start), SeqCst);
            self.control64(cpu, at + 8).store((end - start) / 8, SeqCst);
        }
        count(cpu).store(u32::try_from(ranges.len()).unwrap_or(0), SeqCst);
        *touching = Some(cpu);
        Ok(())
    }

    /// Waits for the end of the request that is under way.
    pub fn finish(&self, cpu: u32, limit: Instant) -> Result<bool> {
        let number = self.control64(cpu, control::GO).load(SeqCst);
        self.listen(cpu, limit, || self.control64(cpu, control::DONE).load(SeqCst) == number)
    }

    /// Makes a CPU leave its guest, or not enter it the next time.
    pub fn kick(&self, cpu: u32) -> Result<()> {
        if cpu >= self.cpus {
            return Err(EngineError::BadVp { vp: cpu, reason: "there is no such VP" });
        }
        self.control32(cpu, control::STOP).store(1, SeqCst);
        fence(SeqCst);
        if self.control32(cpu, control::RUNNING).load(SeqCst) != 0 {
            self.wake(cpu)?;
        }
        Ok(())
    }

    /// Returns after every CPU that was in a guest has left it once. Each entry flushes that CPU's translations.
    pub fn synchronise(&self) -> Result<()> {
        fence(SeqCst);
        let running = |cpu: u32| self.control32(cpu, control::RUNNING).load(SeqCst) != 0;
        let entries = |cpu: u32| self.control64(cpu, control::ENTRIES).load(SeqCst);
        let before: Vec<(u32, u64)> =
            (0..self.cpus).map(|cpu| (cpu, entries(cpu))).filter(|(cpu, _)| running(*cpu)).collect();
        for (cpu, _) in &before {
            self.wake(*cpu)?;
        }
        let limit = Instant::now() + STUB_LIMIT;
        for (cpu, count) in before {
            let mut again = Instant::now() + WAKE_AGAIN;
            while running(cpu) && entries(cpu) == count {
                let now = Instant::now();
                if now >= limit {
                    return Err(EngineError::Stuck { vp: cpu, what: "leaving the guest for a change of rights" });
                }
                // See `waits_for_wake`.
                if now >= again {
                    self.wake(cpu)?;
                    again = now + WAKE_AGAIN;
                }
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        Ok(())
    }

    /// Changes rights; see [`crate::engine::Engine::protect`].
    pub fn protect(&self, space: usize, first: u64, count: u64, access: Access) -> Result<()> {
        check_context(space)?;
        let outside = EngineError::NotRam { gpa: first.wrapping_shl(12), len: count.wrapping_shl(12) };
        let end = first.checked_add(count).filter(|end| *end <= 1 << 28).ok_or(outside.clone())?;
        let mut covered = first;
        for Placed { slot, .. } in self.ram.placed() {
            if slot.gpa >> 12 <= covered {
                covered = covered.max((slot.gpa + slot.size) >> 12);
            }
        }
        let in_first = count == 0 || self.ram.is_ram(first << 12);
        if !in_first || covered < end {
            return Err(outside);
        }
        self.spaces().protect(space, first, count, access)?;
        self.synchronise()
    }

    /// Rights of a page.
    pub fn access(&self, space: usize, gfn: u64) -> Result<Option<Access>> {
        check_context(space)?;
        Ok(self.spaces().access(space, gfn))
    }

    fn run_cpuid(&self, leaf: u32, subleaf: u32) -> Result<[u32; 4]> {
        self.operate(0, operation::CPUID, [leaf, 0, subleaf, 0])
    }

    fn collect_cpuid(&self) -> Result<HashMap<(u32, u32), [u32; 4]>> {
        let mut all = HashMap::new();
        for base in [0, 0x8000_0000] {
            let [last, ..] = self.run_cpuid(base, 0)?;
            for leaf in base..=last.min(base + 0x40) {
                let subleaves = match leaf {
                    4 => 5,
                    7 | 0xb | 0x14 | 0x1f => 3,
                    0xd => 20,
                    _ => 1,
                };
                for subleaf in 0..subleaves {
                    all.insert((leaf, subleaf), self.run_cpuid(leaf, subleaf)?);
                }
            }
        }
        Ok(all)
    }

    /// What CPUID gives; leaves without sub-leaves ignore `subleaf`, unknown ones are zero.
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let ignores = !matches!(leaf, 4 | 7 | 0xb | 0xd | 0x14 | 0x1f);
        self.cpuid.get(&(leaf, if ignores { 0 } else { subleaf })).copied().unwrap_or_default()
    }
}

fn check_context(context: usize) -> Result<()> {
    if context < CONTEXTS { Ok(()) } else { Err(EngineError::BadContext(context)) }
}
