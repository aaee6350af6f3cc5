//! What ValidateModule refuses, with which errno, and that nothing of it stays.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::owner::ModuleMemoryKind as Kind;
use vsm_sim::vtl0::kdata::{Site, patch_record};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::made_up::{MODULES, MadeUp, MadeUpKernel};
use vsm_sim::vtl0::modules::{FILE, Label, Module, PATCHES, Placed};
use vsm_sim::vtl0::signer::{Signer, appended};

use crate::linux::{Linux, RAM, VTL1};

const PAGE: u64 = 4096;
/// The length of what follows the message in a signed file.
const TRAILER: usize = 40;

/// The module must be refused with that errno, and leave nothing behind.
#[track_caller]
fn refuse(linux: &mut Linux, what: &str, module: &Module, errno: Errno) {
    let placed = linux.place(module, 0x10);
    refuse_placed(linux, what, &placed, errno);
    placed.free(&mut linux.frames, |_| true);
}

#[track_caller]
fn refuse_placed(linux: &Linux, what: &str, placed: &Placed, errno: Errno) {
    let before = linux.snapshot();
    assert_eq!(linux.validate(placed), errno.to_result(), "{what}");
    assert!(linux.snapshot() == before, "{what} left something behind");
}

#[test]
fn a_file_that_is_not_signed_as_it_must_be() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(Some(5), &kernel.data);
    let stranger = Signer::authority("a stranger").unwrap();
    let made_up = MadeUp { name: "first".into(), calls: kernel.helper.clone(), start: MODULES, text_pages: 3 };
    let unsigned = made_up.build().unwrap();
    let good = &kernel.first;
    let content = unsigned.file.len();
    let with_file = |file: Vec<u8>| Module { file, ..good.clone() };
    let flipped = |at: usize| {
        let mut file = good.file.clone();
        file[at] ^= 1;
        with_file(file)
    };
    let message = good.file[content..good.file.len() - TRAILER].to_vec();
    refuse(&mut linux, "unsigned", &unsigned, Errno::Enodata);
    refuse(&mut linux, "a stranger's", &made_up.signed(&stranger).unwrap(), Errno::Enokey);
    refuse(&mut linux, "a byte more", &with_file([&good.file[..], &[0]].concat()), Errno::Enodata);
    refuse(&mut linux, "a byte less", &with_file(good.file[..good.file.len() - 1].to_vec()), Errno::Enodata);
    refuse(&mut linux, "only the marker", &with_file(good.file[good.file.len() - 28..].to_vec()), Errno::Ebadmsg);
    refuse(&mut linux, "a byte", &with_file(vec![1]), Errno::Enodata);
    refuse(&mut linux, "half a message", &with_file(appended(&unsigned.file, &message[..50])), Errno::Ebadmsg);
    refuse(
        &mut linux,
        "signed with a byte more",
        &with_file(appended(&[&unsigned.file[..], &[0]].concat(), &message)),
        Errno::Ekeyrejected,
    );
    for at in [0, 16, 64, 5000, content / 2, content - 1] {
        refuse(&mut linux, "a changed file", &flipped(at), Errno::Ekeyrejected);
    }
    refuse(&mut linux, "a changed signature", &flipped(good.file.len() - TRAILER - 1), Errno::Ekeyrejected);
    // Another module's file, signed as well.
    refuse(&mut linux, "another file", &with_file(kernel.second.file.clone()), Errno::Einval);
    let placed = linux.place(good, 0x10);
    assert_eq!(linux.validate(&placed), 1);
}

#[test]
fn every_page_and_byte_of_text_and_read_only_data_counts() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(None, &kernel.data);
    for kind in [Kind::Text, Kind::RoData, Kind::InitText, Kind::InitRoData] {
        let length = kernel.first.parts[kind.number()].bytes.len();
        for at in (0..length).step_by(331).chain([0, 4095, length - 1]) {
            let mut module = kernel.first.clone();
            module.part_mut(kind).unwrap().bytes[at] ^= 0x10;
            refuse(&mut linux, &format!("{kind:?} changed at {at:#x}"), &module, Errno::Einval);
        }
    }
    // What VTL0 may write anyway says nothing.
    for kind in [Kind::Data, Kind::RoAfterInit, Kind::InitData] {
        let mut module = kernel.first.clone();
        module.part_mut(kind).unwrap().bytes[100] ^= 0x10;
        let placed = linux.place(&module, 0);
        let token = linux.validate(&placed);
        assert!(token > 0, "{kind:?}: {token}");
        assert_eq!(linux.unload(token), 0);
    }
}

