//! The clock that a guest may know: frequencies, the reference TSC page, the invariant TSC (TLFS "Partition Reference Time
//! Enlightenment", "Feature and Interface Discovery").

use std::time::Instant;

use litebox_platform_lvbs::hv::Vtl::{Vtl0, Vtl1};
use litebox_platform_lvbs::hv::cpuid::Privileges;
use vsm_sim::hv::Fault::GeneralProtection;
use vsm_sim::hv::{Clock, Effect};

use super::support::{RAM_END, Setup};

const REFERENCE_TSC: u32 = 0x4000_0021;
const TSC_FREQUENCY: u32 = 0x4000_0022;
const APIC_FREQUENCY: u32 = 0x4000_0023;
const INVARIANT: u32 = 0x4000_0118;
const TSC: u64 = 2_900_000_000;
const COUNTER: u64 = 7_000_000_000_000;

fn with_clock() -> Setup {
    Setup::with(|config| {
        config.clock = Some(Clock { tsc: TSC, apic: 1_000_000_000, reading: (Instant::now(), COUNTER) });
        config.privileges |= Privileges::from_bits_retain(1 << 9 | 1 << 11 | 1 << 15);
    })
}

#[test]
fn the_leaves_offer_it() {
    let [eax, _, _, edx] = with_clock().partition.cpuid(0x4000_0003).unwrap();
    assert_eq!(eax & (1 << 9 | 1 << 11 | 1 << 15), 1 << 9 | 1 << 11 | 1 << 15, "page, frequencies, invariant TSC");
    assert_eq!(edx & 1 << 8, 1 << 8, "frequencies are there");
    let [build, version, ..] = Setup::new().partition.cpuid(0x4000_0002).unwrap();
    assert!(build != 0 && version >> 16 == 10, "build {build}, version {version:#x}");
    let [eax, _, _, edx] = Setup::new().partition.cpuid(0x4000_0003).unwrap();
    assert_eq!((eax & (1 << 9 | 1 << 11 | 1 << 15), edx & 1 << 8), (0, 0), "a partition without one");
}

#[test]
fn frequencies_are_read_only() {
    let setup = with_clock();
    assert_eq!(setup.partition.msr_read(0, Vtl0, TSC_FREQUENCY), Ok(TSC));
    assert_eq!(setup.partition.msr_read(1, Vtl0, APIC_FREQUENCY), Ok(1_000_000_000));
    for number in [TSC_FREQUENCY, APIC_FREQUENCY] {
        // Also a value that an interrupt source would take.
        assert_eq!(setup.write_msr(Vtl0, number, 0x2_00f3), Err(GeneralProtection), "{number:#x}");
    }
    assert!(setup.reports().is_empty(), "that is defined");
}

#[test]
fn the_page_makes_reference_time_of_the_counter() {
    let setup = with_clock();
    let page = setup.partition.reference_tsc_page().unwrap();
    let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    assert_ne!(word(0) & 0xffff_ffff, 0, "sequence 0: the page is not to be used");
    let time = |counter: u64| {
        let scaled = i128::try_from((u128::from(counter) * u128::from(word(8))) >> 64).unwrap();
        scaled + i128::from(word(16).cast_signed())
    };
    // The counter was read at about the time the partition was made, when its time was 0.
    assert!(time(COUNTER).abs() < 10_000_000, "{}", time(COUNTER));
    let second = time(COUNTER + TSC) - time(COUNTER);
    assert!((second - 10_000_000).abs() <= 1, "a second is {second}");
}

#[test]
fn the_page_is_placed_for_each_vtl() {
    let setup = with_clock();
    setup.partition.take_effects();
    setup.write_msr(Vtl0, REFERENCE_TSC, 0x9001).unwrap();
    assert_eq!(setup.partition.take_effects(), [Effect::ReferenceTscPage { vtl: Vtl0, gfn: Some(9) }]);
    assert_eq!(setup.partition.msr_read(1, Vtl0, REFERENCE_TSC), Ok(0x9001), "the same on every processor");
    assert_eq!(setup.partition.msr_read(0, Vtl1, REFERENCE_TSC), Ok(0), "VTL1 has its own");
    setup.write_msr(Vtl0, REFERENCE_TSC, 0x9000).unwrap();
    assert_eq!(setup.partition.take_effects(), [Effect::ReferenceTscPage { vtl: Vtl0, gfn: None }]);
    for (what, value) in [("not RAM", RAM_END | 1), ("over the hypercall page", 0x1001), ("beyond 2^52", 1 << 52 | 1)] {
        assert_eq!(setup.write_msr(Vtl0, REFERENCE_TSC, value), Err(GeneralProtection), "{what}");
    }
    setup.write_msr(Vtl0, REFERENCE_TSC, 0x9001).unwrap();
    assert_eq!(setup.write_msr(Vtl0, 0x4000_0083, 0x9001), Err(GeneralProtection), "another page over it");
}

#[test]
fn the_invariant_counter_is_shown_to_who_asks() {
    let setup = with_clock();
    assert!(!setup.partition.shows_invariant_tsc(Vtl0));
    setup.write_msr(Vtl0, INVARIANT, 1).unwrap();
    assert!(setup.partition.shows_invariant_tsc(Vtl0) && !setup.partition.shows_invariant_tsc(Vtl1));
    assert_eq!(setup.write_msr(Vtl0, INVARIANT, 2), Err(GeneralProtection), "a reserved bit");
}

#[test]
fn without_a_clock_nothing_of_it_is_there() {
    let setup = Setup::new();
    for number in [REFERENCE_TSC, TSC_FREQUENCY, APIC_FREQUENCY, INVARIANT] {
        assert_eq!(setup.partition.msr_read(0, Vtl0, number), Err(GeneralProtection), "{number:#x}");
    }
    assert_eq!(setup.reports().len(), 4, "the model does not have them then");
    let closed = Setup::with(|config| {
        config.clock = Some(Clock { tsc: TSC, apic: 1, reading: (Instant::now(), 0) });
    });
    assert_eq!(closed.partition.msr_read(0, Vtl0, TSC_FREQUENCY), Err(GeneralProtection), "no privilege");
    assert!(closed.reports().is_empty(), "that is defined");
}
