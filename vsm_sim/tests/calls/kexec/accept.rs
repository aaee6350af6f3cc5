//! Images that are what was signed, in both slots, and what becomes of them.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vtl0::KexecSlot;
use vsm_integrity::kexec::Form;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::kexec::Image;

use super::world::{
    PLACE, SIGNED, assert_accepted, assert_free, booted, image, invalidate, place, trusting, validate, validate_ranges,
};
use crate::linux::Linux;

#[test]
fn an_image_is_frozen_until_it_is_forgotten() {
    let forms = [Form::WithPointer, Form::WithoutPointer];
    for (seed, form) in [None, Some(3)].into_iter().flat_map(|seed| forms.map(|form| (seed, form))) {
        for crash in [false, true] {
            let mut linux = booted(seed);
            linux.machine.keep_log();
            let before = linux.snapshot();
            let placed = place(&mut linux, &Image { form, ..image(crash) });
            // As kexec_file_load begins.
            assert_eq!(invalidate(&linux, crash), 0);
            assert!(linux.snapshot() == before);
            assert_eq!(validate(&linux, &placed), 0, "crash {crash}, {seed:?}, {form}");
            let said = format!(" is described as by {form}");
            assert!(linux.machine.log_lines().iter().any(|line| line.ends_with(&said)), "{form}");
            assert_accepted(&linux, &placed);
            let slot = if crash { KexecSlot::Crash } else { KexecSlot::Normal };
            let kept = linux.machine.platform().vtl0().kexec().lock().get(slot).unwrap();
            assert_eq!((kept.frames, kept.segments), (placed.frozen().len() as u64, 4));
            assert_eq!(kept.kernel.start() << 12, image(crash).segments[2].start);
            assert_eq!(invalidate(&linux, !crash), 0);
            assert_accepted(&linux, &placed);
            assert_eq!(invalidate(&linux, crash), 0);
            assert_free(&linux, &placed);
            assert!(linux.snapshot() == before);
        }
    }
}

#[test]
fn the_slots_are_apart_and_a_slot_is_taken_over() {
    let mut linux = booted(Some(4));
    let normal = place(&mut linux, &image(false));
    let crash = place(&mut linux, &image(true));
    assert_eq!((validate(&linux, &normal), validate(&linux, &crash)), (0, 0));
    assert_accepted(&linux, &normal);
    assert_accepted(&linux, &crash);
    // The other slot's pages, and its memory, are not for this one.
    let before = linux.snapshot();
    assert_eq!(validate_ranges(&linux, &normal.ranges, true), Errno::Eacces.to_result());
    let over = Image::new(&SIGNED.file, PLACE + 0x100_3000, false).unwrap();
    let over = place(&mut linux, &over);
    assert_eq!(validate(&linux, &over), Errno::Eacces.to_result());
    assert!(linux.snapshot() == before);
    // The same once more: nothing changes.
    assert_eq!((validate(&linux, &normal), validate(&linux, &crash)), (0, 0));
    assert!(linux.snapshot() == before);
    // Another one in its place: some pages are in both.
    let mut next = place(&mut linux, &image(false));
    linux.frames.give(&next.control);
    next.control.clone_from(&normal.control);
    next.list();
    assert_eq!(validate(&linux, &next), 0);
    assert_accepted(&linux, &next);
    assert_accepted(&linux, &crash);
    linux.assert_free(&normal.sources.concat());
    linux.assert_free(&normal.links);
    // One that is refused does not take the place.
    let before = linux.snapshot();
    let mut forged = image(false);
    forged.segments[2].bytes[0x300] ^= 1;
    let forged = place(&mut linux, &forged);
    assert_eq!(validate(&linux, &forged), Errno::Einval.to_result());
    assert!(linux.snapshot() == before);
    assert_eq!((invalidate(&linux, false), invalidate(&linux, true)), (0, 0));
    for placed in [&normal, &crash, &next, &forged] {
        assert_free(&linux, placed);
    }
}

#[test]
fn lists_of_either_kind_of_driver() {
    let mut linux = booted(Some(5));
    let placed = place(&mut linux, &image(true));
    assert_eq!(validate_ranges(&linux, &placed.ranges_without_segments(), true), 0);
    assert_accepted(&linux, &placed);
    assert_eq!(validate(&linux, &placed), 0);
    assert_accepted(&linux, &placed);
    // The whole page of the description.
    let mut ranges = placed.ranges.clone();
    ranges[0].epa = ranges[0].pa + 0x1000;
    assert_eq!((ranges[0].attributes, validate_ranges(&linux, &ranges, true)), (0, 0));
    assert_accepted(&linux, &placed);
    // Without control pages, as real kernels list a crash image (LVBS contract §11.8).
    assert_eq!(invalidate(&linux, true), 0);
    let mut bare = placed.clone();
    bare.control.clear();
    bare.list();
    assert_eq!(validate(&linux, &bare), 0);
    assert_accepted(&linux, &bare);
    // Pages that are named twice, in an unlikely order, by the driver's odd virtual addresses.
    assert_eq!(invalidate(&linux, true), 0);
    let mut ranges = placed.ranges.clone();
    let again: Vec<_> = ranges.iter().filter(|range| range.attributes == 2).rev().copied().collect();
    ranges.extend(again);
    for range in ranges.iter_mut().filter(|range| range.attributes == 2) {
        range.va = 0xffff_8880_1234_5000;
    }
    assert_eq!(validate_ranges(&linux, &ranges, true), 0);
    assert_accepted(&linux, &placed);
}

#[test]
fn kernels_of_many_sizes_and_page_lists_of_several_pages() {
    let signer = &SIGNED.signer;
    for size in [0x201, 0xff8, 0x1000, 0x1008, 0x20_0000, 0x3f_f000] {
        let file = authenticode::sign(&authenticode::made_up(size, 7), signer).unwrap();
        for crash in [false, true] {
            let mut linux = Linux::booted(Some(6), &trusting(signer.certificate()));
            let image = Image::new(&file, PLACE, crash).unwrap();
            let placed = place(&mut linux, &image);
            assert_eq!(validate(&linux, &placed), 0, "{size:#x}");
            assert_accepted(&linux, &placed);
            assert!(crash || size < 0x10_0000 || placed.links.len() > 1);
        }
    }
}

#[test]
fn a_source_may_be_where_it_goes() {
    let mut linux = booted(Some(8));
    let image = image(false);
    let mut placed = place(&mut linux, &image);
    // As Linux has it when a page that it got is the right one already.
    let (from, to) = (placed.sources[2][1], image.segments[2].start + 0x1000);
    let mut page = [0; 4096];
    vsm_sim::vtl0::bytes::read(linux.machine.memory(), from, &mut page).unwrap();
    vsm_sim::vtl0::bytes::write(linux.machine.memory(), to, &page).unwrap();
    placed.sources[2][1] = to;
    let entries = image.entries(&placed.sources);
    placed.write_entries(linux.machine.memory(), &mut linux.frames, &entries).unwrap();
    image.describe(linux.machine.memory(), &placed).unwrap();
    placed.list();
    assert_eq!(validate(&linux, &placed), 0);
    assert_accepted(&linux, &placed);
}
