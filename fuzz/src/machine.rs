//! The small machine that the targets call, and what must hold on it after every call.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameState, Owner, Permission};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vtl0::{KernelData, Phase};
use vsm_sim::hosted::{HostedConfig, HostedMachine, RacePoint};

/// Frames of RAM: 4 MiB.
pub const RAM: u64 = 0x400;
const RAM_FRAMES: usize = 0x400;
const _: () = assert!(RAM_FRAMES as u64 == RAM);
/// VTL1's frames.
pub const VTL1: Range<u64> = 0x200..0x240;
/// Where VTL0 keeps lists and buffers: the frames from here on.
pub const BUFFERS: u64 = 0x10;
/// How many frames they have.
pub const BUFFER_FRAMES: u64 = 0x30;
/// Linux's direct map without KASLR (Documentation/arch/x86/x86_64/mm.rst).
pub const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;

/// A machine after VTL1's boot.
pub fn new() -> HostedMachine {
    let range = |start, end| FrameRange::from_gfns(start, end).expect("the frames ascend");
    let ram = vec![range(0, RAM)];
    let mut machine = HostedMachine::new(HostedConfig { ram, vtl1_region: range(VTL1.start, VTL1.end), vps: 2 });
    // The lines are formatted then, and written into the ring.
    machine.keep_log();
    machine
}

/// What a call that fails must leave as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Everything {
    rights: Vec<(u64, u64, MapFlags)>,
    frames: Vec<FrameState>,
    ended: bool,
    locked: [bool; 2],
    intercepts: [(u64, u64, u64); 2],
    kernel_data: Option<String>,
    modules: String,
    kexec: String,
    certificates: (usize, usize),
    has_ring: bool,
}

impl Everything {
    /// Of `machine` at this moment.
    pub fn of(machine: &HostedMachine) -> Self {
        let platform = machine.platform();
        let locked = [0, 1].map(|vp| platform.processor(vp).is_ok_and(|processor| processor.locked.lock().is_some()));
        Self {
            rights: machine.partition().effective_protections(),
            frames: platform.frames().lock().intervals().collect(),
            ended: platform.vtl0().phase.get() == Phase::Runtime,
            locked,
            intercepts: [0, 1].map(|vp| machine.partition().cr_intercepts(vp)),
            kernel_data: platform.vtl0().kernel_data().map(ToString::to_string),
            modules: format!("{:?}", platform.vtl0().modules().lock()),
            kexec: format!("{:?}", platform.vtl0().kexec().lock()),
            certificates: platform.vtl0().keys().lock().counts(),
            has_ring: platform.log_ring().lock().is_some(),
        }
    }

    /// Rights to each frame of RAM, at the hypervisor.
    fn rights(&self) -> Vec<MapFlags> {
        let mut rights = vec![MapFlags::NONE; RAM_FRAMES];
        for (start, end, flags) in &self.rights {
            rights[frames_of_ram(*start, *end)].fill(*flags);
        }
        rights
    }

    /// Owner of each frame of RAM.
    fn owners(&self) -> Vec<Owner> {
        let mut owners = vec![Owner::Nobody; RAM_FRAMES];
        for state in &self.frames {
            owners[frames_of_ram(state.frames.start(), state.frames.end())].fill(state.owner);
        }
        owners
    }

    /// The rules that hold whatever was called. `before` is from before the call, `result` its answer.
    ///
    /// # Panics
    /// When one of them is broken.
    pub fn check(&self, before: &Self, result: i64, machine: &HostedMachine) {
        assert!((-4095..=0x7fff_ffff).contains(&result), "{result} is neither an errno nor a reply");
        assert_eq!(machine.partition().reports(), [], "VTL1 did what the TLFS does not define");
        if result < 0 {
            let mut before = before.clone();
            if before.ended {
                // VTL1 locks the processor by itself on its way back, whatever the call's fate.
                assert!((0..2).all(|vp| self.locked[vp] || !before.locked[vp]), "a processor is no longer locked");
                (before.locked, before.intercepts) = (self.locked, self.intercepts);
            }
            assert_eq!(&before, self, "a call failed with {result} and left something behind");
        }
        for vp in 0..2 {
            let intercepted = self.intercepts[vp].0 != 0;
            assert_eq!(self.locked[vp], intercepted, "processor {vp}: locked, but not intercepted, or not");
        }
        assert!(self.ended || !before.ended, "boot has begun again");
        assert_eq!(self.has_ring, machine.ring().mapped().is_some(), "the ring and its mapping");
        self.check_rights(before);
        self.check_owners(before);
        assert!(before.kernel_data.is_none() || before.kernel_data == self.kernel_data, "the kernel data have changed");
        if let Some(data) = machine.platform().vtl0().kernel_data().filter(|_| before.kernel_data.is_none()) {
            check_kernel_data(data);
        }
    }

