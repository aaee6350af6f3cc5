//! LoadKData: all seven kinds, all or nothing, once.

use std::sync::Barrier;

use super::{OBJECTS, VTL1, load, machine, small, snapshot, write};
use crate::setup::{end_boot, list};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, MapFlags};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_handlers::{GATE, VSM_TABLE, dispatch};
use vsm_sim::hosted::{HostedMachine, RacePoint};
use vsm_sim::hv::{GuestMemory, Injection};
use vsm_sim::vtl0::kdata::{Export, KernelData, backwards, blocklist, consecutive, der, kind, patch_record};
use vsm_sim::vtl0::lists::{Filling, List, Range, Scratch, write_list, write_list_filled};

const MODIFY: HypercallCode = HypercallCode::MODIFY_VTL_PROTECTION_MASK;

/// The symbols VTL1 has, in the order of `Export`.
fn symbols(machine: &HostedMachine) -> Vec<Export> {
    let data = machine.platform().vtl0().kernel_data().unwrap();
    let symbol = |symbol: litebox_platform_lvbs::vtl0::Symbol<'_>| Export {
        name: symbol.name.to_owned(),
        value: symbol.value,
        gpl: symbol.gpl,
    };
    data.symbols.iter().map(symbol).collect()
}

/// Checks that VTL1 has all of `kernel`.
fn assert_loaded(machine: &HostedMachine, kernel: &KernelData, exports: &[Export]) {
    let data = machine.platform().vtl0().kernel_data().unwrap();
    // Three were sent; one of them is a certificate.
    assert_eq!((data.system_certificates, data.revoked_certificates), (1, 1));
    let keys = machine.platform().vtl0().keys().lock();
    assert_eq!((keys.counts(), keys.revoked_counts()), ((1, 0), (1, 2)));
    drop(keys);
    assert_eq!(data.blocked_hashes, 2);
    let mut expected = exports.to_vec();
    expected.sort();
    assert_eq!(symbols(machine), expected);
    for export in exports {
        let found = data.symbols.find(export.name.as_bytes()).unwrap();
        assert_eq!((found.value, found.gpl), (export.value, export.gpl), "{}", export.name);
    }
    assert_eq!(data.arch.len(), 84 + 5);
    // Every 24-byte patch behind both 48-byte headers.
    assert_eq!(data.patches.len(), (kernel.patches.len() - 2 * 48) / 24);
    assert_eq!(data.patches.at(PhysAddr::new(0x100_0000).unwrap()).unwrap().code()[1], 0x10);
    assert_eq!(data.trampoline_frames, kernel.trampoline_pages);
}

fn trampoline_frames(ranges: &[Range]) -> Vec<u64> {
    let trampoline = ranges.iter().filter(|range| range.attributes == kind::KEXEC_TRAMPOLINE);
    trampoline.flat_map(|range| range.pa >> 12..range.epa >> 12).collect()
}

#[test]
fn all_seven_kinds_are_taken_wherever_their_pages_lie_and_in_any_order() {
    let (kernel, exports) = KernelData::made_up(3000, 7);
    for (scattered, reversed) in [(false, false), (false, true), (true, false), (true, true)] {
        let machine = machine();
        let mut ranges = if scattered {
            kernel.write(machine.memory(), backwards(OBJECTS.start, OBJECTS.end)).unwrap()
        } else {
            kernel.write(machine.memory(), consecutive(OBJECTS.start, OBJECTS.end)).unwrap()
        };
        assert_eq!(ranges.len() > 60, scattered, "{} ranges", ranges.len());
        if reversed {
            ranges.reverse();
        }
        assert_eq!(load(&machine, &ranges), 0);
        assert_loaded(&machine, &kernel, &exports);
        for gfn in trampoline_frames(&ranges) {
            assert_eq!(machine.partition().protection(gfn), MapFlags::READ_ONLY);
            let registry = machine.platform().frames().lock();
            assert_eq!(registry.get(gfn), Some((Owner::Trampoline, Permission::R)));
        }
        assert_eq!(machine.partition().reports(), []);
    }
}

