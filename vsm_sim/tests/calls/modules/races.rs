//! A VTL0 that rewrites list, file, memory and patch sites while VTL1 validates: no unsigned byte becomes executable, or
//! read-only for it.

use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::owner::ModuleMemoryKind as Kind;
use vsm_sim::hosted::{HostedMemory, RacePoint};
use vsm_sim::hv::Partition;
use vsm_sim::random::SplitMix;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{FILE, PATCHES, Placed};

use crate::linux::Linux;
use crate::racing;

/// What the pages that must be explained hold, by page.
fn explained(memory: &HostedMemory, placed: &Placed) -> Vec<(Kind, u64, Vec<u8>)> {
    let pages = placed.memory().filter(|(kind, _)| kind.is_explained());
    pages
        .map(|(kind, page)| {
            let mut bytes = vec![0; 4096];
            bytes::read(memory, page, &mut bytes).unwrap();
            (kind, page, bytes)
        })
        .collect()
}

/// No page of the module is executable with other bytes than the signed ones.
fn assert_signed(partition: &Partition, memory: &HostedMemory, signed: &[(Kind, u64, Vec<u8>)]) {
    for (_, page, bytes) in signed {
        if partition.protection(page >> 12).contains(MapFlags::KERNEL_EXECUTE) {
            let mut now = vec![0; 4096];
            bytes::read(memory, *page, &mut now).unwrap();
            assert!(now == *bytes, "page {page:#x} is executable and not what was signed");
        }
    }
}

/// Validates while `attack` is made at each moment; how many moments there were, and the result.
fn race(
    linux: &Linux,
    placed: &Placed,
    attack: impl FnMut(usize, RacePoint) -> Option<(u64, Vec<u8>)> + Send + 'static,
) -> (usize, i64) {
    let signed = explained(linux.machine.memory(), placed);
    let during = signed.clone();
    let check = move |partition: &Partition, memory: &HostedMemory| assert_signed(partition, memory, &during);
    let (moments, result) = racing::race(linux, || linux.validate(placed), attack, check);
    assert_signed(linux.machine.partition(), linux.machine.memory(), &signed);
    if result > 0 {
        // All of it is as it was signed, and can no longer change.
        for (kind, page, bytes) in &signed {
            let mut now = vec![0; 4096];
            bytes::read(linux.machine.memory(), *page, &mut now).unwrap();
            assert!(now == *bytes, "{kind:?} at {page:#x} was accepted and is not what was signed");
        }
        linux.assert_loaded(placed, result, false);
    } else {
        linux.assert_free(&placed.memory().map(|(_, page)| page).collect::<Vec<_>>());
    }
    linux.assert_free(placed.pages(FILE));
    (moments, result)
}

#[test]
fn a_write_at_any_moment_is_refused_or_comes_too_late() {
    let kernel = MadeUpKernel::new(300).unwrap();
    for seed in [None, Some(8)] {
        let mut linux = Linux::booted(seed, &kernel.data);
        let mut outcomes = [0, 0];
        for kind in [0, 2, 4, 6, FILE, PATCHES] {
            let mut moment = 0;
            loop {
                let placed = linux.place(&kernel.first, 0x700);
                let pages = placed.pages(kind);
                let target = pages[pages.len() / 2] + 0x740;
                let attack = move |now, _| (now == moment).then(|| (target, vec![0xcc; 16]));
                let (moments, result) = race(&linux, &placed, attack);
                outcomes[usize::from(result > 0)] += 1;
                if result > 0 {
                    assert_eq!(linux.unload(result), 0);
                }
                placed.free(&mut linux.frames, |_| true);
                moment += 1;
                if moment >= moments {
                    break;
                }
            }
        }
        println!("{} refused, {} too late or without effect", outcomes[0], outcomes[1]);
        assert!(outcomes[0] > 6 && outcomes[1] > 6, "{outcomes:?}");
    }
}

#[test]
fn what_is_rewritten_once_it_has_been_read_counts_as_it_was_read() {
    let kernel = MadeUpKernel::new(300).unwrap();
    for garbage in [0, 0x30, 0xcc, 0xff] {
        let mut linux = Linux::booted(Some(9), &kernel.data);
        let placed = linux.place(&kernel.first, 0xff0);
        let attack = move |_, point| match point {
            RacePoint::AfterRead { gpa, len } => Some((gpa, vec![garbage; len])),
            _ => None,
        };
        let (moments, result) = race(&linux, &placed, attack);
        assert_eq!(result, 1, "{garbage:#x}");
        assert!(moments > 6, "{moments}");
    }
}

#[test]
fn anything_may_change_at_any_moment() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    let mut linux = Linux::booted(Some(10), &kernel.data);
    for seed in 1..150u64 {
        let placed = linux.place(&kernel.first, seed * 8);
        let mut random = SplitMix(seed);
        // The list's page as well.
        let mut pages: Vec<u64> = placed.objects.iter().flat_map(|object| object.pages.clone()).collect();
        pages.extend([0x100_0000; 8]);
        let attack = move |_, _| {
            let page = pages[usize::try_from(random.next() % pages.len() as u64).unwrap()];
            let often = random.next().is_multiple_of(12);
            let offset = if page == 0x100_0000 { random.next() % 600 } else { random.next() % 4096 };
            often.then(|| (page + offset, vec![random.next().to_le_bytes()[0]]))
        };
        let (_, result) = race(&linux, &placed, attack);
        if result > 0 {
            accepted += 1;
            assert_eq!(linux.unload(result), 0);
        } else {
            refused += 1;
        }
        placed.free(&mut linux.frames, |_| true);
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0);
}
