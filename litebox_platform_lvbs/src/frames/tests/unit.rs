//! What the registry promises, one promise at a time.

use super::fake::{Fake, frames};
use crate::error::VsmError;
use crate::frames::{FrameRegistry, Permission};
use crate::hardware::ViewPiece;
use crate::hv::HvStatus;
use crate::owner::{ModuleMemoryKind, Owner};
use crate::phase::Phase;
use crate::token::Token;

const MODULE: Owner = Owner::Module { token: Token::new(7).unwrap(), kind: ModuleMemoryKind::Text };

fn registry() -> (FrameRegistry, Fake) {
    (FrameRegistry::new(frames(100, 200)).unwrap(), Fake::new(4096))
}

/// Commits one range.
fn set(registry: &mut FrameRegistry, fake: &Fake, range: (u64, u64), owner: Owner, permission: Permission) {
    let mut transaction = registry.begin(fake, Phase::Boot).unwrap();
    transaction.stage(frames(range.0, range.1), owner, owner, permission).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn nothing_is_owned_at_first_but_vtl1() {
    let (registry, _) = registry();
    assert_eq!(registry.get(99), Some((Owner::Nobody, Permission::ALL)));
    assert_eq!(registry.get(100), Some((Owner::Vtl1, Permission::ALL)));
    assert_eq!(registry.get(199), Some((Owner::Vtl1, Permission::ALL)));
    assert_eq!(registry.get(200), Some((Owner::Nobody, Permission::ALL)));
    assert_eq!(registry.get((1 << 40) - 1), Some((Owner::Nobody, Permission::ALL)));
    assert_eq!(registry.get(1 << 40), None);
    assert_eq!(registry.interval_count(), 3);
}

#[test]
fn vtl1_is_closed_once() {
    let (mut registry, fake) = registry();
    registry.close_vtl1(&fake).unwrap();
    assert_eq!(registry.get(150), Some((Owner::Vtl1, Permission::NONE)));
    assert!(
        fake.protections()
            .iter()
            .enumerate()
            .all(|(gfn, flags)| *flags == if (100..200).contains(&gfn) { 0 } else { 15 })
    );
    registry.close_vtl1(&fake).unwrap();
    assert_eq!(fake.with(|state| state.calls), 1);
}

#[test]
fn only_the_owner_gets_at_a_frame() {
    let (mut registry, fake) = registry();
    set(&mut registry, &fake, (10, 20), MODULE, Permission::RX);
    let others = [
        Owner::Module { token: Token::new(8).unwrap(), kind: ModuleMemoryKind::Text },
        Owner::BootProtected,
        Owner::KernelText,
        Owner::Kexec { crash: false },
        Owner::RingBuffer,
        Owner::Nobody,
        Owner::Vtl1,
    ];
    for other in others {
        let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
        for range in [(10, 20), (0, 11), (19, 30), (0, 40)] {
            let result = transaction.stage(frames(range.0, range.1), other, Owner::Nobody, Permission::RW);
            assert!(matches!(result, Err(VsmError::FrameOwned(..))), "{other} took {range:?}");
        }
        transaction.commit().unwrap();
        assert!(registry.check(frames(19, 20), other).is_err());
    }
    assert_eq!(registry.get(10), Some((MODULE, Permission::RX)));
    let mut transaction = registry.begin(&fake, Phase::Runtime).unwrap();
    transaction.stage(frames(10, 20), MODULE, Owner::Nobody, Permission::RW).unwrap();
    transaction.commit().unwrap();
    assert_eq!(registry.get(15), Some((Owner::Nobody, Permission::RW)));
}

#[test]
fn vtl1s_frames_are_refused_or_left_out() {
    let (mut registry, fake) = registry();
    registry.close_vtl1(&fake).unwrap();
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    for claimant in [Owner::BootProtected, MODULE, Owner::Nobody] {
        let result = transaction.stage(frames(90, 101), claimant, claimant, Permission::ALL);
        assert!(matches!(result, Err(VsmError::FrameOwned(at, Owner::Vtl1)) if at.gfn().as_u64() == 100));
    }
    let all = frames(0, 4096);
    let skipped = transaction.stage_skipping_foreign(all, Owner::BootProtected, Owner::BootProtected, Permission::R);
    assert_eq!(skipped, Ok(100));
    transaction.commit().unwrap();
    assert!(
        fake.protections()
            .iter()
            .enumerate()
            .all(|(gfn, flags)| *flags == if (100..200).contains(&gfn) { 0 } else { 9 })
    );
}

#[test]
fn a_frame_cannot_be_given_to_vtl1() {
    let (mut registry, fake) = registry();
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    assert!(transaction.stage(frames(0, 1), MODULE, Owner::Vtl1, Permission::NONE).is_err());
    assert!(transaction.stage_skipping_foreign(frames(0, 1), MODULE, Owner::Vtl1, Permission::NONE).is_err());
}

#[test]
fn adjacent_ranges_share_hypercalls_and_no_change_costs_none() {
    let (mut registry, fake) = registry();
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    // 1021 frames in ranges of different sizes, last one first.
    for start in (0..146).rev().map(|index| 1000 + 7 * index) {
        transaction.stage(frames(start, (start + 7).min(2021)), MODULE, MODULE, Permission::R).unwrap();
    }
    transaction.commit().unwrap();
    assert_eq!(fake.with(|state| state.calls), 1021_usize.div_ceil(510));
    set(&mut registry, &fake, (1000, 2021), MODULE, Permission::R);
    assert_eq!(fake.with(|state| state.calls), 3);
    assert_eq!(registry.interval_count(), 5);
}

#[test]
fn write_and_execute_is_refused_after_the_end_of_boot() {
    let (mut registry, fake) = registry();
    for phase in [Phase::Runtime, Phase::Boot] {
        let mut transaction = registry.begin(&fake, phase).unwrap();
        transaction.stage(frames(8, 9), MODULE, MODULE, Permission::R).unwrap();
        transaction.stage(frames(10, 12), MODULE, MODULE, Permission::ALL).unwrap();
        let result = transaction.commit();
        match phase {
            Phase::Runtime => {
                assert!(matches!(result, Err(VsmError::WriteAndExecute(at)) if at.as_u64() == 0xa000));
                assert_eq!(registry.get(8), Some((Owner::Nobody, Permission::ALL)));
                assert_eq!(fake.with(|state| state.calls), 0);
            }
            Phase::Boot => assert_eq!(result, Ok(())),
        }
    }
}

#[test]
fn a_failure_at_any_step_changes_nothing() {
    let (mut registry, fake) = registry();
    set(&mut registry, &fake, (300, 900), MODULE, Permission::RX);
    set(&mut registry, &fake, (1500, 1600), MODULE, Permission::RW);
    let before: Vec<_> = registry.intervals().collect();
    let protections = fake.protections();
    let run = |registry: &mut FrameRegistry| {
        let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
        transaction.stage(frames(200, 2500), MODULE, MODULE, Permission::R)?;
        transaction.stage(frames(600, 1550), MODULE, MODULE, Permission::RW)?;
        transaction.stage(frames(2600, 2601), MODULE, MODULE, Permission::RX)?;
        transaction.commit()
    };
    let mut step = 0;
    loop {
        fake.with(|state| {
            state.calls = 0;
            state.fail = [(step, u8::try_from(step * 83 % 256).unwrap())].into();
        });
        let result = run(&mut registry);
        if fake.with(|state| state.calls) <= step {
            assert_eq!(result, Ok(()));
            break;
        }
        let status = HvStatus::OPERATION_DENIED;
        assert_eq!(result, Err(VsmError::Hypercall { call: 0xc, status }));
        assert_eq!(registry.intervals().collect::<Vec<_>>(), before, "step {step}");
        assert_eq!(fake.protections(), protections, "step {step}");
        step += 1;
    }
    // 1350 frames to R, 850 to RW (50 of those from 1500 on have it), 1 to RX.
    assert_eq!(step, 1350_usize.div_ceil(510) + 900_usize.div_ceil(510) + 1);
}

#[test]
fn frames_beyond_ram_fail_as_a_whole() {
    let (mut registry, fake) = registry();
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    transaction.stage(frames(4000, 1 << 40), MODULE, MODULE, Permission::R).unwrap();
    let status = HvStatus::INVALID_PARAMETER;
    assert_eq!(transaction.commit(), Err(VsmError::Hypercall { call: 0xc, status }));
    assert_eq!(registry.get(4000), Some((Owner::Nobody, Permission::ALL)));
    assert!(fake.protections().iter().all(|flags| *flags == 0xf));
}

#[test]
fn what_cannot_be_restored_is_recorded_as_it_is() {
    let (mut registry, fake) = registry();
    // The second hypercall fails half-way, and so does every one after it.
    fake.with(|state| state.fail = (1..100).map(|call| (call, 128)).collect());
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    transaction.stage(frames(300, 1400), MODULE, MODULE, Permission::R).unwrap();
    assert!(transaction.commit().is_err());
    assert_eq!(fake.with(|state| state.calls), 2 + 3, "attempts are bounded");
    for (gfn, flags) in (0..).zip(fake.protections()) {
        let (owner, permission) = registry.get(gfn).unwrap();
        assert_eq!(permission.map_flags().bits(), u32::from(flags), "frame {gfn}");
        assert_ne!(owner, MODULE);
    }
    assert!(registry.intervals().any(|interval| interval.permission == Permission::R));
    // And it can be put right later.
    fake.with(|state| state.fail.clear());
    set(&mut registry, &fake, (300, 1400), MODULE, Permission::ALL);
    assert!(fake.protections().iter().all(|flags| *flags == 0xf));
}

#[test]
fn frozen_frames_thaw_when_the_transaction_is_dropped() {
    let (mut registry, fake) = registry();
    let mut transaction = registry.begin(&fake, Phase::Runtime).unwrap();
    transaction.stage(frames(300, 310), MODULE, MODULE, Permission::R).unwrap();
    transaction.apply().unwrap();
    assert!(fake.protections()[300..310].iter().all(|flags| *flags == 9));
    transaction.stage(frames(300, 305), MODULE, MODULE, Permission::RX).unwrap();
    drop(transaction);
    assert!(fake.protections().iter().all(|flags| *flags == 0xf));
    assert_eq!(registry.interval_count(), 3);
}

#[test]
fn all_frames_of_an_owner_go_at_once_or_none() {
    let (mut registry, fake) = registry();
    let (one, other) = (Owner::Kexec { crash: false }, Owner::Kexec { crash: true });
    for start in (10..90).step_by(4) {
        set(&mut registry, &fake, (start, start + 1), one, Permission::R);
        set(&mut registry, &fake, (start + 1, start + 2), other, Permission::R);
    }
    set(&mut registry, &fake, (300, 4000), one, Permission::R);
    let before: Vec<_> = registry.intervals().collect();
    let calls = fake.with(|state| state.calls);
    // Frames without an owner, and those of VTL1, stay.
    for owner in [Owner::Nobody, Owner::Vtl1] {
        let mut transaction = registry.begin(&fake, Phase::Runtime).unwrap();
        transaction.release_all(owner, Permission::RW);
        transaction.commit().unwrap();
    }
    // Taken back.
    let mut transaction = registry.begin(&fake, Phase::Runtime).unwrap();
    transaction.release_all(one, Permission::RW);
    transaction.apply().unwrap();
    drop(transaction);
    assert_eq!(registry.intervals().collect::<Vec<_>>(), before);
    assert!(fake.with(|state| state.calls) > calls);
    // Given back, but for what is claimed anew.
    let mut transaction = registry.begin(&fake, Phase::Runtime).unwrap();
    transaction.release_all(one, Permission::RW);
    transaction.stage(frames(14, 15), one, one, Permission::R).unwrap();
    transaction.commit().unwrap();
    for state in registry.intervals() {
        assert!(state.owner != one || state.frames == frames(14, 15), "{state:?}");
    }
    for gfn in [10, 18, 86, 300, 3999] {
        assert_eq!(registry.get(gfn), Some((Owner::Nobody, Permission::RW)), "{gfn}");
        let flags = u32::from(fake.protections()[usize::try_from(gfn).unwrap()]);
        assert_eq!(flags, Permission::RW.map_flags().bits(), "{gfn}");
    }
    assert_eq!(registry.get(11), Some((other, Permission::R)));
}

#[test]
fn a_view_is_of_what_cannot_be_written_and_is_somebodys() {
    let (mut registry, fake) = registry();
    let kexec = Owner::Kexec { crash: false };
    set(&mut registry, &fake, (10, 12), kexec, Permission::R);
    set(&mut registry, &fake, (20, 22), MODULE, Permission::RW);
    set(&mut registry, &fake, (30, 32), Owner::Nobody, Permission::R);
    let mut transaction = registry.begin(&fake, Phase::Runtime).unwrap();
    transaction.stage(frames(40, 42), kexec, kexec, Permission::R).unwrap();
    // The fake maps nothing: that it is asked is what counts.
    let is_asked = |transaction: &crate::frames::Transaction<'_>, start: u64, end: u64| {
        let pieces = [ViewPiece::Frozen(frames(start, end))];
        match transaction.view(&pieces) {
            Err(VsmError::NotImplemented) => true,
            Err(VsmError::NotFrozen(_)) => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(!is_asked(&transaction, 40, 42), "staged, and not in force");
    transaction.apply().unwrap();
    assert!(is_asked(&transaction, 40, 42) && is_asked(&transaction, 10, 12));
    for (start, end) in [(20, 22), (30, 32), (39, 42), (40, 43), (11, 13), (50, 51), (150, 151)] {
        assert!(!is_asked(&transaction, start, end), "{start}..{end}");
    }
}