#[test]
fn the_kernel_data_may_have_gaps_where_nothing_is_needed() {
    let (mut kernel, exports) = small();
    // Two pages more that hold nothing; then one of them, and everything before the tables, is left out.
    kernel.rodata.resize(kernel.rodata.len() + 2 * 4096, 0);
    let machine = machine();
    let mut ranges = kernel.write(machine.memory(), backwards(OBJECTS.start, OBJECTS.end)).unwrap();
    let first_table = u64::from_le_bytes(kernel.info[..8].try_into().unwrap());
    let last = kernel.rodata_va + kernel.rodata.len() as u64;
    ranges.retain(|range| {
        range.attributes != kind::KERNEL_DATA || (range.va + 4096 > first_table && range.va != last - 2 * 4096)
    });
    assert_eq!(load(&machine, &ranges), 0);
    assert_loaded(&machine, &kernel, &exports);
}

#[test]
fn only_the_system_certificates_are_required() {
    let (kernel, _) = small();
    let only = KernelData { certificates: kernel.certificates.clone(), ..KernelData::default() };
    let machine = machine();
    assert_eq!(load(&machine, &write(&machine, &only)), 0);
    let data = machine.platform().vtl0().kernel_data().unwrap();
    assert_eq!(data.system_certificates, 1);
    assert!(data.symbols.is_empty() && data.patches.is_empty() && data.blocked_hashes == 0);
    let machine = super::machine();
    let without = KernelData { certificates: Vec::new(), ..kernel };
    assert_eq!(load(&machine, &write(&machine, &without)), Errno::Einval.to_result());
    assert!(machine.platform().vtl0().kernel_data().is_none());
}

#[test]
fn a_second_call_is_refused_and_a_failed_one_does_not_count() {
    let (kernel, exports) = small();
    let machine = machine();
    let broken = KernelData { blocklist: vec![1], ..kernel.clone() };
    assert_eq!(load(&machine, &write(&machine, &broken)), Errno::Einval.to_result());
    assert_eq!(load(&machine, &write(&machine, &kernel)), 0);
    let before = snapshot(&machine);
    let (other, _) = KernelData::made_up(50, 2);
    for second in [&kernel, &other, &KernelData { certificates: Vec::new(), ..other.clone() }] {
        assert_eq!(load(&machine, &write(&machine, second)), Errno::Ebusy.to_result());
    }
    assert!(snapshot(&machine) == before);
    assert_loaded(&machine, &kernel, &exports);
    assert_eq!(end_boot(&machine), 0);
    assert_eq!(load(&machine, &write(&machine, &kernel)), Errno::Eperm.to_result(), "-EPERM after the end of boot");
}

#[test]
fn of_two_processors_that_call_at_once_one_succeeds() {
    let (kernel, exports) = small();
    for _ in 0..20 {
        let machine = machine();
        let ranges = write(&machine, &kernel);
        // The same but for the trampoline, so that it shows whose call was the one.
        let mut others = ranges.clone();
        let trampoline = others.iter_mut().find(|range| range.attributes == kind::KEXEC_TRAMPOLINE).unwrap();
        (trampoline.pa, trampoline.epa) = (0x20_0000, 0x20_2000);
        let mut scratch = Scratch::default();
        let lists = [&ranges, &others].map(|ranges| write_list(machine.memory(), &mut scratch, ranges).unwrap());
        // Two threads serve calls on one processor of the model: hypercalls are made under the registry's lock only.
        let barrier = Barrier::new(2);
        let results = machine.in_vtl1(0, |platform| {
            let call = |list: List| {
                barrier.wait();
                dispatch(&VSM_TABLE, &GATE, platform, 0, [VsmFunction::LoadKData.id(), list.pa, list.nranges, 0]).result
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(|| call(lists[1]));
                [call(lists[0]), other.join().unwrap()]
            })
        });
        let winner = if results == [0, Errno::Ebusy.to_result()] { &ranges } else { &others };
        assert!(results == [0, Errno::Ebusy.to_result()] || results == [Errno::Ebusy.to_result(), 0], "{results:?}");
        assert_loaded(&machine, &kernel, &exports);
        let registry = machine.platform().frames().lock();
        let taken: Vec<u64> = registry
            .intervals()
            .filter(|state| state.owner == Owner::Trampoline)
            .flat_map(|state| state.frames.start()..state.frames.end())
            .collect();
        assert_eq!(taken, trampoline_frames(winner));
    }
}

