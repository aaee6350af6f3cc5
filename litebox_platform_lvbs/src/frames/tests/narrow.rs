//! Frames that the hypervisor refuses: all others change, and few hypercalls find out.

use std::ops::Range;

use super::fake::{Fake, frames};
use crate::error::VsmError;
use crate::frames::narrow::EXACT;
use crate::frames::{FrameRegistry, Permission, Refused};
use crate::hv::HvStatus;
use crate::owner::Owner;
use crate::phase::Phase;

const RAM: usize = 0x8000;
const VTL1: Range<u64> = 0x7800..0x7810;

fn machine(holes: &[Range<u64>], all_or_none: bool) -> (FrameRegistry, Fake) {
    let fake = Fake::new(RAM);
    fake.with(|state| (state.holes, state.all_or_none) = (holes.to_vec(), all_or_none));
    (FrameRegistry::new(frames(VTL1.start, VTL1.end)).unwrap(), fake)
}

fn protect(
    registry: &mut FrameRegistry,
    fake: &Fake,
    ranges: impl IntoIterator<Item = (Range<u64>, Permission)>,
) -> Result<Refused, VsmError> {
    let mut transaction = registry.begin(fake, Phase::Boot)?;
    for (range, permission) in ranges {
        let range = frames(range.start, range.end);
        transaction.stage_skipping_foreign(range, Owner::BootProtected, Owner::BootProtected, permission)?;
    }
    transaction.commit_leaving_refused(|status| !status.is_lack())
}

/// The registry says of all frames what the hypervisor has. Those that are no memory are as they were.
fn must_agree(registry: &FrameRegistry, fake: &Fake, expected: impl Fn(u64) -> Permission) {
    let protections = fake.protections();
    fake.with(|state| {
        for gfn in (0..RAM as u64).filter(|gfn| !VTL1.contains(gfn)) {
            let (owner, permission) = registry.get(gfn).unwrap();
            assert_eq!(
                u32::from(protections[usize::try_from(gfn).unwrap()]),
                permission.map_flags().bits(),
                "{gfn:#x}"
            );
            if state.holes.iter().any(|hole| hole.contains(&gfn)) {
                assert_eq!((owner, permission), (Owner::Nobody, Permission::ALL), "{gfn:#x}");
            } else {
                assert_eq!((owner, permission), (Owner::BootProtected, expected(gfn)), "{gfn:#x}");
            }
        }
    });
    registry.list.assert_consistent();
}

#[test]
fn everything_but_what_is_no_memory_changes() {
    let legacy = 0xa0..0x100;
    let cases: [&[Range<u64>]; 8] = [
        &[],
        std::slice::from_ref(&legacy),
        &[0..1, 2..3],
        &[510..511, 1020..1021, 0x7fff..0x8000],
        &[0..90, 0x3000..0x7000],
        // Memory between two holes, where a search at doubled distances meets both.
        &[0x100..0x103, 0x104..0x105],
        &[0x1000..0x112c, 0x11f4..0x1258],
        &[1..2, 3..4, 5..7, 0x1ff..0x203, 0x400..0x401],
    ];
    for holes in cases {
        for all_or_none in [false, true] {
            let (mut registry, fake) = machine(holes, all_or_none);
            let refused = protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]).unwrap();
            must_agree(&registry, &fake, |_| Permission::R);
            let found = holes.iter().map(|hole| hole.clone().filter(|gfn| !VTL1.contains(gfn)).count() as u64).sum();
            assert_eq!((refused.frames, refused.untried), (found, 0), "{holes:?}");
            assert_eq!(refused.first, holes.first().map_or(0, |hole| hole.start));
            assert_eq!(refused.status.is_some(), !holes.is_empty());
        }
    }
}