/// The ranges with the first of a kind changed.
fn with_range_changed(placed: &Placed, kind: u64, change: impl FnOnce(&mut Range)) -> Placed {
    let mut placed = placed.clone();
    change(placed.ranges.iter_mut().find(|range| range.attributes == kind).unwrap());
    placed
}

/// The ranges without those of a kind.
fn without(placed: &Placed, kind: u64) -> Placed {
    let mut placed = placed.clone();
    placed.ranges.retain(|range| range.attributes != kind);
    placed
}

/// The ranges and another one.
fn with_another_range(placed: &Placed, range: Range) -> Placed {
    let mut placed = placed.clone();
    placed.ranges.push(range);
    placed
}

#[test]
fn ranges_that_break_a_rule() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(None, &kernel.data);
    let other = linux.place(&kernel.first, 0);
    assert_eq!(linux.validate(&other), 1);
    // Not the same module again, for its addresses are taken.
    let placed = linux.place(&kernel.second, 0);
    let range_of = |kind: u64| *placed.ranges.iter().find(|range| range.attributes == kind).unwrap();
    let text = range_of(0);
    let move_to = |pa: u64| move |range: &mut Range| (range.pa, range.epa) = (pa, pa + range.epa - range.pa);
    for kind in 0..7 {
        let gone = without(&placed, kind);
        refuse_placed(&linux, &format!("without part {kind}"), &gone, Errno::Einval);
        let short = with_range_changed(&placed, kind, |range| range.epa -= 8);
        refuse_placed(&linux, &format!("part {kind} with half a page"), &short, Errno::Einval);
        let long = with_range_changed(&placed, kind, |range| {
            (range.pa, range.epa) = (0x200_0000, 0x200_0000 + range.epa - range.pa + PAGE);
        });
        // More data than the file asks for may be tables of Linux's own.
        if ![1, 5].contains(&kind) {
            refuse_placed(&linux, &format!("part {kind} with a page more"), &long, Errno::Einval);
        }
        let much = with_range_changed(&placed, kind, |range| {
            (range.pa, range.epa) = (0x200_0000, 0x200_0000 + range.epa - range.pa + 64 * PAGE);
        });
        refuse_placed(&linux, &format!("part {kind} with 64 pages more"), &much, Errno::Einval);
        let twice = with_range_changed(&placed, kind, move_to(if kind == 2 { text.pa } else { range_of(2).pa }));
        refuse_placed(&linux, &format!("part {kind} in the frames of another"), &twice, Errno::Efault);
        let foreign = with_range_changed(&placed, kind, move_to(other.pages(0)[0] - if kind == 0 { PAGE } else { 0 }));
        refuse_placed(&linux, &format!("part {kind} in another module's frames"), &foreign, Errno::Eacces);
        let vtl1 = with_range_changed(&placed, kind, move_to((VTL1.end - 1) << 12));
        refuse_placed(&linux, &format!("part {kind} in VTL1"), &vtl1, Errno::Eacces);
        let beyond = with_range_changed(&placed, kind, move_to((RAM << 12) - if kind == 0 { PAGE } else { 0 }));
        refuse_placed(&linux, &format!("part {kind} beyond RAM"), &beyond, Errno::Eio);
        let low = with_range_changed(&placed, kind, |range| range.va = 0x40_0000 + (kind << 20));
        refuse_placed(&linux, &format!("part {kind} in user space"), &low, Errno::Einval);
        let list = with_range_changed(&placed, kind, move_to(0x100_0000));
        refuse_placed(&linux, &format!("part {kind} in the list"), &list, Errno::Efault);
        let gap = with_another_range(
            &placed,
            Range { va: range_of(kind).va + 0x10_0000, pa: 0x200_0000, epa: 0x200_1000, attributes: kind },
        );
        refuse_placed(&linux, &format!("part {kind} with a gap"), &gap, Errno::Einval);
    }
    refuse_placed(
        &linux,
        "an unknown part",
        &with_another_range(&placed, Range { attributes: 10, ..text }),
        Errno::Einval,
    );
    refuse_placed(&linux, "no ranges", &Placed::default(), Errno::Efault);
    assert_eq!(linux.validate(&placed), 2);
}

