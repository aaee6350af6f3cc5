//! Lists as VTL0 should send them, and as an attacker would.

use zerocopy::{FromZeros, IntoBytes};

use super::{CheckedRange, HekiList, HekiPage, HekiRange, MAX_RANGES, RANGES_PER_PAGE};
use crate::error::{Errno, VsmError};
use crate::frames::tests::fake::{Fake, frames};
use crate::owner::Owner;
use crate::platform::Platform;
use crate::vsm::VsmParam;

/// Where the tests put list pages.
const BASE: u64 = 0x10_0000;

fn machine() -> (Fake, Platform) {
    let fake = Fake::new(4096);
    let platform = fake.platform(frames(0x200, 0x300));
    (fake, platform)
}

fn range(index: u64) -> HekiRange {
    let pa = 0x1000 * index;
    HekiRange { va: 0xffff_8880_0000_0000 + pa, pa, epa: pa + 0x1000, attributes: 1 }
}

/// Page number `index` of a list, with `count` ranges, that goes on at `next_pa`.
fn page(fake: &Fake, index: u64, count: u64, next_pa: u64) {
    let mut page = HekiPage::new_zeroed();
    page.next = 0xdead_beef;
    page.next_pa = next_pa;
    page.nranges = count;
    for (place, number) in page.ranges.iter_mut().zip(0..count) {
        *place = range(127 * index + number);
    }
    fake.poke(at(index), page.as_bytes());
}

fn at(index: u64) -> u64 {
    BASE + 0x1000 * index
}

/// A proper list of `count` ranges.
fn list(fake: &Fake, count: u64) {
    let room = u64::try_from(RANGES_PER_PAGE).unwrap();
    for index in 0..count.div_ceil(room) {
        let left = count - index * room;
        page(fake, index, left.min(room), if left > room { at(index + 1) } else { 0 });
    }
}

fn walk(platform: &Platform, first: u64, count: u64) -> Result<Vec<CheckedRange>, VsmError> {
    HekiList::from_registers(platform, &[first, count])?.walk(platform).collect()
}

/// The rule and the errno by which a list is refused.
fn refused(platform: &Platform, first: u64, count: u64) -> (String, Errno) {
    let error = walk(platform, first, count).unwrap_err();
    (error.to_string(), error.errno())
}

#[track_caller]
fn assert_refused(platform: &Platform, first: u64, count: u64, errno: Errno, rule: &str) {
    let (text, got) = refused(platform, first, count);
    assert_eq!(got, errno, "{text}");
    assert!(text.contains(rule), "{text}");
}

#[test]
fn a_proper_list_is_walked_in_order_and_each_byte_fetched_once() {
    for count in [1, 126, 127, 128, 254, 255, 1000] {
        let (fake, platform) = machine();
        list(&fake, count);
        let ranges = walk(&platform, BASE, count).unwrap();
        let starts: Vec<u64> = ranges.iter().map(CheckedRange::start).collect();
        assert_eq!(starts, (0..count).map(|index| range(index).pa).collect::<Vec<_>>());
        let pages = count.div_ceil(127);
        let reads: Vec<(u64, usize)> = (0..pages).map(|index| (at(index), 4096)).collect();
        assert_eq!(fake.with(|state| state.reads.clone()), reads);
    }
}

#[test]
fn a_walk_stops_at_its_first_error() {
    let (fake, platform) = machine();
    page(&fake, 0, 3, 0);
    let bad = HekiRange { epa: 0, ..range(5) };
    fake.poke(BASE + 24 + 32, bad.as_bytes());
    let items: Vec<_> = HekiList::new(&platform, BASE, 3).unwrap().walk(&platform).collect();
    assert_eq!(items.len(), 2);
    assert!(items[0].is_ok() && items[1].is_err());
}

#[test]
fn the_first_page_must_be_an_aligned_page_of_vtl0() {
    let (_, platform) = machine();
    assert_refused(&platform, BASE + 8, 1, Errno::Einval, "not page-aligned");
    assert_refused(&platform, 1 << 52, 1, Errno::Efault, "not a physical address");
    assert_refused(&platform, u64::MAX, 1, Errno::Efault, "not a physical address");
    let own = walk(&platform, 0x20_0000, 1).unwrap_err();
    assert!(matches!(own, VsmError::FrameOwned(_, Owner::Vtl1)), "{own}");
    assert_refused(&platform, 4096 << 12, 1, Errno::Efault, "not accessible");
}

#[test]
fn the_number_of_ranges_is_neither_zero_nor_huge() {
    let (fake, platform) = machine();
    page(&fake, 0, 1, 0);
    assert_refused(&platform, BASE, 0, Errno::Efault, "at least one range");
    assert_refused(&platform, BASE, MAX_RANGES + 1, Errno::Efault, "2^20");
    assert_refused(&platform, BASE, u64::MAX, Errno::Efault, "2^20");
    assert_eq!(fake.with(|state| state.reads.len()), 0, "nothing is fetched for a list that cannot be");
    assert!(HekiList::new(&platform, BASE, MAX_RANGES).is_ok());
}

#[test]
fn a_page_has_between_1_and_127_ranges() {
    let (fake, platform) = machine();
    for count in [128, u64::MAX, 1 << 63] {
        page(&fake, 0, count.min(127), 0);
        fake.poke(BASE + 16, &count.to_le_bytes());
        assert_refused(&platform, BASE, MAX_RANGES, Errno::Efault, "room for 127");
    }
    page(&fake, 0, 0, at(1));
    page(&fake, 1, 1, 0);
    assert_refused(&platform, BASE, 1, Errno::Efault, "at least one range");
}