    /// The hypervisor has what the registry says, and no frame becomes writable and executable after the end of boot.
    fn check_rights(&self, before: &Self) {
        let rights = self.rights();
        for state in &self.frames {
            let frames = frames_of_ram(state.frames.start(), state.frames.end());
            let flags = state.permission.map_flags();
            let differs = rights[frames.clone()].iter().any(|right| *right != flags);
            assert!(!differs, "{state:?}, but the hypervisor has {:?}", &rights[frames]);
            let expected = match state.owner {
                Owner::Vtl1 => Permission::NONE,
                Owner::RingBuffer | Owner::Trampoline | Owner::Kexec { .. } => Permission::R,
                Owner::Module { kind, .. } if kind.is_text() => Permission::RX,
                Owner::Module { kind, .. } if kind.is_explained() => Permission::R,
                _ => continue,
            };
            assert_eq!(state.permission, expected, "{state:?}");
        }
        let both = MapFlags::WRITE | MapFlags::KERNEL_EXECUTE;
        for (gfn, (now, was)) in rights.iter().zip(before.rights()).enumerate() {
            let new = now.contains(both) && !was.contains(both);
            assert!(!(before.ended && new), "frame {gfn:#x} has become writable and executable after boot");
        }
    }

    /// What must hold right after the end of boot when the hypervisor refused nothing.
    ///
    /// # Panics
    /// When a frame of RAM that somebody owns is writable and executable. What is no RAM the hypervisor will not change.
    pub fn check_closed(&self) {
        let of_ram = self.frames.iter().filter(|state| state.frames.start() < RAM);
        for state in of_ram.filter(|state| state.owner != Owner::Nobody) {
            assert!(!state.permission.is_write_and_execute(), "{state:?} after the end of boot");
        }
    }

    /// No frame goes from one owner to another whose it cannot be.
    fn check_owners(&self, before: &Self) {
        for (gfn, (now, was)) in self.owners().into_iter().zip(before.owners()).enumerate() {
            let free = now == Owner::Nobody;
            let fine = now == was
                || match was {
                    Owner::Nobody => now != Owner::Vtl1,
                    Owner::Vtl1 | Owner::RingBuffer | Owner::Trampoline => false,
                    Owner::BootProtected | Owner::KernelText => {
                        let of_boot = matches!(now, Owner::BootProtected | Owner::KernelText | Owner::Trampoline);
                        !before.ended && (free || of_boot)
                    }
                    Owner::Module { token, .. } => {
                        free || matches!(now, Owner::Module { token: other, .. } if other == token)
                    }
                    Owner::Kexec { .. } => free,
                };
            assert!(fine, "frame {gfn:#x} was {was}'s and has become {now}'s");
            assert_eq!(now == Owner::Vtl1, VTL1.contains(&(gfn as u64)), "frame {gfn:#x} is {now}'s");
        }
    }
}

/// The part of `start..end` that is RAM, as indices.
fn frames_of_ram(start: u64, end: u64) -> Range<usize> {
    // Lossless: RAM is small.
    let index = |gfn: u64| usize::try_from(gfn.min(RAM)).unwrap_or(RAM_FRAMES);
    index(start)..index(end)
}

/// What was kept can be used: every symbol is found by its name, every site by its address.
fn check_kernel_data(data: &KernelData) {
    assert!(data.symbols.iter().is_sorted_by_key(|symbol| symbol.name), "the symbols are not sorted");
    assert_eq!(data.symbols.iter().count(), data.symbols.len(), "a symbol's name is not text");
    for symbol in data.symbols.iter() {
        let found = data.symbols.find(symbol.name.as_bytes()).expect("every symbol is found by its name");
        assert!((found.gpl, found.value) <= (symbol.gpl, symbol.value), "{symbol:?} and {found:?}");
    }
    for site in data.patches.iter() {
        assert_eq!(data.patches.at(site.start()), Some(site), "every site is found by its address");
    }
}

/// The reads that VTL1 made of VTL0's memory: first byte and length of each.
#[derive(Clone, Default)]
pub struct Reads(Arc<Mutex<Vec<(u64, usize)>>>);

impl Reads {
    /// Notes every read of `machine` from now on.
    pub fn watch(machine: &HostedMachine) -> Self {
        let reads = Self::default();
        let noted = reads.clone();
        machine.memory().set_race(Some(Box::new(move |point, _| noted.note(point))));
        reads
    }

    /// Notes a read.
    pub fn note(&self, point: RacePoint) {
        if let RacePoint::BeforeRead { gpa, len } = point {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((gpa, len));
        }
    }

    /// # Panics
    /// When a byte has been read twice.
    pub fn check_once(&self) {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reads.retain(|(_, len)| *len > 0);
        reads.sort_unstable();
        for pair in reads.windows(2) {
            let end = pair[0].0 + pair[0].1 as u64;
            assert!(end <= pair[1].0, "the bytes from {:#x} were fetched twice: {pair:x?}", pair[1].0);
        }
    }
}