#[test]
fn a_file_that_lies_wrong() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(None, &kernel.data);
    let placed = linux.place(&kernel.first, 0x100);
    let file = *placed.ranges.iter().find(|range| range.attributes == FILE).unwrap();
    let text = placed.pages(0)[0];
    refuse_placed(&linux, "without a file", &without(&placed, FILE), Errno::Einval);
    refuse_placed(
        &linux,
        "over the text",
        &with_range_changed(&placed, FILE, |range| (range.pa, range.epa) = (text + 0x100, text + 8192)),
        Errno::Efault,
    );
    refuse_placed(
        &linux,
        "elsewhere in its page",
        &with_range_changed(&placed, FILE, |range| range.va += 8),
        Errno::Einval,
    );
    refuse_placed(
        &linux,
        "in VTL1",
        &with_range_changed(&placed, FILE, |range| {
            (range.pa, range.epa) = ((VTL1.start << 12) - 0xf00, (VTL1.start << 12) + 1);
        }),
        Errno::Eacces,
    );
    let end = RAM << 12;
    let beyond = |start: u64, bytes: u64| {
        with_range_changed(&placed, FILE, |range| (range.pa, range.epa) = (start, start + bytes))
    };
    refuse_placed(&linux, "a piece of a page beyond RAM", &beyond(end + 0x100, 0x200), Errno::Efault);
    refuse_placed(&linux, "from RAM to beyond", &beyond(end - PAGE + 0x100, 0xf00 + PAGE), Errno::Eio);
    // In two ranges that do not meet at a page's border.
    let mut split = placed.clone();
    split.ranges.retain(|range| range.attributes != FILE);
    let cut = file.pa + 0x200;
    split.ranges.push(Range { epa: cut, ..file });
    split.ranges.push(Range { va: file.va + 0x200, pa: cut, ..file });
    refuse_placed(&linux, "cut within a page", &split, Errno::Einval);
    let big = with_range_changed(&placed, FILE, |range| range.epa = range.pa + (65 << 20));
    refuse_placed(&linux, "65 MiB", &big, Errno::Einval);
    let gap =
        with_another_range(&placed, Range { va: file.va + 0x100_0000, pa: 0x5000, epa: 0x6000, attributes: FILE });
    refuse_placed(&linux, "with a gap", &gap, Errno::Einval);
    // As much as there may be, of zeros: no module, but not for its size.
    let zeros = Linux::booted(None, &kernel.data);
    let most = Range { va: 0xffff_c900_0000_0000, pa: 0x800_0000, epa: 0xc00_0000, attributes: FILE };
    let ranges = Placed { ranges: vec![most], objects: Vec::new() };
    refuse_placed(&zeros, "64 MiB of zeros", &ranges, Errno::Enodata);
    assert_eq!(linux.validate(&placed), 1);
}

/// The jump labels of a kernel's first module, which is placed.
fn jumps(kernel: &MadeUpKernel, placed: &Placed) -> Vec<Site> {
    let site = |label: &Label| {
        let mut jump = [0; 5];
        jump[..label.jump.len()].copy_from_slice(&label.jump);
        let pa = placed.physical(label.va).unwrap();
        let size = u8::try_from(label.jump.len()).unwrap();
        let next_page = if size == 5 { placed.physical((label.va | 0xfff) + 1).unwrap() } else { 0 };
        Site { pa, next_page, jump, size }
    };
    kernel.first.labels.iter().map(site).collect()
}

