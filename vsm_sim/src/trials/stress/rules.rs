//! What must hold of a hosted machine's registry and hypervisor, whatever was called.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vtl0::KernelData;

use crate::hosted::{HostedMachine, RacePoint};

/// What a call that fails must leave as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    frames: Frames,
    ended: bool,
    locked: Vec<bool>,
    intercepts: Vec<(u64, u64, u64)>,
    kernel_data: Option<String>,
    modules: String,
    kexec: String,
    certificates: (usize, usize),
    has_ring: bool,
}

/// Owners and permissions of all frames, in the registry and at the hypervisor, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    rights: Vec<(u64, u64, MapFlags)>,
    states: Vec<FrameState>,
    shape: Shape,
}

/// How much memory the machine has, and which part of it is VTL1's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    /// The first frame behind RAM, which starts at 0 and may have holes.
    end: u64,
    frames: usize,
    ram: Vec<FrameRange>,
    vtl1: Range<u64>,
}

impl Shape {
    fn of(machine: &HostedMachine) -> Self {
        let ram = machine.partition().config().ram.clone();
        let end = ram.iter().map(|slot| slot.end()).max().unwrap_or_default();
        Self { end, frames: usize::try_from(end).unwrap_or_default(), ram, vtl1: machine.vtl1_region() }
    }

    /// The part of `start..end` that is RAM, as indices.
    fn indices(&self, start: u64, end: u64) -> Range<usize> {
        // Lossless: RAM is small.
        let index = |gfn: u64| usize::try_from(gfn.min(self.end)).unwrap_or(self.frames);
        index(start)..index(end)
    }
}

impl Snapshot {
    /// What must hold right after the end of boot when the hypervisor refused nothing: see [`Frames::check_closed`].
    ///
    /// # Panics
    /// When it does not.
    pub fn check_closed(&self) {
        self.frames.check_closed();
    }

    /// Of `machine` at this moment.
    pub fn of(machine: &HostedMachine) -> Self {
        let platform = machine.platform();
        let vps = 0..machine.partition().config().vps;
        let is_locked = |vp| platform.processor(vp).is_ok_and(|processor| processor.locked.lock().is_some());
        Self {
            frames: Frames::of(machine),
            ended: platform.vtl0().phase.get() == Phase::Runtime,
            locked: vps.clone().map(is_locked).collect(),
            intercepts: vps.map(|vp| machine.partition().cr_intercepts(vp)).collect(),
            kernel_data: platform.vtl0().kernel_data().map(ToString::to_string),
            modules: format!("{:?}", platform.vtl0().modules().lock()),
            kexec: format!("{:?}", platform.vtl0().kexec().lock()),
            certificates: platform.vtl0().keys().lock().counts(),
            has_ring: platform.log_ring().lock().is_some(),
        }
    }

    /// The rules that hold whatever was called. `before` is from before the call, `result` its answer.
    ///
    /// # Panics
    /// When one of them is broken.
    pub fn check(&self, before: &Self, result: i64, machine: &HostedMachine) {
        assert!((-4095..=0x7fff_ffff).contains(&result), "{result} is neither an errno nor a reply");
        if result < 0 {
            let mut before = before.clone();
            if before.ended {
                // VTL1 locks the processor by itself on its way back, whatever the call's fate.
                let kept = self.locked.iter().zip(&before.locked).all(|(now, was)| *now || !was);
                assert!(kept, "a processor is no longer locked");
                (before.locked, before.intercepts) = (self.locked.clone(), self.intercepts.clone());
            }
            assert_eq!(&before, self, "a call failed with {result} and left something behind");
        }
        self.check_locks();
        self.check_at_rest(machine);
        assert!(self.ended || !before.ended, "boot has begun again");
        if before.ended {
            self.frames.check_no_new(&before.frames.write_and_execute());
        }
        self.check_owners(before);
        assert!(before.kernel_data.is_none() || before.kernel_data == self.kernel_data, "the kernel data have changed");
        if let Some(data) = machine.platform().vtl0().kernel_data().filter(|_| before.kernel_data.is_none()) {
            check_kernel_data(data);
        }
    }

    /// A processor is locked where the hypervisor intercepts, and nowhere else. Not so when it refuses to take a lock back.
    ///
    /// # Panics
    /// When it is otherwise.
    pub fn check_locks(&self) {
        for (vp, (locked, intercepts)) in self.locked.iter().zip(&self.intercepts).enumerate() {
            assert_eq!(*locked, intercepts.0 != 0, "processor {vp}: locked, but not intercepted, or not");
        }
    }

