//! A guest with the machine's devices ([`Mode::Guest`](super::Mode::Guest)): what of the machine context 0 sees.
//!
//! RAM is mapped to itself, with a hole where the engine lies, so that the firmware's ACPI tables hold; ports, interrupts,
//! HLT and most MSRs are the guest's own. What still stops: CPUID, the ports in [`STOPPING_PORTS`], the MSRs in
//! [`STOPPING_MSRS`] and all that the CPU does not have, and, while [`QemuEngine::watch_startup`] says so, writes to the
//! local APIC's page, whose interrupt command register starts processors. Devices that master the bus are not
//! confined: there are none.

use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::QemuEngine;
use super::layout::{self, control, operation};
use super::machine::Machine;
use super::process::LOW_MEMORY;
use super::spaces::Spaces;
use super::waiter;
use crate::engine::error::Result;
use crate::engine::exit::Access;
use crate::engine::ram::{Mapping, Placed, Slot};

/// Ports that stop: keyboard controller's commands, system control port A, COM2, the doorbells, the PCI reset port (Intel
/// 82371AB "RC"), the power management control register (ACPI "PM1 Control Registers"; firmware puts it there).
pub const STOPPING_PORTS: [Range<u16>; 6] = [
    0x64..0x65,
    0x92..0x93,
    0x2f8..0x300,
    layout::DOORBELL..layout::DOORBELL + layout::MAX_CPUS as u16,
    0xcf9..0xcfa,
    0x604..0x606,
];
/// MSRs that stop: APIC_BASE, MISC_ENABLE, PAT, EFER, VM_CR, IGNNE, SMM_CTL, VM_HSAVE_PA (AMD64 manual volume 2, appendix A).
/// PAT and EFER are the engine's affair.
pub const STOPPING_MSRS: [u32; 8] =
    [0x1b, 0x1a0, 0x277, 0xc000_0080, 0xc001_0114, 0xc001_0115, 0xc001_0116, 0xc001_0117];
/// Video memory and ROMs.
const LEGACY_HOLE: Range<u64> = 0xa_0000..0x10_0000;
/// The firmware's tables at the end of low memory.
const FIRMWARE: u64 = LOW_MEMORY - (128 << 10);
const FOUR_GIB: u64 = 4 << 30;
/// First byte of the local APIC.
const LOCAL_APIC: u64 = 0xfee0_0000;
/// For how long after a call an NMI may be one of ours.
const CALLS_FOR: Duration = Duration::from_millis(200);
/// How long the clock is watched to find its frequency.
const WATCH: Duration = Duration::from_millis(100);

/// Where a guest with `total` bytes of memory has RAM; holes count.
#[must_use]
pub fn ram(total: u64) -> Vec<Slot> {
    let runs = [0..LEGACY_HOLE.start, LEGACY_HOLE.end..layout::BASE, layout::END..FIRMWARE, LOW_MEMORY..u64::MAX];
    let clipped = runs.map(|run| run.start..run.end.min(total));
    let above = |gpa: u64| if gpa < LOW_MEMORY { gpa } else { gpa - LOW_MEMORY + FOUR_GIB };
    let slot = |run: Range<u64>| Slot { gpa: above(run.start), size: run.end.saturating_sub(run.start) };
    clipped.map(slot).into_iter().filter(|slot| slot.size > 0).collect()
}

/// What a guest must not take for free memory: the engine, and the firmware's tables.
#[must_use]
pub fn reserved() -> [Range<u64>; 4] {
    [0x9_fc00..LEGACY_HOLE.start, 0xf_0000..LEGACY_HOLE.end, layout::BASE..layout::END, FIRMWARE..LOW_MEMORY]
}

/// The slots in the memory file, where guest-physical and machine addresses are the same; the file's size.
pub(super) fn place(slots: &[Slot]) -> (Vec<Placed>, u64) {
    let offset = |gpa: u64| if gpa < LOW_MEMORY { gpa } else { gpa - FOUR_GIB + LOW_MEMORY };
    let placed: Vec<Placed> = slots.iter().map(|slot| Placed { slot: *slot, offset: offset(slot.gpa) }).collect();
    let end = placed.iter().map(|placed| placed.offset + placed.slot.size).max();
    (placed, end.unwrap_or(0).max(LOW_MEMORY))
}

