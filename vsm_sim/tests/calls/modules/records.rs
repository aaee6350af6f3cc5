//! The records of patch sites as a real kernel hands them over: those of modules that were refused as well, wherever their
//! pages lie (LVBS contract §11.5).

use litebox_platform_lvbs::Errno;
use vsm_sim::vtl0::kdata::{Site, patch_record};
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::modules::{Frames, Module, PATCHES};
use vsm_sim::vtl0::records::Records;

use crate::linux::Linux;

/// Where the `struct module`s are.
const HOME: u64 = 0xffff_ffff_c000_5000;
/// Frames of which some are neighbours.
const PAGES: u64 = 0x300_0000;

#[test]
fn a_module_comes_with_the_records_of_those_that_were_refused_in_its_place() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut changed = kernel.first.clone();
    changed.file[0x100] ^= 1;
    let unsigned =
        Module { file: kernel.second.file[..kernel.second.file.len() - 40].to_vec(), ..kernel.second.clone() };
    for seed in [None, Some(1), Some(7)] {
        let mut linux = Linux::booted(seed, &kernel.data);
        let mut records = Records::default();
        for (module, errno) in [(&unsigned, Errno::Enodata), (&changed, Errno::Ekeyrejected)] {
            let memory = linux.machine.memory();
            let refused = records.place(module, memory, &mut linux.frames, (HOME, 0)).unwrap();
            let before = linux.snapshot();
            assert_eq!(linux.validate(&refused), errno.to_result());
            assert!(linux.snapshot() == before);
            refused.free(&mut linux.frames, |kind| kind != PATCHES);
        }
        let placed = records.place(&kernel.first, linux.machine.memory(), &mut linux.frames, (HOME, 0)).unwrap();
        assert_eq!(placed.objects.iter().filter(|object| object.kind == PATCHES).count(), 3);
        let token = linux.validate(&placed);
        assert!(token > 0, "{token}");
        linux.assert_loaded(&placed, token, false);
        assert_eq!(linux.sites(token), kernel.first.labels.len());
    }
}

/// A range of the driver's may hold the end of one record and the beginning of the next, with zeros between them, and says
/// the virtual address of the former alone.
#[test]
fn records_are_found_however_their_pages_lie() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(Some(5), &kernel.data);
    let good = linux.place(&kernel.first, 0);
    let stale = |count: u64| {
        let site = |index| Site { pa: 0x200_0000 + 0x100 * index, next_page: 0, jump: [0xe9, 0, 0, 0, 0], size: 5 };
        patch_record(&(0..count).map(site).collect::<Vec<_>>())
    };
    let own = patch_record(&good.sites(&kernel.first).unwrap());
    // Less than a page, nearly one, two, and three of which no byte is left.
    let others = [3, 167, 168, 200, 510].map(stale);
    assert_eq!(others[4].len() % 4096, 0);
    let page = |index: u64| PAGES + 0x1000 * index;
    // All neighbours; each for itself; and the first page of the second record behind the first record.
    let mut split = Frames::consecutive(page(0), page(4));
    split.give(&[page(8), page(6), page(10), page(12), page(5)]);
    let memories = [Frames::consecutive(PAGES, page(16)), Frames::scattered(PAGES, page(16), 3), split];
    for (first, second) in others.iter().flat_map(|first| others.iter().map(move |second| (first, second))) {
        for (memory, frames) in memories.iter().enumerate() {
            for (whole_pages, ascending) in [(false, false), (false, true), (true, false), (true, true)] {
                for order in [[first, &own, second], [first, second, &own]] {
                    let mut placed = good.clone();
                    placed.ranges.retain(|range| range.attributes != PATCHES);
                    let mut frames = frames.clone();
                    for (number, record) in (1..).zip(order) {
                        let mut record = record.clone();
                        if whole_pages {
                            record.resize(record.len().next_multiple_of(4096), 0);
                        }
                        let va = 0xffff_c900_2000_0000 + 0x10_0000 * if ascending { number } else { 4 - number };
                        placed.put(linux.machine.memory(), &mut frames, PATCHES, va, &record).unwrap();
                    }
                    let token = linux.validate(&placed);
                    let sizes = order.map(Vec::len);
                    assert!(token > 0, "{sizes:?}, memory {memory}, {whole_pages}, {ascending}: {token}");
                    assert_eq!(linux.sites(token), kernel.first.labels.len());
                    assert_eq!(linux.unload(token), 0);
                }
            }
        }
    }
}
