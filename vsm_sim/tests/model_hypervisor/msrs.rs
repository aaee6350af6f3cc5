//! Synthetic MSRs and CPUID leaves of the model (LVBS contract §7, TLFS "Hypervisor Synthetic MSRs").

use litebox_platform_lvbs::hv::Vtl::{Vtl0, Vtl1};
use litebox_platform_lvbs::hv::cpuid::Privileges;
use vsm_sim::hv::Fault::GeneralProtection;
use vsm_sim::hv::{Effect, synthetic_msrs};

use super::support::{ASSIST, RAM_END, SIMP, Setup};

#[test]
fn each_vtl_has_its_own() {
    let setup = Setup::in_vtl1();
    for (number, value) in
        [(0x4000_0073, ASSIST | 1), (0x4000_0083, SIMP | 1), (0x4000_0080, 1), (0x4000_0090, 0x200f3)]
    {
        let reset = setup.partition.msr_read(0, Vtl0, number).unwrap();
        setup.write_msr(Vtl1, number, value).unwrap();
        assert_eq!(setup.partition.msr_read(0, Vtl1, number), Ok(value), "{number:#x}");
        assert_eq!(setup.partition.msr_read(0, Vtl0, number), Ok(reset), "{number:#x} of VTL0");
        assert_ne!(setup.partition.msr_read(1, Vtl1, number), Ok(value), "{number:#x} of VP 1");
    }
    assert_eq!(setup.partition.msr_read(0, Vtl0, 0x4000_0091), Ok(1 << 16), "sources are masked at reset");
    assert_eq!(setup.partition.msr_read(1, Vtl0, 0x4000_0002), Ok(1), "VP_INDEX");
    assert_eq!(setup.partition.msr_read(0, Vtl0, 0x4000_0084), Ok(0), "EOM reads as zero");
}

#[test]
fn the_hypercall_page_needs_an_identity_and_is_partition_wide() {
    let setup = Setup::new();
    setup.partition.take_effects();
    setup.write_msr(Vtl1, 0x4000_0000, 0).unwrap();
    assert_eq!(setup.partition.take_effects(), [Effect::HypercallPage { vtl: Vtl1, gfn: None }]);
    setup.write_msr(Vtl1, 0x4000_0001, 0x7001).unwrap();
    assert_eq!(setup.partition.msr_read(0, Vtl1, 0x4000_0001), Ok(0x7000), "not enabled without an identity");
    setup.write_msr(Vtl1, 0x4000_0000, 1).unwrap();
    setup.write_msr(Vtl1, 0x4000_0001, 0x7001).unwrap();
    assert_eq!(setup.partition.take_effects(), [Effect::HypercallPage { vtl: Vtl1, gfn: Some(7) }]);
    assert_eq!(setup.partition.msr_read(1, Vtl1, 0x4000_0001), Ok(0x7001), "the same on every processor");
    assert_eq!(setup.partition.msr_read(0, Vtl0, 0x4000_0001), Ok(0x1001), "VTL0 has another");
    setup.write_msr(Vtl1, 0x4000_0001, 0x7003).unwrap();
    assert_eq!(setup.write_msr(Vtl1, 0x4000_0001, 0x8001), Err(GeneralProtection), "locked");
}

#[test]
fn what_cannot_be_written_is_a_general_protection_fault() {
    let setup = Setup::in_vtl1();
    for (what, number, value) in [
        ("VP_INDEX is read-only", 0x4000_0002, 0),
        ("SVERSION is read-only", 0x4000_0081, 1),
        ("a vector below 16", 0x4000_0090, 15),
        ("a page beyond 2^52", 0x4000_0083, 1 << 52 | 1),
        ("a page that is not RAM", 0x4000_0083, RAM_END | 1),
        ("a page over the hypercall page", 0x4000_0083, 0x4001),
        ("an MSR that does not exist", 0x4000_0fff, 0),
    ] {
        assert_eq!(setup.write_msr(Vtl1, number, value), Err(GeneralProtection), "{what}");
    }
    assert!(setup.write_msr(Vtl1, 0x4000_0090, 15 | 1 << 16).is_ok(), "a masked source may have any vector");
    assert_eq!(setup.partition.msr_read(0, Vtl1, 0x4000_0fff), Err(GeneralProtection));
    assert!(synthetic_msrs::is_synthetic(0x4000_0fff) && !synthetic_msrs::is_synthetic(0xc000_0080));
}

#[test]
fn two_overlay_pages_on_one_frame_are_reported() {
    let setup = Setup::in_vtl1();
    setup.write_msr(Vtl1, 0x4000_0083, SIMP | 1).unwrap();
    setup.write_msr(Vtl1, 0x4000_0083, SIMP | 1).unwrap();
    assert!(setup.reports().is_empty(), "a page may be written again");
    assert_eq!(setup.write_msr(Vtl1, 0x4000_0073, SIMP | 1), Err(GeneralProtection));
    let other_vp = setup.partition.msr_write(1, Vtl1, 0x4000_0083, SIMP | 1, &setup.memory);
    assert_eq!(other_vp, Err(GeneralProtection));
    assert_eq!(setup.reports().len(), 2);
}

#[test]
fn vtl0_cannot_place_its_pages_over_vtl1s_memory() {
    let setup = Setup::protecting();
    setup.protect(0, &[0x800]);
    setup.fast_return();
    for number in [0x4000_0001, 0x4000_0073, 0x4000_0082, 0x4000_0083] {
        assert_eq!(setup.write_msr(Vtl0, number, 0x80_0001), Err(GeneralProtection), "{number:#x}");
    }
}

#[test]
fn privileges_open_the_msrs() {
    let setup = Setup::with(|config| config.privileges.remove(Privileges::ACCESS_SYNIC_REGS));
    assert_eq!(setup.write_msr(Vtl0, 0x4000_0080, 1), Err(GeneralProtection));
    assert!(setup.reports().is_empty(), "that is defined");
}

#[test]
fn the_leaves_show_what_an_lvbs_kernel_looks_for() {
    let setup = Setup::new();
    let leaf = |number| setup.partition.cpuid(number).unwrap();
    assert!(leaf(0x4000_0000)[0] >= 0x4000_0005);
    assert_eq!(leaf(0x4000_0001)[0], 0x3123_7648);
    let [eax, ebx, ..] = leaf(0x4000_0003);
    assert_eq!(eax & (1 << 2 | 1 << 5 | 1 << 6), 1 << 2 | 1 << 5 | 1 << 6, "SynIC, hypercall MSRs, VP index");
    assert_eq!(ebx & (1 << 16 | 1 << 17), 1 << 16 | 1 << 17, "VSM, VP registers");
    assert_eq!(leaf(0x4000_0005)[0], 2);
    assert_eq!(setup.partition.cpuid(0x4000_0100), Some([0; 4]));
    assert_eq!(setup.partition.cpuid(1), None);
}