/// Lets context 0 have the machine's devices. Before the emulator starts.
pub(super) fn give(memory: &Arc<Mapping>, spaces: &mut Spaces, cpus: u32) -> Result<()> {
    for port in STOPPING_PORTS.into_iter().flatten() {
        let cell = memory.u8(layout::IO_MAP_OF_DEVICES + u64::from(port / 8));
        cell.store(cell.load(Relaxed) | 1 << (port % 8), Relaxed);
    }
    for (cpu, address) in (0..cpus).zip(waiter::build(memory, spaces, cpus)?) {
        memory.u64(layout::CONTROL + u64::from(cpu) * 0x1000 + control::WAITER).store(address, SeqCst);
    }
    let lines = layout::LINES_TABLE >> 12;
    let legacy = LEGACY_HOLE.start >> 12..LEGACY_HOLE.end >> 12;
    for frames in [legacy, FIRMWARE >> 12..lines, lines + 1..FOUR_GIB >> 12] {
        spaces.map_devices(frames, Access::ALL)?;
    }
    watch(spaces, cpus > 1)
}

/// Makes writes to the local APIC stop, or not.
fn watch(spaces: &mut Spaces, on: bool) -> Result<()> {
    spaces.map_devices(LOCAL_APIC >> 12..(LOCAL_APIC >> 12) + 1, Access { write: !on, ..Access::ALL })
}

/// The time-stamp counter of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Its frequency in Hz.
    pub frequency: u64,
    /// What it read at a time.
    pub at: (Instant, u64),
}

impl Machine {
    /// What the counter reads, and when: the quickest of some readings.
    fn read_clock(&self) -> Result<(Instant, u64)> {
        let read = || -> Result<_> {
            let before = Instant::now();
            let [low, high, ..] = self.operate(0, operation::CLOCK, [0; 4])?;
            Ok((before.elapsed(), (before, u64::from(high) << 32 | u64::from(low))))
        };
        let mut best = read()?;
        for _ in 0..8 {
            let next = read()?;
            if next.0 < best.0 {
                best = next;
            }
        }
        Ok(best.1)
    }

    /// Finds the clock's frequency, and tells every CPU how long an NMI may be ours.
    pub fn measure_clock(&self) -> Result<Clock> {
        let (start, first) = self.read_clock()?;
        let frequency = if self.counts {
            // An instruction is a nanosecond.
            1_000_000_000
        } else {
            std::thread::sleep(WATCH);
            let (end, last) = self.read_clock()?;
            let nanoseconds = end.duration_since(start).as_nanos().max(1);
            u64::try_from(u128::from(last.wrapping_sub(first)) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
        };
        let ticks = u128::from(frequency) * CALLS_FOR.as_millis() / 1000;
        for cpu in 0..self.cpus {
            self.control64(cpu, control::CALLS_FOR).store(u64::try_from(ticks).unwrap_or(u64::MAX), SeqCst);
        }
        Ok(Clock { frequency, at: (start, first) })
    }
}

impl QemuEngine {
    /// Our end of the guest's COM1; once.
    pub fn take_console(&self) -> Option<UnixStream> {
        self.machine.console.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The emulator's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.machine.process.id
    }

    /// The machine's clock; only a guest with the machine's devices has one.
    #[must_use]
    pub fn clock(&self) -> Option<Clock> {
        self.machine.clock
    }

    /// Makes context 0 stop at writes to the local APIC, or not. They stop at the start if there is more than one VP.
    pub fn watch_startup(&self, on: bool) -> Result<()> {
        watch(&mut self.machine.spaces(), on)?;
        if on { self.machine.synchronise() } else { Ok(()) }
    }

    /// How often a CPU has entered a guest, has waited for an interrupt while the guest had halted, and has changed between
    /// the tables of kernel and user code.
    #[must_use]
    pub fn turns(&self, cpu: u32) -> [u64; 3] {
        [control::ENTRIES, control::WAITS, control::CHANGES].map(|word| self.machine.control64(cpu, word).load(SeqCst))
    }
}
