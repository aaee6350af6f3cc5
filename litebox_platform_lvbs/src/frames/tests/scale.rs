//! Many ranges, in bad orders: the registry's memory and time must follow the number of intervals.

use super::fake::{Fake, frames};
use crate::frames::list::CHUNK;
use crate::frames::{FrameRegistry, Permission};
use crate::owner::Owner;
use crate::phase::Phase;

/// A permutation of `0..count`, by a multiplier coprime to it.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |index| index * 7919 % count)
}

fn fill(count: u64, order: impl Iterator<Item = u64>) -> (FrameRegistry, Fake) {
    let fake = Fake::new(usize::try_from(count * 2 + 64).unwrap());
    let mut registry = FrameRegistry::new(frames(0, 16)).unwrap();
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    for index in order {
        let range = frames(32 + index * 2, 33 + index * 2);
        let permission = if index % 3 == 0 { Permission::RX } else { Permission::R };
        transaction.stage(range, Owner::BootProtected, Owner::BootProtected, permission).unwrap();
    }
    transaction.commit().unwrap();
    (registry, fake)
}

fn check(count: u64, order: impl Iterator<Item = u64>, chunks_at_most: usize) {
    let (mut registry, fake) = fill(count, order);
    let count = usize::try_from(count).unwrap();
    assert_eq!(registry.interval_count(), 2 + 2 * count);
    registry.list.assert_consistent();
    assert!(registry.list.chunk_count() <= chunks_at_most, "{} chunks", registry.list.chunk_count());
    assert_eq!(
        fake.with(|state| state.calls),
        count.div_ceil(3).div_ceil(510) + (count - count.div_ceil(3)).div_ceil(510)
    );
    // One range over all of them, and the registry is small again.
    let mut transaction = registry.begin(&fake, Phase::Boot).unwrap();
    let all = frames(32, u64::try_from(32 + 2 * count).unwrap());
    transaction.stage(all, Owner::BootProtected, Owner::BootProtected, Permission::R).unwrap();
    transaction.commit().unwrap();
    assert_eq!(registry.interval_count(), 4);
    assert!(registry.list.chunk_count() <= 2);
}

#[test]
fn forty_thousand_ranges_in_any_order() {
    let count = 40_000;
    let full = 2 * 40_000 / CHUNK;
    check(count, 0..count, full + full / 8);
    check(count, (0..count).rev(), full + full / 8);
    check(count, shuffled(count), 2 * full + 2);
}

#[test]
#[ignore = "takes a minute without optimisation"]
fn a_million_intervals_in_shuffled_order() {
    let count = 500_000;
    check(count, shuffled(count), 2 * 1_000_000 / CHUNK + 2);
}
