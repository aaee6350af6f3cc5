//! Images that are not the signed kernel, and lists that name what is not theirs: refused, and nothing has changed.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use vsm_integrity::kexec::Form;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kexec::{
    COUNT, DECIDING, DESCRIPTION, FILE, HEAD, INDIRECTION, Image, KERNEL, PAGES, SEGMENT, SEGMENTS, START, Segment,
};
use vsm_sim::vtl0::lists::Range;

use super::changes::{Changes, refuse, refuse_changes};
use super::world::{PLACE, assert_accepted, booted, image, place, validate, validate_ranges};
use crate::linux::{RAM, VTL1};
use crate::setup::give_frames;

/// An image in a fresh machine, changed before it is placed.
fn refuse_image(crash: bool, what: &str, errno: Errno, change: impl Fn(&mut Image)) {
    let mut linux = booted(Some(1));
    let mut image = image(crash);
    change(&mut image);
    let placed = place(&mut linux, &image);
    refuse(&linux, &placed, errno, what);
}

#[test]
fn the_kernel_s_segment_is_the_signed_kernel() {
    let kernel = image(false).segments[KERNEL].clone();
    let last = kernel.bytes.len() - 1;
    for crash in [false, true] {
        for at in [0, 0x200, 0xfff, 0x1000, 0x2abc, last] {
            refuse_image(crash, &format!("byte {at:#x}"), Errno::Einval, |image| image.segments[KERNEL].bytes[at] ^= 1);
        }
        refuse_image(crash, "a byte less", Errno::Einval, |image| image.segments[KERNEL].bytes.truncate(last));
        refuse_image(crash, "a byte more", Errno::Einval, |image| image.segments[KERNEL].bytes.push(0));
        refuse_image(crash, "no kernel", Errno::Einval, |image| drop(image.segments.remove(KERNEL)));
        refuse_image(crash, "too little memory", Errno::Einval, |image| image.segments[KERNEL].size -= 0x1000);
        refuse_image(crash, "entered in the kernel", Errno::Einval, |image| {
            image.start = image.segments[KERNEL].start + 0x200;
        });
        refuse_image(crash, "entered nowhere", Errno::Einval, |image| image.start = image.end());
        refuse_image(crash, "two kernels", Errno::Einval, |image| {
            let twin = Segment { start: image.end(), ..image.segments[KERNEL].clone() };
            image.segments.push(twin);
        });
        // Bytes behind the kernel, which the description does not count.
        for at in [0x4000, 0x4fff, kernel.size - 1] {
            let mut linux = booted(Some(1));
            let image = image(crash);
            let placed = place(&mut linux, &image);
            let page = placed.sources[KERNEL][usize::try_from(at / 4096).unwrap()] + at % 4096;
            bytes::write(linux.machine.memory(), page, &[1]).unwrap();
            refuse(&linux, &placed, Errno::Einval, &format!("byte {at:#x} of the kernel's memory"));
            bytes::write(linux.machine.memory(), page, &[0]).unwrap();
            assert_eq!(validate(&linux, &placed), 0);
        }
        // What cannot be compared is taken as it is.
        let mut linux = booted(Some(1));
        let mut other = image(crash);
        other.segments[1].bytes.extend(b" init=/bin/sh");
        (other.segments[3].bytes, other.segments[3].size) = (vec![0x55; 0x6001], 0x7000);
        let placed = place(&mut linux, &other);
        assert_eq!(validate(&linux, &placed), 0);
        assert_accepted(&linux, &placed);
        // A twin by size only is not in the way.
        let mut linux = booted(Some(1));
        let mut other = image(crash);
        let twin = Segment { bytes: vec![7; kernel.bytes.len()], start: other.end(), size: kernel.size };
        other.segments.insert(0, twin);
        let placed = place(&mut linux, &other);
        assert_eq!(validate(&linux, &placed), 0);
    }
}

#[test]
fn segments_go_to_nobody_s_memory_only() {
    let owners = [
        (Owner::KernelText, Permission::RX),
        (Owner::BootProtected, Permission::R),
        (Owner::Module { token: Token::new(9).unwrap(), kind: ModuleMemoryKind::Text }, Permission::RX),
        (Owner::Module { token: Token::new(9).unwrap(), kind: ModuleMemoryKind::Data }, Permission::RW),
        (Owner::RingBuffer, Permission::R),
        (Owner::Trampoline, Permission::R),
    ];
    for crash in [false, true] {
        for (owner, permission) in owners
            .into_iter()
            .chain([(Owner::Kexec { crash: !crash }, Permission::R), (Owner::Kexec { crash }, Permission::R)])
        {
            // Each segment, at its first and at its last page.
            for segment in [1, KERNEL] {
                for last in [false, true] {
                    let mut linux = booted(Some(2));
                    let image = image(crash);
                    let placed = place(&mut linux, &image);
                    let segment = &image.segments[segment];
                    let gfn = if last { (segment.start + segment.size) / 4096 - 1 } else { segment.start / 4096 };
                    give_frames(&linux.machine, gfn..gfn + 1, owner, permission);
                    if owner == (Owner::Kexec { crash }) {
                        assert_eq!(validate(&linux, &placed), 0, "its own");
                        continue;
                    }
                    refuse(&linux, &placed, Errno::Eacces, &format!("a segment over {owner}, crash {crash}"));
                }
            }
        }
        for (start, errno) in [
            (VTL1.start << 12, Errno::Eacces),
            ((VTL1.end - 1) << 12, Errno::Eacces),
            ((VTL1.start << 12) - 0x1000, Errno::Eacces),
            (1 << 52, Errno::Einval),
            ((1 << 52) - 0x1000, Errno::Einval),
            (!0xfff, Errno::Einval),
            (PLACE + 8, Errno::Einval),
        ] {
            for segment in 0..4u64 {
                let mut linux = booted(Some(2));
                let placed = place(&mut linux, &image(crash));
                let at = placed.kimage + SEGMENTS + segment * SEGMENT + 16;
                bytes::write_u64(linux.machine.memory(), at, start).unwrap();
                if segment == 0 {
                    bytes::write_u64(linux.machine.memory(), placed.kimage + START, start).unwrap();
                }
                refuse(&linux, &placed, errno, &format!("segment {segment} at {start:#x}, crash {crash}"));
            }
        }
    }
}

