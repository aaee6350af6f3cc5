//! The heap that ProtectMemory needs: it follows the number of distinct intervals, and not that of list pages; and
//! committing or rolling back a transaction allocates nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use litebox_platform_lvbs::address::{FrameRange, PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::{FrameRegistry, Permission};
use litebox_platform_lvbs::hardware::{Hardware, HypercallOutcome, MemoryFault};
use litebox_platform_lvbs::hv::{HvStatus, HypercallControl, InitialVpContext};
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::{Platform, VsmError};

use crate::counting::{NEVER, counted};
use crate::linux::call;

/// Where the list lies: beyond everything it protects.
const LIST: u64 = 1 << 40;
const RANGES: u64 = 40_000;

/// A VTL0 whose list is made up as it is read, so that it takes no memory itself.
struct ListOnDemand {
    ranges_per_page: u64,
    /// First frame and attributes of a range, by its number.
    range: fn(u64) -> (u64, u64),
}

impl Hardware for ListOnDemand {
    fn hypercall(&self, control: HypercallControl, _: &[u8], _: &mut [u8]) -> HypercallOutcome {
        let reps_done = u16::try_from(control.raw() >> 32 & 0xfff).unwrap();
        HypercallOutcome { status: HvStatus::SUCCESS, reps_done }
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let page = (from.as_u64() - LIST) / PAGE_SIZE;
        let first = page * self.ranges_per_page;
        let count = self.ranges_per_page.min(RANGES - first);
        let next = if first + count < RANGES { from.as_u64() + PAGE_SIZE } else { 0 };
        into.fill(0);
        let mut put = |at: u64, value: u64| {
            let at = usize::try_from(at).unwrap();
            into[at..at + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(8, next);
        put(16, count);
        for index in 0..count {
            let (gfn, attributes) = (self.range)(first + index);
            put(24 + 32 * index, gfn << 12);
            put(32 + 32 * index, gfn << 12);
            put(40 + 32 * index, (gfn + 1) << 12);
            put(48 + 32 * index, attributes);
        }
        Ok(())
    }

    fn write_vtl0(&self, to: PhysAddr, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(to))
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        Err(VsmError::NoSuchProcessor(vp))
    }
}

/// The most heap, in bytes, that one ProtectMemory with the list needs beyond what VTL1 has already.
fn heap_for(ranges_per_page: u64, range: fn(u64) -> (u64, u64)) -> usize {
    let config = PlatformConfig {
        vtl1_region: FrameRange::from_gfns(1, 2).unwrap(),
        possible_cpus: 1,
        boot_vp: 0,
        loader: Generation::G2,
    };
    let platform = Platform::new(Box::new(ListOnDemand { ranges_per_page, range }), config).unwrap();
    let protected = call(&platform, VsmFunction::ProtectMemory, [LIST, RANGES, 0], NEVER);
    assert_eq!(protected.result, 0);
    protected.peak
}

/// Neighbouring frames, all for reading: one interval in the end.
fn adjacent(index: u64) -> (u64, u64) {
    (0x1000 + index, 1)
}

/// Neighbouring frames of permissions that alternate, in an order that has nothing to do with their addresses.
fn scattered(index: u64) -> (u64, u64) {
    let gfn = index * 7919 % RANGES;
    (0x1000 + gfn, if gfn.is_multiple_of(2) { 1 } else { 5 })
}

/// A hypervisor that does 100 elements of every hypercall from the `fail_from`-th on, and then refuses.
struct Refusing {
    calls: AtomicUsize,
    fail_from: usize,
}

impl Hardware for Refusing {
    fn hypercall(&self, control: HypercallControl, _: &[u8], _: &mut [u8]) -> HypercallOutcome {
        let reps = u16::try_from(control.raw() >> 32 & 0xfff).unwrap();
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.fail_from {
            return HypercallOutcome { status: HvStatus::SUCCESS, reps_done: reps };
        }
        HypercallOutcome { status: HvStatus::INSUFFICIENT_MEMORY, reps_done: reps.min(100) }
    }

    fn read_vtl0(&self, from: PhysAddr, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(from))
    }

    fn write_vtl0(&self, to: PhysAddr, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(to))
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        Err(VsmError::NoSuchProcessor(vp))
    }
}

/// Commits `RANGES` scattered ranges with a hypervisor that refuses from some hypercall on: allocations by the commit
/// and the roll-back, and whether it succeeded.
fn allocations_of_commit(fail_from: usize) -> (usize, bool) {
    let hardware = Refusing { calls: AtomicUsize::new(0), fail_from };
    let mut registry = FrameRegistry::new(FrameRange::from_gfns(1, 2).unwrap()).unwrap();
    let mut transaction = registry.begin(&hardware, Phase::Boot).unwrap();
    let owner = Owner::BootProtected;
    for index in 0..RANGES {
        let (gfn, attributes) = scattered(index);
        let permission = if attributes == 1 { Permission::R } else { Permission::RX };
        // Two frames each, so that a failure can fall into the middle of an interval.
        let frames = FrameRange::from_gfns(2 * gfn, 2 * gfn + 2).unwrap();
        transaction.stage(frames, owner, owner, permission).unwrap();
    }
    let committed = counted(NEVER, || transaction.commit().is_ok());
    (committed.requests, committed.result)
}

#[test]
fn heap_follows_the_intervals_and_committing_needs_none() {
    assert_eq!(allocations_of_commit(usize::MAX), (0, true));
    for fail_from in [0, 1, 50, 100] {
        assert_eq!(allocations_of_commit(fail_from), (0, false), "failing from hypercall {fail_from} on");
    }
    let kib = |bytes: usize| bytes / 1024;
    let few = heap_for(127, adjacent);
    let many = heap_for(1, adjacent);
    println!("{RANGES} adjacent ranges: {} KiB in 315 pages, {} KiB in {RANGES} pages", kib(few), kib(many));
    assert_eq!(few, many);
    assert!(few < 64 << 10, "{few} bytes for one interval");
    let few = heap_for(127, scattered);
    let many = heap_for(1, scattered);
    println!("{RANGES} scattered ranges: {} KiB in 315 pages, {} KiB in {RANGES} pages", kib(few), kib(many));
    assert_eq!(few, many);
    assert!(few < 3 << 20, "{few} bytes for {RANGES} intervals");
}