#[test]
fn the_chain_has_exactly_the_announced_ranges() {
    let (fake, platform) = machine();
    list(&fake, 200);
    assert_refused(&platform, BASE, 201, Errno::Efault, "ends before");
    assert_refused(&platform, BASE, 199, Errno::Efault, "more ranges than announced");
    assert_refused(&platform, BASE, 127, Errno::Efault, "goes on after");
    assert_refused(&platform, BASE, 126, Errno::Efault, "more ranges than announced");
    assert_eq!(walk(&platform, BASE, 200).unwrap().len(), 200);
}

#[test]
fn the_next_page_must_be_an_aligned_page_of_vtl0() {
    let (fake, platform) = machine();
    for (next, errno, rule) in [
        (at(1) + 1, Errno::Einval, "not page-aligned"),
        (1 << 52, Errno::Efault, "not a physical address"),
        (0x2f_f000, Errno::Eacces, "belongs to VTL1"),
        (4096 << 12, Errno::Efault, "not accessible"),
    ] {
        page(&fake, 0, 1, next);
        assert_refused(&platform, BASE, 2, errno, rule);
    }
}

#[test]
fn a_cycle_of_any_shape_is_refused_before_a_page_is_fetched_twice() {
    for tail in 0..12 {
        for length in 1..40 {
            let (fake, platform) = machine();
            for index in 0..tail + length {
                let next = if index + 1 == tail + length { tail } else { index + 1 };
                page(&fake, index, 1, at(next));
            }
            // With a count so high that the cycle is noticed, with one that ends in the middle of it, and one between.
            for count in [MAX_RANGES, tail + length, tail + length + length / 2] {
                fake.with(|state| state.reads.clear());
                let (text, errno) = refused(&platform, BASE, count);
                assert_eq!(errno, Errno::Efault);
                let rule = if count == tail + length { "goes on after" } else { "cycle" };
                assert!(text.contains(rule), "{text}");
                let pages: Vec<(u64, usize)> = (0..tail + length).map(|index| (at(index), 4096)).collect();
                assert_eq!(fake.with(|state| state.reads.clone()), pages);
            }
        }
    }
}

#[test]
fn pages_in_any_order_are_walked_and_in_too_many_places_refused() {
    // Every second page, so that each is a place of its own; up, down, and from both ends to the middle.
    let places = 1_u64 << 16;
    let fake = Fake::new(usize::try_from(BASE / 0x1000 + 2 * places + 8).unwrap());
    let platform = fake.platform(frames(0x80, 0x90));
    for order in [
        |index, _| index,
        |index, last| last - index,
        |index: u64, last| {
            if index.is_multiple_of(2) { index / 2 } else { last - index / 2 }
        },
    ] {
        for (count, fine) in [(100, true), (places, true), (places + 1, false)] {
            let at = |index: u64| at(2 * order(index, count - 1));
            for index in 0..count {
                let next = if index + 1 == count { 0 } else { at(index + 1) };
                fake.poke(at(index), &[0xdead_beef, next, 1].map(u64::to_le_bytes).concat());
                fake.poke(at(index) + 24, range(index).as_bytes());
            }
            if fine {
                assert_eq!(walk(&platform, at(0), count).unwrap().len() as u64, count);
            } else {
                assert_refused(&platform, at(0), count, Errno::Efault, "2^16 places");
            }
        }
    }
}

/// As VTL0 fills its pages: 127 ranges in the first one, one in each other. Where they lie side by side, in either direction,
/// they are one place.
#[test]
fn lists_of_one_range_a_page_fit() {
    const RANGES: u64 = 1 << 17;
    let fake = Fake::new(usize::try_from(BASE / 0x1000 + RANGES).unwrap());
    let platform = fake.platform(frames(0x80, 0x90));
    for order in [|index| index, |index| RANGES - 127 - index] {
        let pages = RANGES - 126;
        for index in 0..pages {
            let next = if index + 1 == pages { 0 } else { at(order(index + 1)) };
            page(&fake, order(index), if index == 0 { 127 } else { 1 }, next);
        }
        assert_eq!(HekiList::new(&platform, at(order(0)), RANGES).unwrap().walk(&platform).count() as u64, RANGES);
    }
}

#[test]
fn ranges_are_canonical_ascending_and_within_the_address_space() {
    let good = range(3);
    let check = |range| CheckedRange::new(range).map_err(|error| error.errno());
    assert!(check(good).is_ok());
    assert_eq!(check(HekiRange { va: 1 << 47, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { va: 0xffff_7fff_ffff_f000, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { epa: good.pa, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { epa: good.pa - 1, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { epa: 1 << 52, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { pa: 1 << 52, epa: (1 << 52) + 0x1000, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { pa: u64::MAX - 0xfff, epa: 0, ..good }), Err(Errno::Efault));
    assert_eq!(check(HekiRange { pa: 0x1000, epa: u64::MAX, ..good }), Err(Errno::Efault));
    // Bytes that start or end within a page are fine until a call wants frames.
    let bytes = HekiRange { va: good.va + 5, pa: good.pa + 5, ..good };
    assert_eq!(CheckedRange::new(bytes).unwrap().frames().unwrap_err().errno(), Errno::Einval);
    for odd in [HekiRange { pa: good.pa + 5, ..good }, HekiRange { epa: good.epa - 5, ..good }] {
        assert_eq!(CheckedRange::new(odd).unwrap().frames().unwrap_err().errno(), Errno::Einval);
    }
    assert_eq!(CheckedRange::new(good).unwrap().frames(), Ok(frames(3, 4)));
}