/// What can be wrong with a LoadKData, and the errno for it.
fn mistakes(machine: &HostedMachine, ranges: &[Range]) -> Vec<(&'static str, Vec<Range>, Errno)> {
    // A proper certificate, so that nothing but its place is wrong.
    machine.memory().write(0x5000, &der(&[7; 14])).unwrap();
    let index_of = |kind: u64| ranges.iter().position(|range| range.attributes == kind).unwrap();
    let with = |index: usize, change: fn(&mut Range)| {
        let mut ranges = ranges.to_vec();
        change(&mut ranges[index]);
        ranges
    };
    let (certs, tramp, rodata) =
        (index_of(kind::SYSTEM_CERTS), index_of(kind::KEXEC_TRAMPOLINE), index_of(kind::KERNEL_DATA));
    let twice = |index: usize| [ranges, &ranges[index..=index]].concat();
    vec![
        ("an unknown kind", with(certs, |range| range.attributes = 7), Errno::Einval),
        ("an unknown kind, upper bits", with(certs, |range| range.attributes = 1 << 32), Errno::Einval),
        ("certificates cut short", with(certs, |range| range.epa -= 1), Errno::Einval),
        (
            "certificates that start late",
            with(certs, |range| (range.pa, range.va) = (range.pa + 1, range.va + 1)),
            Errno::Einval,
        ),
        ("blacklist cut short", with(index_of(kind::BLACKLIST_HASHES), |range| range.epa -= 1), Errno::Einval),
        ("patches cut short", with(index_of(kind::PATCH_INFO), |range| range.epa -= 8), Errno::Einval),
        (
            "kernel information cut short",
            with(index_of(kind::KERNEL_INFO), |range| range.epa = range.pa + 24),
            Errno::Einval,
        ),
        ("kernel data elsewhere", with(rodata, |range| range.va += 0x100_0000), Errno::Einval),
        ("kernel data without their end", with(rodata, |range| range.epa -= 0x3000), Errno::Einval),
        ("a range that wraps around", with(rodata, |range| range.va = u64::MAX - 0xfff), Errno::Einval),
        ("a range over the canonical hole", with(rodata, |range| range.va = (1 << 47) - 0x1000), Errno::Einval),
        ("trampoline that starts within a page", with(tramp, |range| range.pa += 8), Errno::Einval),
        ("trampoline that ends within a page", with(tramp, |range| range.epa -= 8), Errno::Einval),
        (
            "trampoline beyond RAM",
            with(tramp, |range| (range.pa, range.epa) = (super::RAM << 12, (super::RAM + 2) << 12)),
            Errno::Eio,
        ),
        (
            "certificates beyond RAM",
            with(certs, |range| (range.pa, range.epa) = (super::RAM << 12, (super::RAM << 12) + 80_000)),
            Errno::Efault,
        ),
        ("kernel data twice", twice(rodata), Errno::Einval),
        ("certificates twice", twice(certs), Errno::Einval),
        (
            "certificates twice, elsewhere in virtual memory",
            {
                let mut ranges = twice(certs);
                let end = ranges[certs].va + (ranges[certs].epa - ranges[certs].pa);
                ranges.last_mut().unwrap().va = end;
                ranges
            },
            Errno::Efault,
        ),
        (
            "certificates with a gap",
            {
                let mut ranges = ranges.to_vec();
                ranges.push(Range {
                    va: ranges[certs].va + 0x10_0000,
                    pa: 0x5000,
                    epa: 0x5010,
                    attributes: kind::SYSTEM_CERTS,
                });
                ranges
            },
            Errno::Einval,
        ),
        (
            "kernel data without the information",
            ranges.iter().filter(|range| range.attributes != kind::KERNEL_INFO).copied().collect(),
            Errno::Einval,
        ),
        (
            "the information without kernel data",
            ranges.iter().filter(|range| range.attributes != kind::KERNEL_DATA).copied().collect(),
            Errno::Einval,
        ),
        (
            "certificates in the list itself",
            with(certs, |range| (range.pa, range.epa) = (0x100_0000, 0x100_1000)),
            Errno::Efault,
        ),
        ("too many certificates", with(certs, |range| range.epa += 256 << 10), Errno::Einval),
        ("too long a trampoline", with(tramp, |range| range.epa = range.pa + (17 << 12)), Errno::Einval),
    ]
}

