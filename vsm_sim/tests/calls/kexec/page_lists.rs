//! Page lists that Linux would not have written, or of pages that VTL1 does not know.

use litebox_platform_lvbs::Errno;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kexec::{COUNT, DESTINATION, DONE, HEAD, INDIRECTION, KERNEL, PAGES, SOURCE, Segment};
use vsm_sim::vtl0::lists::Range;

use super::changes::{Changes, refuse, refuse_changes};
use super::world::{PLACE, booted, image, place, validate};
use crate::linux::VTL1;

#[test]
fn page_lists() {
    let changes: &Changes = &[
        ("no page list", Errno::Einval, |change| change.put(change.placed.kimage + HEAD, DONE)),
        ("a segment less", Errno::Einval, |change| change.put(change.placed.kimage + COUNT, 3)),
        ("a head of nothing", Errno::Einval, |change| change.put(change.placed.kimage + HEAD, 0)),
        ("a head that is a source", Errno::Einval, |change| {
            change.put(change.placed.kimage + HEAD, change.placed.sources[0][0] | SOURCE);
        }),
        ("a head that is a destination", Errno::Einval, |change| {
            change.put(change.placed.kimage + HEAD, PLACE | DESTINATION);
        }),
        ("a link to itself at once", Errno::Einval, |change| {
            change.put(change.placed.links[0], change.placed.links[0] | INDIRECTION);
        }),
        ("a link to itself after some entries", Errno::Einval, |change| {
            change.put(change.placed.links[0] + 0x40, change.placed.links[0] | INDIRECTION);
        }),
        ("a link to itself between two segments", Errno::Einval, |change| {
            change.put(change.placed.links[0] + 6 * 8, change.placed.links[0] | INDIRECTION);
        }),
        ("two pages that link to each other", Errno::Einval, |change| {
            let [one, other] = [change.placed.links[0], change.placed.control[1]];
            change.put(one + 8, other | INDIRECTION);
            change.put(other, change.placed.sources[0][1] | SOURCE);
            change.put(other + 8, one | INDIRECTION);
        }),
        ("a link to a page that is not on the list", Errno::Einval, |change| {
            let page = change.linux.frames.take().unwrap();
            change.put(change.placed.links[0] + 8, page | INDIRECTION);
        }),
        ("a link to VTL1", Errno::Einval, |change| {
            change.put(change.placed.links[0] + 8, VTL1.start << 12 | INDIRECTION);
        }),
        ("a source that is not on the list", Errno::Einval, |change| {
            let page = change.linux.frames.take().unwrap();
            change.put(change.placed.links[0] + 8, page | SOURCE);
        }),
        ("a source in VTL1", Errno::Einval, |change| change.put(change.placed.links[0] + 8, VTL1.start << 12 | SOURCE)),
        ("a source beyond 2^52", Errno::Einval, |change| change.put(change.placed.links[0] + 8, 1 << 52 | SOURCE)),
        ("a source twice", Errno::Einval, |change| {
            change.placed.sources[0][3] = change.placed.sources[0][1];
            change.entries(|_| ());
        }),
        ("a source of two segments", Errno::Einval, |change| {
            change.placed.sources[3][1] = change.placed.sources[KERNEL][1];
            change.entries(|_| ());
        }),
        ("a page of the page list as a source", Errno::Einval, |change| {
            change.put(change.placed.links[0] + 8, change.placed.links[0] | SOURCE);
        }),
        ("a source where another page goes", Errno::Einval, |change| {
            change.placed.sources[3][1] = change.image.segments[KERNEL].start;
            change.entries(|_| ());
        }),
        ("the kernel's source where another page goes", Errno::Einval, |change| {
            let page = change.image.segments[0].start;
            let mut content = [0; 4096];
            bytes::read(change.linux.machine.memory(), change.placed.sources[KERNEL][1], &mut content).unwrap();
            bytes::write(change.linux.machine.memory(), page, &content).unwrap();
            change.placed.sources[KERNEL][1] = page;
            change.entries(|_| ());
        }),
        ("a page of the page list where a segment goes", Errno::Einval, |change| {
            let (old, new) = (change.placed.links[0], change.image.segments[1].start);
            let mut content = [0; 4096];
            bytes::read(change.linux.machine.memory(), old, &mut content).unwrap();
            bytes::write(change.linux.machine.memory(), new, &content).unwrap();
            change.placed.links[0] = new;
            change.image.describe(change.linux.machine.memory(), change.placed).unwrap();
            change.placed.list();
        }),
    ];
    refuse_changes(false, changes);
}