#[test]
fn hypercalls_grow_with_runs_and_the_logarithm_of_their_lengths() {
    let full = (RAM as u64).div_ceil(510);
    for all_or_none in [false, true] {
        for (count, length) in [(1_u64, 1_u64), (1, 0x60), (1, 0x4000), (8, 0x400), (60, 3), (60, 200)] {
            let holes: Vec<Range<u64>> =
                (0..count).map(|index| 0x200 * (index + 1)..0x200 * (index + 1) + length).collect();
            let (mut registry, fake) = machine(&holes, all_or_none);
            protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]).unwrap();
            let calls = fake.with(|state| state.calls) as u64;
            // Down to a frame and up again; then its end: one by one, in steps and by halves.
            let exact = length.min(EXACT) + if length > EXACT { 100 } else { 0 };
            let most = 2 * full + count * (2 * 12 + exact + 2 * u64::from(length.ilog2() + 2) + 4);
            assert!(calls <= most, "{calls} hypercalls, {count} runs of {length} frames: more than {most}");
        }
    }
}

/// However VTL0 cuts them, and in whatever order it names them, frames that follow each other are one run.
#[test]
fn what_vtl0_makes_of_a_hole_costs_no_more() {
    let hole = 0x1000..0x3000_u64;
    for all_or_none in [false, true] {
        let permission = |gfn: u64| if gfn.is_multiple_of(2) { Permission::R } else { Permission::RX };
        let (mut registry, fake) = machine(std::slice::from_ref(&hole), all_or_none);
        let mut order: Vec<u64> = (0..RAM as u64).collect();
        order.sort_by_key(|gfn| gfn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let ranges = order.into_iter().map(|gfn| (gfn..gfn + 1, permission(gfn)));
        let refused = protect(&mut registry, &fake, ranges).unwrap();
        must_agree(&registry, &fake, permission);
        assert_eq!((refused.frames, refused.runs), (0x2000, 2), "one for each permission");
        assert!(fake.with(|state| state.calls) < 250 + 2 * usize::try_from(EXACT).unwrap());
    }
}

#[test]
fn a_hypervisor_that_refuses_everywhere_ends_the_search() {
    let holes: Vec<Range<u64>> = (0..RAM as u64 / 2).map(|index| 2 * index..2 * index + 1).collect();
    let (mut registry, fake) = machine(&holes, true);
    let refused = protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]).unwrap();
    assert!(refused.untried > 0 && refused.frames > refused.untried);
    assert!(fake.with(|state| state.calls) < 20_000);
    registry.list.assert_consistent();
}

#[test]
fn a_lack_takes_everything_back() {
    let hole = 0xa0..0x100_u64;
    let (mut registry, fake) = machine(std::slice::from_ref(&hole), false);
    protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]).unwrap();
    let steps = fake.with(|state| state.calls);
    for step in 0..steps {
        let (mut registry, fake) = machine(std::slice::from_ref(&hole), false);
        fake.with(|state| state.lack_at = Some(step));
        let status = HvStatus::INSUFFICIENT_MEMORY;
        let result = protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]);
        assert!(
            matches!(result, Err(VsmError::Hypercall { status: found, .. }) if found == status),
            "{step}: {result:?}"
        );
        assert!(fake.protections().iter().all(|flags| *flags == 0xf), "step {step}");
        assert!(registry.intervals().all(|state| state.permission == Permission::ALL && !state.refused), "step {step}");
        registry.list.assert_consistent();
    }
}

/// What was refused once is no hole for good: a hypervisor that holds a frame may let it go.
#[test]
fn what_was_refused_once_may_change_later() {
    let refused = |registry: &FrameRegistry| registry.intervals().filter(|state| state.refused).count();
    for all_or_none in [false, true] {
        let hole = 0xa0..0x100_u64;
        let (mut registry, fake) = machine(std::slice::from_ref(&hole), all_or_none);
        protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]).unwrap();
        assert_eq!(refused(&registry), 1);
        // A call that fails afterwards changes nothing of it.
        fake.with(|state| state.holes.clear());
        let calls = fake.with(|state| state.calls);
        fake.with(|state| state.lack_at = Some(calls + 3));
        protect(&mut registry, &fake, [(0..RAM as u64, Permission::RX)]).unwrap_err();
        assert_eq!(refused(&registry), 1);
        let again = protect(&mut registry, &fake, [(0..RAM as u64, Permission::R)]).unwrap();
        assert_eq!((again, refused(&registry)), (Refused::default(), 0));
        must_agree(&registry, &fake, |_| Permission::R);
    }
}