#[test]
fn a_mistake_in_any_object_is_refused_and_nothing_is_kept() {
    let (kernel, exports) = small();
    let machine = machine();
    let ranges = write(&machine, &kernel);
    let before = snapshot(&machine);
    for (what, ranges, errno) in mistakes(&machine, &ranges) {
        assert_eq!(load(&machine, &ranges), errno.to_result(), "{what}");
        assert!(snapshot(&machine) == before, "{what} left something behind");
    }
    let objects: [(&str, KernelData); 7] = [
        (
            "garbage after the certificates",
            KernelData { certificates: [kernel.certificates.clone(), vec![0]].concat(), ..kernel.clone() },
        ),
        ("too many certificates", KernelData { certificates: der(&[]).repeat(257), ..kernel.clone() }),
        ("revoked garbage", KernelData { revoked: vec![0x30, 0x80, 0, 0], ..kernel.clone() }),
        ("a blocked hash that is none", KernelData { blocklist: blocklist(&["tbs:xy"]), ..kernel.clone() }),
        ("kernel information of more than a page", KernelData { info: vec![0; 4104], ..kernel.clone() }),
        ("sites that overlap", {
            let site = |pa| vsm_sim::vtl0::kdata::Site { pa, next_page: 0, jump: [0xeb, 0, 0, 0, 0], size: 2 };
            KernelData { patches: patch_record(&[site(0x1000), site(0x1001)]), ..kernel.clone() }
        }),
        (
            "a record of patches of another type",
            KernelData { patches: [2u32.to_le_bytes().to_vec(), vec![0; 44]].concat(), ..kernel.clone() },
        ),
    ];
    for (what, kernel) in objects {
        let ranges = write(&machine, &kernel);
        let result = load(&machine, &ranges);
        assert!([Errno::Einval.to_result(), Errno::Efault.to_result()].contains(&result), "{what}: {result}");
        assert!(snapshot(&machine) == before, "{what} left something behind");
    }
    // After all of this, the real thing still works.
    assert_eq!(load(&machine, &write(&machine, &kernel)), 0);
    assert_loaded(&machine, &kernel, &exports);
}

/// Firmware of 2026 has 431 and 443 of them.
#[test]
fn blocked_hashes_beyond_the_limit_take_nothing_of_the_rest_away() {
    let (kernel, _) = small();
    for (count, surplus) in [(443, 0), (4096, 0), (4097, 1), (20_000, 15_904)] {
        let mut machine = machine();
        machine.keep_log();
        // One of them is the last that is kept; what is behind it is not even read.
        let mut records = blocklist(&vec!["bin:0123456789abcdef"; count.min(4096)]);
        records.extend(blocklist(&vec!["bin:no hash"; count.saturating_sub(4096)]));
        let more = KernelData { blocklist: records, ..kernel.clone() };
        let ranges = more.write(machine.memory(), consecutive(OBJECTS.start, OBJECTS.end)).unwrap();
        assert_eq!(load(&machine, &ranges), 0, "{count} hashes");
        assert_eq!(machine.platform().vtl0().kernel_data().unwrap().blocked_hashes, count.min(4096));
        let told: Vec<String> = machine.log_lines().into_iter().filter(|line| line.contains("are left out")).collect();
        assert_eq!(told.len(), usize::from(surplus > 0), "{told:?}");
        assert!(told.iter().all(|line| line.contains(&format!("{surplus} blocked hashes"))), "{told:?}");
    }
}