/// Each record is allocated by itself, so that they lie apart; each may come as whole pages with zeros behind it.
#[test]
fn records_of_patch_sites_may_have_gaps_between_them() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(Some(5), &kernel.data);
    let good = linux.place(&kernel.first, 0);
    let own = patch_record(&jumps(&kernel, &good));
    let text = good.physical(MODULES).unwrap();
    let stale = patch_record(&[Site { pa: text + 0x200, next_page: 0, jump: [0xe9, 0, 0, 0, 0], size: 5 }; 3]);
    let mut placed = without(&good, PATCHES);
    for (index, (record, bytes)) in (0..).zip([(&stale, 4096), (&own, own.len()), (&own, 4096), (&stale, stale.len())])
    {
        let mut record = record.clone();
        record.resize(bytes, 0);
        let va = 0xffff_c900_2000_0000 + 0x10_0000 * index;
        placed.put(linux.machine.memory(), &mut linux.frames, PATCHES, va, &record).unwrap();
    }
    let token = linux.validate(&placed);
    assert!(token > 0, "{token}");
    assert_eq!(linux.sites(token), kernel.first.labels.len());
}

/// Linux hands over the sites of modules that were refused before, and a module's own twice (LVBS contract §11.5): only the
/// file's own count, each once.
#[test]
fn patch_sites_that_the_file_does_not_have_are_passed_over() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(None, &kernel.data);
    let good = linux.place(&kernel.first, 0);
    let jumps = jumps(&kernel, &good);
    let (long, short) = (jumps[0], jumps[1]);
    let text = good.physical(MODULES).unwrap();
    let sent = |linux: &mut Linux, records: &[u8]| {
        let mut placed = without(&good, PATCHES);
        placed.put(linux.machine.memory(), &mut linux.frames, PATCHES, 0xffff_c900_2000_0000, records).unwrap();
        placed
    };
    for (what, sites, own) in [
        ("somewhere in the text", vec![Site { pa: text + 0x200, next_page: 0, ..long }], 0),
        ("a byte further", vec![short, Site { pa: short.pa + 1, ..short }], 1),
        ("another jump", vec![long, Site { jump: [0xeb, 2, 0, 0, 0], ..short }], 1),
        ("a longer jump", vec![Site { jump: [0xe9, 0, 0, 0, 0], size: 5, ..short }], 0),
        ("another second page", vec![Site { next_page: text + 0x2000, ..long }], 0),
        ("another second page, without owner", vec![Site { next_page: 0x5000, ..long }], 0),
        ("the kernel's text", vec![Site { pa: 0x100_0000, ..short }], 0),
        ("twice", vec![short, short], 1),
        ("twice, among others", vec![long, Site { pa: short.pa + 1, ..short }, short, long], 2),
    ] {
        let placed = sent(&mut linux, &patch_record(&sites));
        let token = linux.validate(&placed);
        assert!(token > 0, "{what}: {token}");
        assert_eq!(linux.sites(token), own, "{what}");
        assert_eq!(linux.unload(token), 0);
    }
    let placed = sent(&mut linux, &patch_record(&[Site { next_page: text, ..long }]));
    refuse_placed(&linux, "its own page as the second one", &placed, Errno::Einval);
    let mut broken = patch_record(&jumps);
    broken.truncate(80);
    let placed = sent(&mut linux, &broken);
    refuse_placed(&linux, "cut short", &placed, Errno::Einval);
    refuse_placed(
        &linux,
        "too many",
        &{
            with_range_changed(&good, PATCHES, |range| {
                (range.pa, range.epa, range.va) = (0x200_0000, 0x220_1000, 0xffff_c900_2000_0000);
            })
        },
        Errno::Einval,
    );
    refuse_placed(
        &linux,
        "in VTL1",
        &with_range_changed(&good, PATCHES, |range| {
            (range.pa, range.epa) = (VTL1.start << 12, (VTL1.start << 12) + 72);
        }),
        Errno::Eacces,
    );
    // Fewer are fine: VTL0 does not have to patch.
    for (sites, count) in [(vec![], 0), (vec![short], 1), (vec![short, long], 2)] {
        let placed = sent(&mut linux, &patch_record(&sites));
        let token = linux.validate(&placed);
        assert!(token > 0, "{count} sites: {token}");
        assert_eq!(linux.sites(token), count);
        assert_eq!(linux.unload(token), 0);
    }
    let token = linux.validate(&without(&good, PATCHES));
    assert_eq!(linux.sites(token), 0);
}