/// VTL0 takes VTL1's region for RAM and may put its next kernel there: the log names the cure.
#[test]
fn a_segment_in_vtl1_s_region_is_told_with_its_cure() {
    for crash in [false, true] {
        let mut linux = booted(Some(2));
        linux.machine.keep_log();
        let placed = place(&mut linux, &image(crash));
        let at = placed.kimage + SEGMENTS + u64::try_from(KERNEL).unwrap() * SEGMENT + 16;
        bytes::write_u64(linux.machine.memory(), at, VTL1.start << 12).unwrap();
        refuse(&linux, &placed, Errno::Eacces, "over VTL1");
        let lines = linux.machine.log_lines();
        let cure = |line: &&String| line.contains("where VTL1 is") && line.contains("boot with securekernel=SIZE@ADDR");
        assert_eq!(lines.iter().filter(cure).count(), 1, "{lines:#?}");
    }
}

#[test]
fn a_list_names_nobody_s_frames_only() {
    for crash in [false, true] {
        let owners = [
            (Owner::KernelText, Permission::RX),
            (Owner::BootProtected, Permission::RW),
            (Owner::Module { token: Token::new(9).unwrap(), kind: ModuleMemoryKind::Data }, Permission::RW),
            (Owner::RingBuffer, Permission::R),
            (Owner::Trampoline, Permission::R),
            (Owner::Kexec { crash: !crash }, Permission::R),
        ];
        for (owner, permission) in owners {
            for kind in [DESCRIPTION, FILE, PAGES] {
                let mut linux = booted(Some(2));
                let placed = place(&mut linux, &image(crash));
                let page = match kind {
                    DESCRIPTION => placed.kimage,
                    FILE => placed.file[1],
                    _ => placed.control[0],
                };
                give_frames(&linux.machine, page / 4096..page / 4096 + 1, owner, permission);
                refuse(&linux, &placed, Errno::Eacces, &format!("{kind} in a frame of {owner}, crash {crash}"));
            }
        }
        for kind in [DESCRIPTION, FILE, PAGES] {
            for (first, errno) in
                [(VTL1.start, Errno::Eacces), (VTL1.end - 1, Errno::Eacces), (RAM, Errno::Eio), (1 << 30, Errno::Eio)]
            {
                let mut linux = booted(Some(2));
                let mut placed = place(&mut linux, &image(crash));
                let range = placed.ranges.iter_mut().find(|range| range.attributes == kind).unwrap();
                let size = range.epa - range.pa;
                (range.pa, range.epa) = (first << 12, (first << 12) + size);
                refuse(&linux, &placed, errno, &format!("{kind} at frame {first:#x}, crash {crash}"));
            }
        }
    }
}

