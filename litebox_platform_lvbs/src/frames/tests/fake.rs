//! A hypervisor of one kind of hypercall over a small RAM: enough for the registry, the lists and the pointers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::address::{FrameRange, PAGE_SIZE, PhysAddr};
use crate::error::VsmError;
use crate::hardware::{Hardware, HypercallOutcome, MemoryFault};
use crate::hv::{HvStatus, HypercallCode, HypercallControl, InitialVpContext};
use crate::platform::{Platform, PlatformConfig};

/// What the fake is told, and what it has seen.
#[derive(Default)]
pub(crate) struct State {
    /// Map flags by frame.
    pub protections: Vec<u8>,
    /// Hypercalls so far.
    pub calls: usize,
    /// Hypercalls that fail, by number, each with how many elements it does before, in 256ths of the list.
    pub fail: BTreeMap<usize, u8>,
    /// How many have failed.
    pub failed: usize,
    /// The hypercall that fails for want of memory.
    pub lack_at: Option<usize>,
    /// Frames within the RAM that are none.
    pub holes: Vec<core::ops::Range<u64>>,
    /// Whether a hypercall that names a frame that is no RAM changes none, rather than those before it.
    pub all_or_none: bool,
    /// VTL0's memory, page by page; others read as zero.
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// Addresses and sizes of all reads.
    pub reads: Vec<(u64, usize)>,
}

/// The fake; clones share their state.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// A machine with `frames` frames of RAM, all of them open to VTL0.
    pub fn new(frames: usize) -> Self {
        Self(Arc::new(Mutex::new(State { protections: vec![0xf; frames], ..State::default() })))
    }

    /// Looks at, or changes, the state.
    pub fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.0.lock().unwrap())
    }

    /// Protections of all frames.
    pub fn protections(&self) -> Vec<u8> {
        self.with(|state| state.protections.clone())
    }

    /// A kernel on this machine, whose VTL1 is `vtl1`.
    pub fn platform(&self, vtl1: FrameRange) -> Platform {
        let config =
            PlatformConfig { vtl1_region: vtl1, possible_cpus: 1, boot_vp: 0, loader: crate::loader::Generation::G2 };
        Platform::new(Box::new(self.clone()), config).unwrap()
    }

    /// Puts bytes into VTL0's memory.
    pub fn poke(&self, at: u64, bytes: &[u8]) {
        self.with(|state| {
            let (mut at, mut rest) = (at, bytes);
            while !rest.is_empty() {
                let offset = usize::try_from(at % PAGE_SIZE).unwrap();
                let (part, after) = rest.split_at(rest.len().min(4096 - offset));
                let page = state.pages.entry(at / PAGE_SIZE).or_insert_with(|| vec![0; 4096]);
                page[offset..offset + part.len()].copy_from_slice(part);
                at += u64::try_from(part.len()).unwrap();
                rest = after;
            }
        });
    }
}

impl State {
    fn is_ram(&self, gfn: u64) -> bool {
        gfn < self.protections.len() as u64 && !self.holes.iter().any(|hole| hole.contains(&gfn))
    }

    fn modify_protection(&mut self, reps: usize, input: &[u8]) -> HypercallOutcome {
        assert_eq!(input.len(), 16 + 8 * reps, "input size and rep count");
        assert!((1..=510).contains(&reps), "rep count");
        let flags = u32::from_le_bytes(input[8..12].try_into().unwrap());
        let mut limit = reps;
        let mut status = HvStatus::SUCCESS;
        if let Some(part) = self.fail.get(&self.calls) {
            limit = reps * usize::from(*part) / 256;
            status = HvStatus::OPERATION_DENIED;
            self.failed += 1;
        }
        self.calls += 1;
        if self.lack_at == Some(self.calls - 1) {
            return HypercallOutcome { status: HvStatus::INSUFFICIENT_MEMORY, reps_done: 0 };
        }
        let gfns = input[16..].chunks_exact(8).map(|gfn| u64::from_le_bytes(gfn.try_into().unwrap()));
        if self.all_or_none && gfns.into_iter().any(|gfn| !self.is_ram(gfn)) {
            return HypercallOutcome { status: HvStatus::OPERATION_DENIED, reps_done: 0 };
        }
        let mut done = 0;
        for gfn in input[16..].chunks_exact(8).take(limit) {
            let gfn = u64::from_le_bytes(gfn.try_into().unwrap());
            if !self.is_ram(gfn) {
                status = HvStatus::INVALID_PARAMETER;
                break;
            }
            self.protections[usize::try_from(gfn).unwrap()] = u8::try_from(flags).unwrap();
            done += 1;
        }
        HypercallOutcome { status, reps_done: done }
    }
}

impl Hardware for Fake {
    fn hypercall(&self, control: HypercallControl, input: &[u8], _: &mut [u8]) -> HypercallOutcome {
        let raw = control.raw();
        assert_eq!(raw & 0xffff, u64::from(HypercallCode::MODIFY_VTL_PROTECTION_MASK.0));
        let reps = usize::try_from(raw >> 32 & 0xfff).unwrap();
        self.with(|state| state.modify_protection(reps, input))
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let offset = usize::try_from(from.page_offset()).unwrap();
        assert!(offset + into.len() <= 4096, "a read crosses a page");
        self.with(|state| {
            state.reads.push((from.as_u64(), into.len()));
            if from.gfn().as_u64() >= u64::try_from(state.protections.len()).unwrap() {
                return Err(MemoryFault(from));
            }
            match state.pages.get(&from.gfn().as_u64()) {
                Some(page) => into.copy_from_slice(&page[offset..offset + into.len()]),
                None => into.fill(0),
            }
            Ok(())
        })
    }

    fn write_vtl0(&self, to: PhysAddr, from: &[u8]) -> Result<(), MemoryFault> {
        assert!(to.page_offset() + u64::try_from(from.len()).unwrap() <= PAGE_SIZE, "a write crosses a page");
        if to.gfn().as_u64() >= u64::try_from(self.with(|state| state.protections.len())).unwrap() {
            return Err(MemoryFault(to));
        }
        self.poke(to.as_u64(), from);
        Ok(())
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        Err(VsmError::NoSuchProcessor(vp))
    }
}

/// The frames `start..end`.
pub(crate) fn frames(start: u64, end: u64) -> FrameRange {
    FrameRange::from_gfns(start, end).unwrap()
}
