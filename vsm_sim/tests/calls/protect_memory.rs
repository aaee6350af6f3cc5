//! ProtectMemory over the hypervisor model: what it costs, what it leaves alone, and that it is all or nothing.

use std::collections::BTreeMap;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, MapFlags};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedMachine, RacePoint};
use vsm_sim::hv::{Access, GuestMemory, Injection, Refusal};

use crate::setup::{self, end_boot, rights_and_owners};

const MODIFY: HypercallCode = HypercallCode::MODIFY_VTL_PROTECTION_MASK;
/// Frames of the machine: 1 GiB.
const RAM: u64 = 1 << 18;
/// VTL1's frames.
const VTL1: std::ops::Range<u64> = 0x8000..0xa000;
/// Where VTL0 keeps its lists.
const LISTS: u64 = 0x3000_0000;

/// `struct heki_range`.
#[derive(Clone, Copy, Debug)]
struct Range {
    va: u64,
    pa: u64,
    epa: u64,
    attributes: u64,
}

/// A range of frames in Linux's direct map.
fn range(first: u64, end: u64, attributes: u64) -> Range {
    Range { va: 0xffff_8880_0000_0000 + (first << 12), pa: first << 12, epa: end << 12, attributes }
}

fn machine() -> HostedMachine {
    setup::machine(RAM, VTL1)
}

/// Writes list page number `index`.
fn write_page(machine: &HostedMachine, index: u64, next_pa: u64, nranges: u64, ranges: &[Range]) {
    let mut page = vec![0; 4096];
    let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, 0xffff_dead_0000_0000);
    put(8, next_pa);
    put(16, nranges);
    for (number, range) in ranges.iter().enumerate() {
        let words = [range.va, range.pa, range.epa, range.attributes];
        for (word, value) in words.into_iter().enumerate() {
            put(24 + 32 * number + 8 * word, value);
        }
    }
    machine.memory().write(LISTS + 4096 * index, &page).unwrap();
}

/// Writes a proper list of `ranges`.
fn write_list(machine: &HostedMachine, ranges: &[Range]) {
    let pages = ranges.chunks(127).count();
    for (index, part) in (1..).zip(ranges.chunks(127)) {
        let next = if index == pages { 0 } else { LISTS + 4096 * u64::try_from(index).unwrap() };
        write_page(machine, u64::try_from(index - 1).unwrap(), next, u64::try_from(part.len()).unwrap(), part);
    }
}

fn call(machine: &HostedMachine, first: u64, count: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::ProtectMemory.id(), first, count, 0)
}

/// Writes the list and makes the call.
fn protect(machine: &HostedMachine, ranges: &[Range]) -> i64 {
    write_list(machine, ranges);
    call(machine, LISTS, u64::try_from(ranges.len()).unwrap())
}

fn hypercalls(machine: &HostedMachine) -> u64 {
    machine.partition().hypercall_count(MODIFY)
}

/// Everything a call could leave behind.
fn snapshot(machine: &HostedMachine) -> (Vec<MapFlags>, Vec<FrameState>) {
    rights_and_owners(machine, RAM)
}

fn owner(machine: &HostedMachine, gfn: u64) -> (Owner, Permission) {
    machine.platform().frames().lock().get(gfn).unwrap()
}

/// Ranges of 1 to 9 frames over all of RAM, VTL1's included, of the permissions a kernel has.
fn whole_machine() -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < RAM {
        let index = u64::try_from(ranges.len()).unwrap();
        let end = (at + 1 + index * 5 % 9 + index % 4).min(RAM);
        ranges.push(range(at, end, [3, 1, 3, 5, 11, 3, 9][usize::try_from(index % 7).unwrap()]));
        at = end;
    }
    ranges
}

