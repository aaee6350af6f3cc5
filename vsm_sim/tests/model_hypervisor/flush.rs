//! Flushes of translations on sets of processors, against the TLFS by number; and the platform's calls for them.

use super::support::{INPUT, OUTPUT, Setup};
use litebox_platform_lvbs::hardware::calls::{flush_address_space, flush_addresses};
use litebox_platform_lvbs::hv::HvStatus;
use litebox_platform_lvbs::hv::flush::{GvaRange, VpSet};
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::GuestMemory;
use vsm_sim::hv::flush::Flush;

const SPACE: u64 = 0x13;
const LIST: u64 = 0x14;

/// Address space, flags, format, valid banks; then banks and ranges.
fn block(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn flush(setup: &Setup, control: u64, words: &[u64]) -> HvStatus {
    setup.memory.write(INPUT, &block(words)).unwrap();
    setup.hypercall_at(control, INPUT, OUTPUT).0
}

#[test]
fn a_sparse_set_is_decoded_bank_by_bank() {
    let setup = Setup::with_vps_in_vtl1(200);
    assert_eq!(flush(&setup, SPACE | 2 << 17, &[0, 2, 0, 0b1001, 1 | 1 << 63, 1 << 7]), HvStatus::SUCCESS);
    assert_eq!(flush(&setup, LIST | 1 << 17 | 2 << 32, &[0, 2, 0, 0b10, 1, 0x1000, 0x5003]), HvStatus::SUCCESS);
    let expected = [
        Flush { vp: 0, processors: vec![0, 63, 199], ranges: None },
        Flush { vp: 0, processors: vec![64], ranges: Some(vec![0x1000, 0x5003]) },
    ];
    assert_eq!(setup.partition.take_flushes(), expected);
    // Bit 0 of the flags: everybody, whatever the set.
    assert_eq!(flush(&setup, SPACE, &[0, 3, 1, 0]), HvStatus::SUCCESS);
    assert_eq!(setup.partition.take_flushes()[0].processors.len(), 200);
    assert!(setup.reports().is_empty());
}

#[test]
fn what_the_tlfs_does_not_allow_is_refused() {
    let setup = Setup::with_vps_in_vtl1(200);
    let cases = [
        ("a bank too few", SPACE | 1 << 17, vec![0, 2, 0, 0b11, 1], HvStatus::INVALID_PARAMETER),
        ("a bank too many", SPACE | 2 << 17, vec![0, 2, 0, 0b1, 1, 1], HvStatus::INVALID_PARAMETER),
        ("an unknown format", SPACE | 1 << 17, vec![0, 2, 2, 0b1, 1], HvStatus::INVALID_PARAMETER),
        ("banks of all", SPACE | 1 << 17, vec![0, 3, 1, 0b1, 1], HvStatus::INVALID_PARAMETER),
        ("unknown flags", SPACE | 1 << 17, vec![0, 0x12, 0, 0b1, 1], HvStatus::INVALID_PARAMETER),
        ("a processor that is not there", SPACE | 1 << 17, vec![0, 2, 0, 0b1000, 1 << 8], HvStatus::INVALID_VP_INDEX),
        ("elements of a simple hypercall", SPACE | 1 << 32, vec![0, 2, 1, 0, 1], HvStatus::INVALID_HYPERCALL_INPUT),
        ("a list without elements", LIST | 1 << 17, vec![0, 2, 0, 1, 1], HvStatus::INVALID_HYPERCALL_INPUT),
    ];
    for (what, control, words, status) in cases {
        assert_eq!(flush(&setup, control, &words), status, "{what}");
    }
    assert_eq!(setup.partition.take_flushes(), []);
}

/// Sets as VTL1 passes them, for processors beyond the first bank: exactly those are flushed.
#[test]
fn the_platforms_sets_reach_exactly_their_processors() {
    let machine = HostedMachine::new(HostedConfig { vps: 300, ..HostedConfig::default() });
    let sets: [&[u32]; 6] = [&[0], &[64], &[63, 64], &[299], &[1, 65, 129, 193, 257], &[]];
    let everybody: Vec<u32> = (0..300).collect();
    for vps in sets.into_iter().chain([&everybody[..]]) {
        let set = VpSet::of(vps.iter().copied()).unwrap();
        // More ranges than one hypercall takes.
        let ranges: Vec<GvaRange> = (1..1200).map(|page| GvaRange::new(page << 20, 3).unwrap()).collect();
        machine.in_vtl1(0, |platform| {
            flush_address_space(platform.hardware(), &set).unwrap();
            flush_addresses(platform.hardware(), &set, &ranges).unwrap();
            flush_addresses(platform.hardware(), &set, &[]).unwrap();
        });
        let flushes = machine.partition().take_flushes();
        assert!(flushes.iter().all(|flush| flush.processors == vps), "{vps:?}: {flushes:?}");
        assert_eq!(flushes.first().map(|flush| &flush.ranges), (!vps.is_empty()).then_some(&None));
        let found: Vec<u64> = flushes.iter().filter_map(|flush| flush.ranges.clone()).flatten().collect();
        let expected: Vec<u64> = ranges.iter().filter(|_| !vps.is_empty()).map(|range| range.0).collect();
        assert_eq!(found, expected);
    }
    // One that does not exist is an error, and nothing is flushed.
    let set = VpSet::of([0, 300]).unwrap();
    machine.in_vtl1(0, |platform| flush_address_space(platform.hardware(), &set).unwrap_err());
    assert_eq!(machine.partition().take_flushes(), []);
}