#[test]
fn descriptions_and_lists_of_them() {
    let changes: &Changes = &[
        ("17 segments", Errno::Einval, |change| change.put(change.placed.kimage + COUNT, 17)),
        ("no segment", Errno::Einval, |change| change.put(change.placed.kimage + COUNT, 0)),
        ("very many segments", Errno::Einval, |change| change.put(change.placed.kimage + COUNT, u64::MAX)),
        ("a short description", Errno::Einval, |change| change.range(DESCRIPTION).epa -= 0x380 - 583),
        ("a description of a byte", Errno::Einval, |change| change.range(DESCRIPTION).epa -= 0x37f),
        ("a description in the middle of a page", Errno::Einval, |change| change.range(DESCRIPTION).pa += 8),
        ("a description of two pages", Errno::Einval, |change| change.range(DESCRIPTION).epa += 0x1000),
        ("two descriptions", Errno::Einval, |change| {
            let range = *change.range(DESCRIPTION);
            let pa = change.linux.frames.take().unwrap();
            change.another(Range { va: range.va + 0x380, pa, epa: pa + 0x380, ..range });
        }),
        ("no description", Errno::Einval, |change| {
            change.placed.ranges.retain(|range| range.attributes != DESCRIPTION);
        }),
        ("no file", Errno::Einval, |change| change.placed.ranges.retain(|range| range.attributes != FILE)),
        ("an unknown kind", Errno::Einval, |change| change.range(PAGES).attributes = 3),
        ("a description that is also among the pages", Errno::Efault, |change| {
            let range = *change.range(DESCRIPTION);
            change.another(Range { epa: range.pa + 0x1000, attributes: PAGES, ..range });
        }),
        ("the file's first page among the pages", Errno::Efault, |change| {
            let page = change.placed.file[0];
            change.another(Range::direct(page, page + 0x1000, PAGES));
        }),
        ("the file's last page among the pages", Errno::Efault, |change| {
            let page = *change.placed.file.last().unwrap();
            change.another(Range::direct(page, page + 0x1000, PAGES));
        }),
        ("the list among the pages", Errno::Efault, |change| {
            change.another(Range::direct(0x100_0000, 0x100_1000, PAGES));
        }),
        ("a part of a page", Errno::Einval, |change| change.range(PAGES).epa -= 1),
        ("segments that overlap", Errno::Einval, |change| {
            let first = change.placed.kimage + SEGMENTS + 16;
            change.put(first + SEGMENT, change.get(first));
        }),
        ("a segment of no pages", Errno::Einval, |change| change.put(change.placed.kimage + SEGMENTS + 24, 0)),
        ("a segment of all memory", Errno::Einval, |change| change.put(change.placed.kimage + SEGMENTS + 24, !0xfff)),
        ("a segment with more bytes than memory", Errno::Einval, |change| {
            change.put(change.placed.kimage + SEGMENTS + 8, 0x5001);
        }),
    ];
    refuse_changes(false, changes);
    refuse_changes(true, changes);
    refuse_changes(
        true,
        &[
            ("a page list", Errno::Einval, |change| {
                change.put(change.placed.kimage + HEAD, change.placed.control[0] | INDIRECTION);
            }),
            ("no end", Errno::Einval, |change| change.put(change.placed.kimage + HEAD, 0)),
            ("a description in a segment", Errno::Efault, |change| {
                let (memory, page) = (change.linux.machine.memory(), change.image.segments[3].start);
                let mut description = [0; 0x380];
                bytes::read(memory, change.placed.kimage, &mut description).unwrap();
                bytes::write(memory, page, &description).unwrap();
                change.placed.ranges = change.placed.ranges_without_segments();
                *change.range(DESCRIPTION) = Range::direct(page, page + 0x380, DESCRIPTION);
            }),
        ],
    );
}

/// Neither form: the word that tells them apart is no number of segments and no pointer. Nor is one form taken for the other.
#[test]
fn a_description_of_neither_form() {
    for crash in [false, true] {
        for (form, word) in [
            (Form::WithPointer, 17),
            (Form::WithPointer, 0x7fff_ffff_f000),
            (Form::WithPointer, 1 << 47),
            (Form::WithoutPointer, 17),
            (Form::WithoutPointer, u64::MAX >> 17),
        ] {
            let mut linux = booted(Some(3));
            linux.machine.keep_log();
            let placed = place(&mut linux, &Image { form, ..image(crash) });
            bytes::write_u64(linux.machine.memory(), placed.kimage + DECIDING, word).unwrap();
            refuse(&linux, &placed, Errno::Einval, &format!("{form} with {word:#x}, crash {crash}"));
            let log = linux.machine.log_lines();
            assert!(log.iter().any(|line| line.contains("an image of neither known form")), "{log:#?}");
        }
        for (form, word) in [(Form::WithPointer, 4), (Form::WithoutPointer, 0), (Form::WithoutPointer, u64::MAX << 12)]
        {
            let mut linux = booted(Some(3));
            let placed = place(&mut linux, &Image { form, ..image(crash) });
            bytes::write_u64(linux.machine.memory(), placed.kimage + DECIDING, word).unwrap();
            refuse(&linux, &placed, Errno::Einval, &format!("{form} as the other with {word:#x}, crash {crash}"));
        }
    }
}

#[test]
fn parameters() {
    let mut linux = booted(None);
    let placed = place(&mut linux, &image(false));
    let before = linux.snapshot();
    let call = |registers: [u64; 3]| {
        let [a1, a2, a3] = registers;
        linux.machine.vtl_call(0, litebox_platform_lvbs::vsm::VsmFunction::KexecValidate.id(), a1, a2, a3)
    };
    for (registers, errno) in [
        ([0, 1, 0], Errno::Einval),
        ([0, 0, 2], Errno::Einval),
        ([0, 0, 1 << 63], Errno::Einval),
        ([0x100_0000, 0, 0], Errno::Efault),
        ([0x100_0001, 1, 0], Errno::Einval),
        ([VTL1.start << 12, 1, 0], Errno::Eacces),
    ] {
        assert_eq!(call(registers), errno.to_result(), "{registers:x?}");
        assert!(linux.snapshot() == before);
    }
    // The normal image is no crash image: it has a page list.
    assert_eq!(validate_ranges(&linux, &placed.ranges, true), Errno::Einval.to_result());
    assert!(linux.snapshot() == before);
}