/// The same ranges in an order that has nothing to do with their addresses.
fn shuffled(ranges: &[Range]) -> Vec<Range> {
    let count = ranges.len();
    let stride = (count / 3..count).find(|stride| gcd(*stride, count) == 1).unwrap_or(1);
    (0..count).map(|index| ranges[index * stride % count]).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Map flags for the attributes used here (LVBS contract §5.1).
fn flags(attributes: u64) -> MapFlags {
    MapFlags::from_bits(match attributes & 7 {
        1 => 0x9,
        3 => 0xb,
        5 => 0xd,
        7 => 0xf,
        _ => panic!("attributes {attributes}"),
    })
    .unwrap()
}

#[test]
fn forty_thousand_ranges_in_any_order_protect_all_but_vtl1() {
    let ordered = whole_machine();
    assert!(ordered.len() >= 40_000, "{} ranges", ordered.len());
    let mut expected = vec![MapFlags::ALL; usize::try_from(RAM).unwrap()];
    for range in &ordered {
        for gfn in range.pa >> 12..range.epa >> 12 {
            let own = VTL1.contains(&gfn);
            expected[usize::try_from(gfn).unwrap()] = if own { MapFlags::NONE } else { flags(range.attributes) };
        }
    }
    let mut frames: BTreeMap<u32, u64> = BTreeMap::new();
    for flags in expected.iter().filter(|flags| **flags != MapFlags::NONE) {
        *frames.entry(flags.bits()).or_default() += 1;
    }
    let cost: u64 = frames.values().map(|frames| frames.div_ceil(510)).sum();
    let backwards: Vec<Range> = ordered.iter().rev().copied().collect();
    for ranges in [&ordered, &backwards, &shuffled(&ordered)] {
        let machine = machine();
        let before = hypercalls(&machine);
        assert_eq!(protect(&machine, ranges), 0);
        assert!(snapshot(&machine).0 == expected, "the hypervisor's rights are not those of the list");
        assert_eq!(hypercalls(&machine) - before, cost);
        // The same list again changes nothing, and costs nothing.
        assert_eq!(protect(&machine, ranges), 0);
        assert_eq!(hypercalls(&machine) - before, cost);
        assert_eq!(machine.partition().reports(), []);
    }
}

#[test]
fn adjacent_ranges_with_one_permission_share_hypercalls() {
    for pages in [1, 509, 510, 511, 1020, 1021, 5000] {
        let machine = machine();
        let before = hypercalls(&machine);
        let ranges: Vec<Range> = (0..pages).map(|index| range(0x1000 + index, 0x1001 + index, 1)).collect();
        assert_eq!(protect(&machine, &shuffled(&ranges)), 0);
        assert_eq!(hypercalls(&machine) - before, pages.div_ceil(510), "{pages} pages");
    }
}

/// A list of three permissions that takes several hypercalls for each but the data.
fn long_list() -> Vec<Range> {
    vec![range(0x100, 0x600, 1), range(0x600, 0x1000, 5), range(0x1000, 0x1200, 3), range(0x1200, 0x1220, 1)]
}

/// A machine with something to lose in a roll-back.
fn machine_in_use() -> HostedMachine {
    let machine = machine();
    assert_eq!(protect(&machine, &[range(0x80, 0x180, 5), range(0x700, 0x900, 1), range(0x1100, 0x1400, 1)]), 0);
    machine
}

#[test]
fn a_hypercall_that_fails_at_any_step_leaves_everything_as_it_was() {
    let machine = machine_in_use();
    let before = snapshot(&machine);
    let calls = hypercalls(&machine);
    assert_eq!(protect(&machine, &long_list()), 0);
    let steps = hypercalls(&machine) - calls;
    assert!(steps >= 8, "only {steps} steps");
    for step in 0..steps {
        for element in [0, 1, 17, 509] {
            let machine = machine_in_use();
            let status = HvStatus::INSUFFICIENT_MEMORY;
            machine.partition().inject(Injection::new(step, status).of(MODIFY).at_element(element));
            let result = protect(&machine, &long_list());
            if result == 0 && element > 1 {
                // A hypercall with fewer elements: it was carried out.
                continue;
            }
            assert_eq!(result, Errno::Eio.to_result(), "step {step}, element {element}");
            let after = snapshot(&machine);
            assert!(after.0 == before.0, "rights changed at step {step}, element {element}");
            assert_eq!(after.1, before.1, "step {step}, element {element}");
            // And nothing stands in the way of another try.
            machine.partition().clear_injections();
            assert_eq!(protect(&machine, &long_list()), 0);
        }
    }
}

#[test]
fn when_the_roll_back_fails_too_the_registry_says_what_is_true() {
    for step in 0..8 {
        let machine = machine_in_use();
        let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(100).repeated(1000);
        machine.partition().inject(failing);
        assert_eq!(protect(&machine, &long_list()), Errno::Eio.to_result());
        let (rights, intervals) = snapshot(&machine);
        for interval in &intervals {
            for gfn in interval.frames.start()..interval.frames.end().min(RAM) {
                let right = rights[usize::try_from(gfn).unwrap()];
                assert_eq!(interval.permission.map_flags(), right, "frame {gfn:#x} after step {step}");
            }
        }
        machine.partition().clear_injections();
        assert_eq!(protect(&machine, &long_list()), 0);
    }
}

#[test]
fn a_bad_list_is_refused_with_the_contracts_errno_and_changes_nothing() {
    let machine = machine();
    let good = range(0x100, 0x200, 1);
    let before = snapshot(&machine);
    let check = |what: &str, first: u64, count: u64, errno: Errno| {
        let calls = hypercalls(&machine);
        assert_eq!(call(&machine, first, count), errno.to_result(), "{what}");
        assert!(snapshot(&machine) == before, "{what} left something behind");
        assert_eq!(hypercalls(&machine), calls, "{what}");
    };
    write_list(&machine, &[good; 200]);
    check("empty", LISTS, 0, Errno::Efault);
    check("more ranges announced than there are", LISTS, 201, Errno::Efault);
    check("fewer ranges announced than there are", LISTS, 199, Errno::Efault);
    check("fewer pages announced than there are", LISTS, 127, Errno::Efault);
    check("a count beyond all reason", LISTS, 1 << 20 | 1, Errno::Efault);
    check("the largest count", LISTS, u64::MAX, Errno::Efault);
    check("misaligned first page", LISTS + 8, 200, Errno::Einval);
    check("first page beyond physical addresses", 1 << 52, 200, Errno::Efault);
    check("first page beyond RAM", RAM << 12, 200, Errno::Efault);
    check("first page in VTL1", VTL1.start << 12, 200, Errno::Eacces);
    for (what, next, errno) in [
        ("missing page", 0, Errno::Efault),
        ("misaligned page", LISTS + 4096 + 1, Errno::Einval),
        ("page beyond physical addresses", 1 << 63, Errno::Efault),
        ("page in VTL1", VTL1.start << 12, Errno::Eacces),
        ("cycle of one page", LISTS, Errno::Efault),
    ] {
        write_page(&machine, 0, next, 127, &[good; 127]);
        check(what, LISTS, 200, errno);
    }
    write_page(&machine, 0, LISTS + 4096, 1, &[good]);
    write_page(&machine, 1, LISTS, 1, &[good]);
    for count in [2, 3, 4, 5, 100, 1 << 20] {
        check("cycle of two pages", LISTS, count, Errno::Efault);
    }
    for nranges in [0, 128, u64::MAX] {
        write_page(&machine, 0, 0, nranges, &[good; 127]);
        check("number of ranges in a page", LISTS, 127, Errno::Efault);
    }
    let ranges = [
        ("not canonical", Range { va: 0x8000_0000_0000, ..good }, Errno::Efault),
        ("empty", Range { epa: good.pa, ..good }, Errno::Efault),
        ("backwards", Range { epa: good.pa - 0x1000, ..good }, Errno::Efault),
        ("overflowing", Range { pa: u64::MAX - 0xfff, epa: 0x1000, ..good }, Errno::Efault),
        ("beyond physical addresses", Range { epa: 1 << 52, ..good }, Errno::Efault),
        ("misaligned start", Range { pa: good.pa + 1, ..good }, Errno::Einval),
        ("misaligned end", Range { epa: good.epa - 1, ..good }, Errno::Einval),
        ("misaligned virtual address", Range { va: good.va + 1, ..good }, Errno::Einval),
        ("no attributes", Range { attributes: 0, ..good }, Errno::Einval),
        ("immutable nothing", Range { attributes: 8, ..good }, Errno::Einval),
        ("undefined attributes", Range { attributes: 0x11, ..good }, Errno::Einval),
        ("undefined upper attributes", Range { attributes: 1 << 63 | 1, ..good }, Errno::Einval),
    ];
    for (what, bad, errno) in ranges {
        // Last of many, so that there is something to take back.
        let mut list = vec![good; 300];
        list.push(bad);
        write_list(&machine, &list);
        check(what, LISTS, 301, errno);
    }
}

/// A real kernel's list names frames that are no RAM, in the middle of ranges that are (LVBS contract §11.1).
#[test]
fn what_the_hypervisor_refuses_keeps_nothing_else_open() {
    let holes = [0xa0..0x100, 0x2345..0x2346, RAM - 3..RAM + 200];
    for refusal in [Refusal::AtFrame, Refusal::WholeList] {
        for ranges in [
            vec![range(0, RAM + 200, 3)],
            shuffled(&(0..RAM + 200).map(|gfn| range(gfn, gfn + 1, 3)).collect::<Vec<_>>()),
        ] {
            let mut machine = machine();
            machine.keep_log();
            machine.partition().set_refusal(refusal);
            for hole in &holes {
                machine.partition().hold_frames(FrameRange::from_gfns(hole.start, hole.end).unwrap());
            }
            let before = hypercalls(&machine);
            assert_eq!(protect(&machine, &ranges), 0, "{refusal:?}");
            let rights = snapshot(&machine).0;
            for (gfn, rights) in (0..RAM).zip(rights) {
                let expected = match gfn {
                    _ if VTL1.contains(&gfn) => MapFlags::NONE,
                    _ if holes.iter().any(|hole| hole.contains(&gfn)) => MapFlags::ALL,
                    _ => flags(3),
                };
                assert_eq!(rights, expected, "{refusal:?}, frame {gfn:#x}");
            }
            let cost = hypercalls(&machine) - before;
            // Small holes frame by frame.
            assert!(cost < RAM / 510 + 300 + 3 * 50, "{refusal:?}: {cost} hypercalls");
            let lines = machine.log_lines();
            let told = "ProtectMemory: 300 frames in 3 places, the first at 0xa0000, are as they were";
            assert_eq!(lines.iter().filter(|line| line.contains(told)).count(), 1, "{lines:#?}");
            // They were named, and so do not count as frames that were not.
            assert_eq!(end_boot(&machine), 0);
            let lines = machine.log_lines();
            assert!(!lines.iter().any(|line| line.contains("named by no ProtectMemory")), "{lines:#?}");
        }
    }
}

#[test]
fn vtl1s_frames_stay_closed_whatever_the_list_says() {
    let machine = machine();
    let (start, end) = (VTL1.start, VTL1.end);
    for attributes in [1, 3, 5, 7, 9, 15] {
        for (from, to) in
            [(start, end), (start, start + 1), (end - 1, end), (start - 9, start + 9), (0, RAM), (end - 9, end + 9)]
        {
            assert_eq!(protect(&machine, &[range(from, to, attributes)]), 0);
            for gfn in VTL1 {
                assert_eq!(machine.partition().protection(gfn), MapFlags::NONE);
            }
            for gfn in [start, end - 1] {
                assert_eq!(owner(&machine, gfn).0, Owner::Vtl1);
                for access in [Access::Read, Access::Write, Access::Execute] {
                    assert!(machine.vtl0_may(0, gfn << 12, access).is_err());
                }
            }
        }
    }
}

#[test]
fn data_stays_nobodys_and_the_rest_is_the_boot_protected_kernels() {
    let machine = machine();
    assert_eq!(protect(&machine, &[range(0x100, 0x200, 5), range(0x200, 0x300, 9), range(0x300, 0x400, 3)]), 0);
    assert_eq!(owner(&machine, 0x100), (Owner::KernelText, Permission::RX));
    assert_eq!(owner(&machine, 0x200), (Owner::BootProtected, Permission::R));
    assert_eq!(owner(&machine, 0x300), (Owner::Nobody, Permission::RW));
    // VTL0 may still change its mind.
    assert_eq!(protect(&machine, &[range(0x180, 0x280, 3), range(0x300, 0x301, 1)]), 0);
    assert_eq!(owner(&machine, 0x17f), (Owner::KernelText, Permission::RX));
    assert_eq!(owner(&machine, 0x180), (Owner::Nobody, Permission::RW));
    assert_eq!(owner(&machine, 0x300), (Owner::BootProtected, Permission::R));
}

#[test]
fn after_the_end_of_boot_nothing_is_protected_any_more() {
    let machine = machine();
    assert_eq!(protect(&machine, &[range(0x100, 0x200, 5)]), 0);
    assert_eq!(end_boot(&machine), 0);
    let before = snapshot(&machine);
    assert_eq!(protect(&machine, &[range(0x100, 0x200, 7)]), Errno::Eperm.to_result());
    assert_eq!(protect(&machine, &[]), Errno::Eperm.to_result());
    assert!(snapshot(&machine) == before);
}

#[test]
fn each_byte_of_a_list_is_fetched_once() {
    let machine = machine();
    let ranges: Vec<Range> = (0..1000).map(|index| range(0x100 + 2 * index, 0x101 + 2 * index, 1)).collect();
    write_list(&machine, &ranges);
    machine.memory().count_fetches();
    assert_eq!(call(&machine, LISTS, 1000), 0);
    let fetches = machine.memory().take_fetches();
    assert_eq!(fetches.len(), 8 * 4096);
    assert!(fetches.values().all(|count| *count == 1));
}

#[test]
fn a_chain_that_comes_back_is_refused_before_a_page_is_fetched_twice() {
    for id in [VsmFunction::ProtectMemory.id(), VsmFunction::LoadKData.id()] {
        for (pages, back) in [(1, 0), (2, 0), (4, 2), (5, 1), (40, 39), (40, 7)] {
            let machine = machine();
            let before = snapshot(&machine);
            for index in 0..pages {
                let next = if index + 1 == pages { back } else { index + 1 };
                write_page(&machine, index, LISTS + 4096 * next, 1, &[range(0x100 + index, 0x101 + index, 1)]);
            }
            // The machine itself tells of a byte that is fetched twice.
            assert_eq!(
                machine.vtl_call(0, id, LISTS, 1 << 14, 0),
                Errno::Efault.to_result(),
                "{id:#x}, {pages} pages, back to {back}"
            );
            assert!(snapshot(&machine) == before);
        }
    }
}

#[test]
fn a_list_rewritten_behind_vtl1s_back_counts_as_it_was_read() {
    let machine = machine();
    write_list(&machine, &[range(0x100, 0x200, 1); 200]);
    // As soon as a page has been read, VTL0 makes it say something else, or nothing at all.
    machine.memory().set_race(Some(Box::new(|point, memory| {
        if let RacePoint::AfterRead { gpa, len } = point {
            memory.write(gpa, &vec![0xff; len]).unwrap();
        }
    })));
    assert_eq!(call(&machine, LISTS, 200), 0);
    machine.memory().set_race(None);
    assert_eq!(machine.partition().protection(0x100), MapFlags::READ_ONLY);
    assert_eq!(machine.partition().protection(0x200), MapFlags::ALL);
}