/// A swap page there would be written while Linux copies, whatever the page list says.
#[test]
fn a_page_of_the_list_where_a_segment_goes_is_its_own_source() {
    let changes: &Changes = &[
        ("another page in the kernel", Errno::Einval, |change| {
            let page = change.image.segments[KERNEL].start + 0x1000;
            change.another(Range::direct(page, page + 0x1000, PAGES));
        }),
        ("another page at the end of a segment", Errno::Einval, |change| {
            let page = change.image.end() - 0x1000;
            change.another(Range::direct(page, page + 0x1000, PAGES));
        }),
        ("a run of pages over two segments", Errno::Einval, |change| {
            let page = change.image.segments[KERNEL].start;
            change.another(Range::direct(page - 0x1000, page + 0x1000, PAGES));
        }),
        ("a source that is in its place, and another page", Errno::Einval, |change| {
            let (from, to) = (change.placed.sources[KERNEL][1], change.image.segments[KERNEL].start + 0x1000);
            let mut content = [0; 4096];
            bytes::read(change.linux.machine.memory(), from, &mut content).unwrap();
            bytes::write(change.linux.machine.memory(), to, &content).unwrap();
            change.placed.sources[KERNEL][1] = to;
            change.entries(|_| ());
            change.another(Range::direct(to + 0x1000, to + 0x2000, PAGES));
        }),
    ];
    refuse_changes(false, changes);
    // Right beside the segments it is fine.
    let mut linux = booted(Some(3));
    let image = image(false);
    let mut placed = place(&mut linux, &image);
    for page in [image.segments[0].start - 0x1000, image.end()] {
        placed.ranges.push(Range::direct(page, page + 0x1000, PAGES));
    }
    assert_eq!(validate(&linux, &placed), 0);
}

#[test]
fn page_lists_with_other_entries() {
    let changes: &Changes = &[
        ("an entry less", Errno::Einval, |change| change.entries(|entries| _ = entries.remove(2))),
        ("an entry more", Errno::Einval, |change| {
            let page = change.placed.control[3];
            change.entries(|entries| entries.insert(2, page | SOURCE));
        }),
        ("the segments in another order", Errno::Einval, |change| change.entries(|entries| entries.rotate_left(6))),
        ("another destination", Errno::Einval, |change| change.entries(|entries| entries[0] += 0x1000)),
        ("a segment put over the kernel in the end", Errno::Einval, |change| {
            let (kernel, page) = (change.image.segments[KERNEL].start, change.placed.control[2]);
            change.entries(|entries| {
                let end = entries.len() - 1;
                entries.splice(end..end, [kernel | DESTINATION, page | SOURCE]);
            });
        }),
        ("the end too early", Errno::Einval, |change| change.entries(|entries| entries[3] = DONE)),
        ("no end", Errno::Einval, |change| change.entries(|entries| _ = entries.pop())),
        ("an end with an address", Errno::Einval, |change| {
            change.entries(|entries| *entries.last_mut().unwrap() |= 0x1000);
        }),
        ("a source that is an end too", Errno::Einval, |change| change.entries(|entries| entries[2] |= DONE)),
        ("unknown flags", Errno::Einval, |change| change.entries(|entries| entries[2] |= 0x10)),
    ];
    refuse_changes(false, changes);
    // A page of entries up to its very end that goes nowhere.
    let mut linux = booted(Some(4));
    let mut long = image(false);
    let start = long.end();
    long.segments.push(Segment { bytes: vec![9], start, size: 600 << 12 });
    let placed = place(&mut linux, &long);
    assert_eq!(placed.links.len(), 2);
    let last = placed.links[0] + 511 * 8;
    bytes::write_u64(linux.machine.memory(), last, placed.sources[4][400] | SOURCE).unwrap();
    refuse(&linux, &placed, Errno::Einval, "a page without link or end");
    bytes::write_u64(linux.machine.memory(), last, placed.links[1] | INDIRECTION).unwrap();
    assert_eq!(validate(&linux, &placed), 0);
}