    /// What holds while no processor is in VTL1, whatever has failed before.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_at_rest(&self, machine: &HostedMachine) {
        assert_eq!(machine.partition().reports(), [], "VTL1 did what the TLFS does not define");
        for (vp, (locked, intercepts)) in self.locked.iter().zip(&self.intercepts).enumerate() {
            assert!(!locked || intercepts.0 != 0, "processor {vp} is locked, but not intercepted");
        }
        assert_eq!(self.has_ring, machine.ring().mapped().is_some(), "the ring and its mapping");
        self.frames.check_agreement();
    }

    /// No frame goes from one owner to another whose it cannot be.
    fn check_owners(&self, before: &Self) {
        for (gfn, (now, was)) in self.frames.owners().into_iter().zip(before.frames.owners()).enumerate() {
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
            assert_eq!(now == Owner::Vtl1, self.frames.shape.vtl1.contains(&(gfn as u64)), "frame {gfn:#x} is {now}'s");
        }
    }
}

impl Frames {
    /// Of `machine`, under the registry's lock: no permission changes in between.
    #[must_use]
    pub fn of(machine: &HostedMachine) -> Self {
        let registry = machine.platform().frames().lock();
        let rights = machine.partition().effective_protections();
        Self { rights, states: registry.intervals().collect(), shape: Shape::of(machine) }
    }

    /// Rights to each frame of RAM, at the hypervisor; none for a frame that is a hole in it.
    fn rights(&self) -> Vec<Option<MapFlags>> {
        let mut rights = vec![None; self.shape.frames];
        for (start, end, flags) in &self.rights {
            rights[self.shape.indices(*start, *end)].fill(Some(*flags));
        }
        rights
    }

    /// Owner of each frame of RAM.
    fn owners(&self) -> Vec<Owner> {
        let mut owners = vec![Owner::Nobody; self.shape.frames];
        for state in &self.states {
            owners[self.shape.indices(state.frames.start(), state.frames.end())].fill(state.owner);
        }
        owners
    }

    /// The hypervisor has what the registry says, for every frame, and each owner's frames are as they must be.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn check_agreement(&self) {
        let rights = self.rights();
        for state in &self.states {
            let frames = self.shape.indices(state.frames.start(), state.frames.end());
            let flags = state.permission.map_flags();
            let other = frames.clone().find(|frame| rights[*frame].is_some_and(|right| right != flags));
            assert!(
                other.is_none(),
                "{state:?}, but the hypervisor has {:?} for frame {other:#x?}",
                other.and_then(|at| rights[at])
            );
            let expected = match state.owner {
                Owner::Vtl1 => Permission::NONE,
                Owner::RingBuffer | Owner::Trampoline | Owner::Kexec { .. } => Permission::R,
                Owner::Module { kind, .. } if kind.is_text() => Permission::RX,
                Owner::Module { kind, .. } if kind.is_explained() => Permission::R,
                _ => continue,
            };
            assert_eq!(state.permission, expected, "{state:?}");
        }
    }

    /// The frames of RAM that VTL0's kernel can write and execute.
    #[must_use]
    pub fn write_and_execute(&self) -> Vec<bool> {
        let both = MapFlags::WRITE | MapFlags::KERNEL_EXECUTE;
        self.rights().into_iter().map(|right| right.is_some_and(|right| right.contains(both))).collect()
    }

    /// # Panics
    /// When VTL0's kernel can write and execute a frame that is not among those `before`.
    pub fn check_no_new(&self, before: &[bool]) {
        let now = self.write_and_execute();
        let new = now.iter().zip(before).position(|(now, was)| *now && !was);
        assert!(new.is_none(), "frame {new:#x?} has become writable and executable after boot");
    }

    /// What belongs to VTL0's kernel and to VTL1: after the end of boot nothing of it changes.
    #[must_use]
    pub fn sealed(&self) -> Vec<FrameState> {
        let changes =
            |state: &&FrameState| !matches!(state.owner, Owner::Nobody | Owner::Module { .. } | Owner::Kexec { .. });
        self.states.iter().filter(changes).copied().collect()
    }

    /// The tokens that own frames, ascending and each once.
    #[must_use]
    pub fn owning_tokens(&self) -> Vec<Token> {
        let mut tokens: Vec<Token> = self
            .states
            .iter()
            .filter_map(|state| if let Owner::Module { token, .. } = state.owner { Some(token) } else { None })
            .collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// How many frames belong to the kexec image, or to the one for a crash.
    #[must_use]
    pub fn of_kexec(&self, crash: bool) -> u64 {
        let owned = self.states.iter().filter(|state| state.owner == Owner::Kexec { crash });
        owned.map(|state| state.frames.count()).sum()
    }

    /// What must hold right after the end of boot when the hypervisor refused nothing.
    ///
    /// # Panics
    /// When an owned frame of RAM is writable and executable. What is no RAM the hypervisor will not change.
    pub fn check_closed(&self) {
        let has_ram = |frames: FrameRange| {
            self.shape.ram.iter().any(|slot| slot.start() < frames.end() && frames.start() < slot.end())
        };
        let of_ram = self.states.iter().filter(|state| has_ram(state.frames));
        for state in of_ram.filter(|state| state.owner != Owner::Nobody) {
            assert!(!state.permission.is_write_and_execute(), "{state:?} after the end of boot");
        }
    }
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