/// A revoked certificate of an odd encoding, and one of which nothing can be read: all others count as before.
#[test]
fn an_odd_revoked_certificate_takes_the_others_nothing_away() {
    let (kernel, exports) = small();
    let odd = [0x30, 0x82, 0, 3, 0x30, 1, 0];
    for revoked in [[&odd[..], &kernel.revoked].concat(), [&kernel.revoked, &odd[..]].concat()] {
        let mut machine = machine();
        machine.keep_log();
        assert_eq!(load(&machine, &write(&machine, &KernelData { revoked, ..kernel.clone() })), 0);
        assert_eq!(machine.platform().vtl0().keys().lock().revoked_counts(), (2, 2));
        assert_eq!(symbols(&machine).len(), exports.len());
        let told = machine.log_lines().into_iter().filter(|line| line.contains("what can be read of it: its bytes"));
        assert_eq!(told.count(), 1);
    }
}

#[test]
fn a_hypercall_that_fails_at_any_step_leaves_everything_as_it_was() {
    let (kernel, exports) = small();
    let kernel = KernelData { trampoline_pages: 16, ..kernel };
    // The trampoline's pages are no neighbours, and some have had another permission before.
    let prepared = || {
        let machine = machine();
        let ranges = kernel.write(machine.memory(), backwards(OBJECTS.start, OBJECTS.end)).unwrap();
        let pages = trampoline_frames(&ranges);
        let sealed: Vec<Range> =
            pages.iter().step_by(3).map(|gfn| Range::direct(gfn << 12, (gfn + 1) << 12, 5)).collect();
        let list = list(&machine, &sealed);
        assert_eq!(machine.vtl_call(0, VsmFunction::ProtectMemory.id(), list.pa, list.nranges, 0), 0);
        (machine, ranges)
    };
    let (machine, ranges) = prepared();
    let calls = machine.partition().hypercall_count(MODIFY);
    assert_eq!(load(&machine, &ranges), 0);
    let steps = machine.partition().hypercall_count(MODIFY) - calls;
    assert!(steps >= 1);
    for step in 0..steps {
        for element in 0..16 {
            let (machine, ranges) = prepared();
            let before = snapshot(&machine);
            let failing = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(element);
            machine.partition().inject(failing);
            assert_eq!(load(&machine, &ranges), Errno::Eio.to_result(), "step {step}, element {element}");
            assert!(snapshot(&machine) == before, "step {step}, element {element}");
            machine.partition().clear_injections();
            assert_eq!(load(&machine, &ranges), 0);
            assert_loaded(&machine, &kernel, &exports);
        }
    }
}

#[test]
fn no_byte_is_fetched_twice_and_little_of_the_kernel_at_all() {
    let (mut kernel, exports) = KernelData::made_up(3000, 3);
    kernel.rodata.resize(4 << 20, 0);
    for scattered in [false, true] {
        let machine = machine();
        let ranges = if scattered {
            kernel.write(machine.memory(), backwards(OBJECTS.start, OBJECTS.end)).unwrap()
        } else {
            write(&machine, &kernel)
        };
        // In full pages: it is the objects that are counted.
        let list = write_list_filled(machine.memory(), &mut Scratch::default(), &ranges, Filling::Full).unwrap();
        machine.memory().count_fetches();
        assert_eq!(machine.vtl_call(0, VsmFunction::LoadKData.id(), list.pa, list.nranges, 0), 0);
        let fetches = machine.memory().take_fetches();
        assert_eq!(fetches.values().max(), Some(&1), "a byte was fetched twice");
        // All of every other object, but of the kernel data only what is needed.
        let needed = kernel.certificates.len() + kernel.revoked.len() + kernel.patches.len() + kernel.info.len();
        assert!(fetches.len() > needed && fetches.len() < needed + (1 << 20), "{} bytes fetched", fetches.len());
        assert_loaded(&machine, &kernel, &exports);
    }
}

