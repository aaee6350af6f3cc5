//! A VTL0 that rewrites everything while VTL1 validates: what is accepted is the signed kernel, and stays it.

use vsm_sim::hosted::RacePoint;
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kexec::{KERNEL, Placed};

use super::world::{assert_accepted, assert_free, booted, image, invalidate, place, validate};
use crate::linux::Linux;
use crate::racing;

/// Validates while `attack` is made at each moment; how many moments there were, and the result.
fn race(
    linux: &Linux,
    placed: &Placed,
    attack: impl FnMut(usize, RacePoint) -> Option<(u64, Vec<u8>)> + Send + 'static,
) -> (usize, i64) {
    let kernel = image(placed.flag() == 1).segments[KERNEL].clone();
    let (moments, result) = racing::race(linux, || validate(linux, placed), attack, |_, _| ());
    if result == 0 {
        assert_accepted(linux, placed);
        for (page, expected) in placed.sources[KERNEL].iter().zip(kernel.bytes.chunks(4096)) {
            let mut now = vec![0; expected.len()];
            bytes::read(linux.machine.memory(), *page, &mut now).unwrap();
            assert!(now == expected, "page {page:#x} was accepted and is not what was signed");
        }
    } else {
        assert_free(linux, placed);
    }
    (moments, result)
}

#[test]
fn a_write_at_any_moment_is_refused_or_comes_too_late() {
    for crash in [false, true] {
        let mut linux = booted(Some(40));
        let (mut refused, mut late) = (0, 0);
        for target in 0..5 {
            let mut moment = 0;
            loop {
                let placed = place(&mut linux, &image(crash));
                let target = match target {
                    0 => placed.kimage + 72 + 2 * 32 + 8,
                    1 => placed.file[2] + 0x77,
                    2 => *placed.file.last().unwrap() + 0x10,
                    3 => placed.sources[KERNEL][1] + 0x740,
                    _ => placed.links.first().map_or(placed.kimage, |link| link + 16),
                };
                let attack = move |now, _| (now == moment).then(|| (target, vec![0xcc; 16]));
                let (moments, result) = race(&linux, &placed, attack);
                if result == 0 {
                    late += 1;
                    assert_eq!(invalidate(&linux, crash), 0);
                } else {
                    refused += 1;
                }
                placed.free(&mut linux.frames);
                moment += 1;
                if moment >= moments {
                    break;
                }
            }
        }
        println!("{refused} refused, {late} too late");
        assert!(refused >= 5 && late >= 5, "{refused} {late}");
    }
}

#[test]
fn what_is_rewritten_once_it_has_been_read_counts_as_it_was_read() {
    for crash in [false, true] {
        let mut linux = booted(Some(41));
        let placed = place(&mut linux, &image(crash));
        let attack = |_, point| match point {
            RacePoint::AfterRead { gpa, len } => Some((gpa, vec![0xff; len])),
            _ => None,
        };
        let (moments, result) = race(&linux, &placed, attack);
        assert_eq!(result, 0);
        assert!(moments > 3, "{moments}");
    }
}

#[test]
fn anything_may_change_at_any_moment() {
    let (mut accepted, mut refused) = (0, 0);
    let mut linux = booted(Some(42));
    for seed in 1..120u64 {
        let crash = seed % 2 == 1;
        let placed = place(&mut linux, &image(crash));
        let mut random = SplitMix(seed);
        let mut pages = [placed.frozen(), placed.file.clone()].concat();
        // The list's page, and the description, more often.
        pages.extend([0x100_0000; 6]);
        pages.extend([placed.kimage; 4]);
        let attack = move |_, _| {
            let page = pages[usize::try_from(random.next() % pages.len() as u64).unwrap()];
            let often = random.next().is_multiple_of(4);
            let offset = random.next() % if page == 0x100_0000 { 600 } else { 4096 };
            often.then(|| (page + offset, vec![random.next().to_le_bytes()[0]]))
        };
        let (_, result) = race(&linux, &placed, attack);
        if result == 0 {
            accepted += 1;
            assert_eq!(invalidate(&linux, crash), 0);
        } else {
            refused += 1;
        }
        placed.free(&mut linux.frames);
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0);
}