#[test]
fn no_byte_is_fetched_twice_whatever_vtl0_names() {
    let (kernel, _) = small();
    let machine = machine();
    let ranges = write(&machine, &kernel);
    for (what, ranges, _) in mistakes(&machine, &ranges) {
        let list = list(&machine, &ranges);
        machine.memory().count_fetches();
        machine.vtl_call(0, VsmFunction::LoadKData.id(), list.pa, list.nranges, 0);
        let fetches = machine.memory().take_fetches();
        assert!(fetches.values().all(|count| *count == 1), "{what}");
    }
}

/// Loads `kernel` while VTL0 overwrites with `garbage` whatever VTL1 has read.
fn load_racing(kernel: &KernelData, garbage: u8) -> HostedMachine {
    let machine = machine();
    let ranges = write(&machine, kernel);
    let list = list(&machine, &ranges);
    machine.memory().set_race(Some(Box::new(move |point, memory| {
        if let RacePoint::AfterRead { gpa, len } = point {
            memory.write(gpa, &vec![garbage; len]).unwrap();
        }
    })));
    assert_eq!(machine.vtl_call(0, VsmFunction::LoadKData.id(), list.pa, list.nranges, 0), 0);
    machine.memory().set_race(None);
    machine
}

#[test]
fn what_is_rewritten_behind_vtl1s_back_counts_as_it_was_read() {
    let (kernel, exports) = small();
    let kernel = KernelData { trampoline_pages: 1, ..kernel };
    for garbage in [0, 0x30, 0x61, 0xff] {
        let machine = load_racing(&kernel, garbage);
        assert_loaded(&machine, &kernel, &exports);
        // The trampoline's frames are those of the list as it was read.
        let frames = trampoline_frames(&write(&machine, &kernel));
        let registry = machine.platform().frames().lock();
        let owned: u64 = registry
            .intervals()
            .filter(|state| state.owner == Owner::Trampoline)
            .map(|state| state.frames.count())
            .sum();
        assert_eq!(owned, 1);
        assert_eq!(registry.get(frames[0]), Some((Owner::Trampoline, Permission::R)));
        for gfn in VTL1 {
            assert_eq!(machine.partition().protection(gfn), MapFlags::NONE);
        }
    }
}

#[test]
fn vtl0_may_change_anything_at_any_moment_and_vtl1_stays_whole() {
    let (kernel, _) = small();
    for seed in 1..200u64 {
        let machine = machine();
        let ranges = write(&machine, &kernel);
        let list = list(&machine, &ranges);
        let before = snapshot(&machine);
        let mut random = vsm_sim::random::SplitMix(seed);
        let mut moments = 0u64;
        machine.memory().set_race(Some(Box::new(move |point, memory| {
            moments += 1;
            let (RacePoint::BeforeRead { gpa, len } | RacePoint::AfterRead { gpa, len }) = point else { return };
            if (moments + seed).is_multiple_of(5) && len > 0 {
                let at = gpa + random.next() % len as u64;
                memory.write(at, &[random.next().to_le_bytes()[0]]).unwrap();
            }
        })));
        let result = machine.vtl_call(0, VsmFunction::LoadKData.id(), list.pa, list.nranges, 0);
        machine.memory().set_race(None);
        if result != 0 {
            assert!(snapshot(&machine) == before, "seed {seed}");
        }
        for gfn in VTL1 {
            assert_eq!(machine.partition().protection(gfn), MapFlags::NONE);
        }
    }
}
