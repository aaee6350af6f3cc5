//! The hypercall interface and the memory protections of the model, against the TLFS and the LVBS contract §7.

use super::support::{INPUT, OUTPUT, RAM_END, Setup, context, protect_block, registers_header, set_element};
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hv::cpuid::Privileges;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, MapFlags, Vtl};
use vsm_sim::hv::{GuestMemory, Injection, Refusal};

#[test]
fn malformed_control_words_are_refused() {
    let setup = Setup::protecting();
    setup.memory.write(INPUT, &protect_block(0x9, 0, &[0x100, 0x101])).unwrap();
    let control = 0x000c | 2 << 32;
    let input_error = (HvStatus::INVALID_HYPERCALL_INPUT, 0);
    let cases = [
        ("unknown code", 0x7777 | 1 << 32, (HvStatus::INVALID_HYPERCALL_CODE, 0)),
        ("code zero", 1 << 32, (HvStatus::INVALID_HYPERCALL_CODE, 0)),
        ("reserved bit 27", control | 1 << 27, input_error),
        ("reserved bit 44", control | 1 << 44, input_error),
        ("reserved bit 60", control | 1 << 60, input_error),
        ("nested", control | 1 << 31, input_error),
        ("variable header", control | 1 << 17, input_error),
        ("no elements", 0x000c, input_error),
        ("start beyond the list", control | 2 << 48, input_error),
        ("fast", control | 1 << 16, input_error),
        ("elements of a simple hypercall", 0x000f | 1 << 32, input_error),
    ];
    for (what, control, expected) in cases {
        assert_eq!(setup.hypercall_at(control, INPUT, OUTPUT), expected, "{what}");
    }
    assert_eq!(setup.partition.protection(0x100), MapFlags::ALL);
    assert_eq!(setup.hypercall_at(control, INPUT, OUTPUT), (HvStatus::SUCCESS, 2));
    assert_eq!(setup.partition.protection(0x101), MapFlags::READ_ONLY);
}

#[test]
fn blocks_are_aligned_and_within_a_page_of_ram() {
    let setup = Setup::protecting();
    for input in [INPUT + 4, INPUT + 1, INPUT + 4096 - 16, RAM_END, 1 << 52, u64::MAX - 7] {
        assert_eq!(setup.hypercall_at(0x000c | 1 << 32, input, 0), (HvStatus::INVALID_ALIGNMENT, 0), "{input:#x}");
    }
    // 510 elements fill the page; one more crosses it.
    let gfns: Vec<u64> = (0x200..0x200 + 510).collect();
    assert_eq!(setup.protect(0x9, &gfns), (HvStatus::SUCCESS, 510));
    assert_eq!(setup.hypercall_at(0x000c | 511 << 32, INPUT, 0), (HvStatus::INVALID_ALIGNMENT, 0));
    // The output block counts too.
    setup
        .memory
        .write(INPUT, &{
            let mut block = registers_header(0xffff_fffe, 0x10);
            block.extend([0x10, 0, 2, 0, 0x10, 0, 2, 0]);
            block
        })
        .unwrap();
    let get = 0x0050 | 2 << 32;
    assert_eq!(setup.hypercall_at(get, INPUT, OUTPUT + 4096 - 16), (HvStatus::INVALID_ALIGNMENT, 0));
    assert_eq!(setup.hypercall_at(get, INPUT, OUTPUT + 4), (HvStatus::INVALID_ALIGNMENT, 0));
    assert_eq!(setup.hypercall_at(get, INPUT, OUTPUT + 4096 - 32), (HvStatus::SUCCESS, 2));
}

#[test]
fn foreign_partitions_and_undefined_vtls_are_refused() {
    let setup = Setup::protecting();
    let good = protect_block(0x9, 0, &[0x100]);
    for (at, byte) in [(0, 1), (7, 0), (12, 0x20)] {
        let mut block = good.clone();
        block[at] = byte;
        assert_eq!(setup.hypercall(0x000c | 1 << 32, &block), (HvStatus::INVALID_PARAMETER, 0), "byte {at}");
    }
}

/// Every hypercall with reserved fields: its control word, a good block, and where the fields are.
fn blocks_with_reserved_fields() -> Vec<(u64, Vec<u8>, Vec<usize>)> {
    let get = [registers_header(0xffff_fffe, 0), 0x000d_0004_u32.to_le_bytes().to_vec()].concat();
    let set = [registers_header(0xffff_fffe, 0x10), set_element(0x0002_0010, 0x1234)].concat();
    let partition = [vec![0xff; 8], vec![1, 1], vec![0; 6]].concat();
    let vp = [vec![0xff; 8], vec![1, 0, 0, 0, 1, 0, 0, 0], context().to_vec()].concat();
    vec![
        (0x000c | 1 << 32, protect_block(0x9, 0, &[0x100]), (13..16).collect()),
        (0x000d, partition, (10..16).collect()),
        (0x000f, vp, (13..16).collect()),
        (0x0050 | 1 << 32, get, (13..16).collect()),
        (0x0051 | 1 << 32, set, (13..16).chain(20..32).collect()),
    ]
}

#[test]
fn what_the_driver_leaves_in_reserved_fields_is_ignored() {
    // The bytes that a real kernel's uncleared input page has had there (LVBS contract §11.12).
    let setup = Setup::new();
    let mut block = registers_header(0xffff_fffe, 0);
    block[13..16].copy_from_slice(&[0x2f, 0xba, 0x81]);
    block.extend(0x000d_0004_u32.to_le_bytes());
    assert_eq!(setup.hypercall(0x0050 | 1 << 32, &block), (HvStatus::SUCCESS, 1));
    assert_eq!(setup.reports(), [""; 0]);
    // VTL1 does as well, but it is a kernel under test: it should have zeroed them.
    for (control, good, reserved) in blocks_with_reserved_fields() {
        for at in reserved {
            let setup = Setup::protecting();
            let expected = setup.hypercall(control, &good);
            let (setup, mut block) = (Setup::protecting(), good.clone());
            block[at] = 0x80;
            assert_eq!(setup.hypercall(control, &block), expected, "{control:#x}, byte {at}");
            assert!(setup.reports()[0].contains("reserved fields"), "{:?}", setup.reports());
        }
    }
}

#[test]
fn a_strict_hypervisor_refuses_reserved_fields() {
    for (control, good, reserved) in blocks_with_reserved_fields() {
        let setup = Setup::protecting();
        setup.partition.check_reserved_fields();
        for at in reserved {
            let mut block = good.clone();
            block[at] = 1;
            assert_eq!(setup.hypercall(control, &block), (HvStatus::INVALID_PARAMETER, 0), "{control:#x}, byte {at}");
        }
        assert_eq!(setup.partition.protection(0x100), MapFlags::ALL);
    }
    let setup = Setup::new();
    setup.partition.check_reserved_fields();
    let mut block = registers_header(0xffff_fffe, 0);
    block[15] = 1;
    block.extend(0x000d_0004_u32.to_le_bytes());
    assert_eq!(setup.hypercall(0x0050 | 1 << 32, &block), (HvStatus::INVALID_PARAMETER, 0), "VTL0's as well");
    assert_eq!(setup.reports(), [""; 0]);
}

#[test]
fn only_map_flags_the_tlfs_defines_are_taken() {
    let setup = Setup::protecting();
    for flags in 0..=0x1f_u32 {
        let defined = [0x0, 0x1, 0x3, 0x9, 0xb, 0xd, 0xf].contains(&flags);
        let expected = if defined { (HvStatus::SUCCESS, 1) } else { (HvStatus::INVALID_PARAMETER, 0) };
        assert_eq!(setup.protect(flags, &[0x100]), expected, "{flags:#x}");
    }
    assert_eq!(setup.protect(0x8000_0009, &[0x100]), (HvStatus::INVALID_PARAMETER, 0));
    // KX without UX is undefined, and said to be so.
    assert!(setup.reports().iter().any(|report| report.contains("R-K-")), "{:?}", setup.reports());
    assert!(setup.reports().iter().any(|report| report.contains("RWK-")));
}

#[test]
fn a_list_stops_at_the_first_frame_that_is_not_ram() {
    let setup = Setup::protecting();
    let gfns = [0x100, 0x101, RAM_END >> 12, 0x102];
    assert_eq!(setup.protect(0x0, &gfns), (HvStatus::INVALID_PARAMETER, 2));
    let flags = [0x100, 0x101, 0x102].map(|gfn| setup.partition.protection(gfn));
    assert_eq!(flags, [MapFlags::NONE, MapFlags::NONE, MapFlags::ALL]);
    // Going on from where it stopped: reps done count from the list's first element.
    setup.memory.write(INPUT, &protect_block(0x0, 0, &[0x100, 0x101, 0x110, 0x102])).unwrap();
    assert_eq!(setup.hypercall_at(0x000c | 4 << 32 | 2 << 48, INPUT, 0), (HvStatus::SUCCESS, 4));
    assert_eq!(setup.partition.protection(0x102), MapFlags::NONE);
}

#[test]
fn frames_that_the_hypervisor_holds_are_refused_like_those_that_are_no_ram() {
    let setup = Setup::protecting();
    setup.partition.hold_frames(FrameRange::from_gfns(0x101, 0x102).unwrap());
    assert_eq!(setup.protect(0x0, &[0x100, 0x101, 0x102]), (HvStatus::INVALID_PARAMETER, 1));
    let flags = [0x100, 0x101, 0x102].map(|gfn| setup.partition.protection(gfn));
    assert_eq!(flags, [MapFlags::NONE, MapFlags::ALL, MapFlags::ALL]);
}

#[test]
fn a_hypervisor_may_refuse_the_whole_list() {
    let setup = Setup::protecting();
    setup.partition.set_refusal(Refusal::WholeList);
    setup.partition.hold_frames(FrameRange::from_gfns(0x110, 0x111).unwrap());
    for odd in [RAM_END >> 12, 0x110, 1 << 40] {
        assert_eq!(setup.protect(0x0, &[0x100, 0x101, odd, 0x102]), (HvStatus::OPERATION_DENIED, 0), "{odd:#x}");
        setup.memory.write(INPUT, &protect_block(0x0, 0, &[0x100, 0x101, odd, 0x102])).unwrap();
        let continued = setup.hypercall_at(0x000c | 4 << 32 | 1 << 48, INPUT, 0);
        assert_eq!(continued, (HvStatus::OPERATION_DENIED, 1), "none done after the start index");
        for gfn in [0x100, 0x101, 0x102] {
            assert_eq!(setup.partition.protection(gfn), MapFlags::ALL);
        }
    }
    // What lies before the start index is not looked at.
    setup.memory.write(INPUT, &protect_block(0x0, 0, &[0x110, 0x100])).unwrap();
    assert_eq!(setup.hypercall_at(0x000c | 2 << 32 | 1 << 48, INPUT, 0), (HvStatus::SUCCESS, 2));
}

#[test]
fn a_vtl_protects_only_against_lower_ones() {
    let setup = Setup::protecting();
    let list = |input_vtl| protect_block(0x9, input_vtl, &[0x100]);
    let control = 0x000c | 1 << 32;
    // 1 without the "use" bit means the current VTL as 0 does (the C secure kernel and litebox differ here).
    for (input_vtl, expected) in [
        (0x00, HvStatus::SUCCESS),
        (0x01, HvStatus::SUCCESS),
        (0x11, HvStatus::SUCCESS),
        (0x10, HvStatus::INVALID_PARAMETER),
        (0x12, HvStatus::INVALID_PARAMETER),
    ] {
        assert_eq!(setup.hypercall(control, &list(input_vtl)).0, expected, "{input_vtl:#x}");
    }
    setup.fast_return();
    for input_vtl in [0x00, 0x01, 0x10, 0x11] {
        let result = setup.hypercall(control, &protect_block(0xf, input_vtl, &[0x100]));
        assert_eq!(result, (HvStatus::ACCESS_DENIED, 0), "VTL0 with {input_vtl:#x}");
    }
    assert_eq!(setup.partition.protection(0x100), MapFlags::READ_ONLY);
}

#[test]
fn protections_need_enable_vtl_protection() {
    let setup = Setup::in_vtl1();
    assert_eq!(setup.protect(0x9, &[0x100]), (HvStatus::ACCESS_DENIED, 0));
    assert_eq!(setup.set(0, 0x000d_0007, 0x1f), HvStatus::SUCCESS);
    assert_eq!(setup.protect(0x9, &[0x100]), (HvStatus::SUCCESS, 1));
}

#[test]
fn vtl1_is_enabled_once_and_only_as_the_tlfs_allows() {
    let setup = Setup::new();
    assert_eq!(setup.get(0, 0x000d_0004), Ok(0x0001_0001), "VTL0 enabled, maximum 1");
    assert_eq!(setup.enable_vp_vtl(0xffff_fffe, &context()), HvStatus::INVALID_VTL_STATE);
    assert_eq!(setup.enable_partition_vtl(2, 0), HvStatus::INVALID_PARAMETER);
    assert_eq!(setup.enable_partition_vtl(1, 2), HvStatus::INVALID_PARAMETER);
    assert_eq!(setup.enable_partition_vtl(0, 0), HvStatus::VTL_ALREADY_ENABLED);
    assert_eq!(setup.enable_partition_vtl(1, 1), HvStatus::SUCCESS);
    assert_eq!(setup.enable_partition_vtl(1, 1), HvStatus::VTL_ALREADY_ENABLED);
    assert_eq!(setup.get(0, 0x000d_0004), Ok(0x0021_0003));
    assert_eq!(setup.enable_vp_vtl(2, &context()), HvStatus::INVALID_VP_INDEX);
    assert_eq!(setup.get(0, 0x000d_0003), Ok(0x0001_0000));
    assert_eq!(setup.enable_vp_vtl(0xffff_fffe, &context()), HvStatus::SUCCESS);
    assert_eq!(setup.get(0, 0x000d_0003), Ok(0x0003_0000));
    // Once it is enabled on a processor, VTL0 enables it nowhere else: that is VTL1's.
    assert_eq!(setup.enable_vp_vtl(1, &context()), HvStatus::ACCESS_DENIED);
    setup.call();
    assert_eq!(setup.enable_vp_vtl(1, &context()), HvStatus::SUCCESS);
    assert_eq!(setup.enable_vp_vtl(1, &context()), HvStatus::VTL_ALREADY_ENABLED);
    assert!(setup.partition.is_vtl_enabled(1, Vtl::Vtl1));
}

#[test]
fn an_initial_context_must_be_able_to_run() {
    let setup = Setup::new();
    setup.enable_partition_vtl(1, 1);
    for (what, at, value) in [
        ("real mode", 192, 0x10_u64),
        ("no paging", 192, 0x33),
        ("no PAE", 208, 0x90),
        ("no long mode", 184, 0x801),
        ("fixed flag", 16, 0),
        ("RIP", 0, 0x8000_0000_0000),
    ] {
        let mut context = context();
        context[at..at + 8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(setup.enable_vp_vtl(0, &context), HvStatus::INVALID_REGISTER_VALUE, "{what}");
    }
    assert_eq!(setup.enable_vp_vtl(0, &context()), HvStatus::SUCCESS);
}

#[test]
fn privileges_are_needed() {
    let setup = Setup::with(|config| config.privileges.remove(Privileges::ACCESS_VSM));
    assert_eq!(setup.enable_partition_vtl(1, 1), HvStatus::ACCESS_DENIED);
    let setup = Setup::with(|config| config.privileges.remove(Privileges::ACCESS_VP_REGISTERS));
    assert_eq!(setup.get(0, 0x000d_0004), Err(HvStatus::ACCESS_DENIED));
    let setup = Setup::with(|config| config.mbec_available = false);
    assert_eq!(setup.enable_partition_vtl(1, 1), HvStatus::INVALID_PARAMETER);
    assert_eq!(setup.enable_partition_vtl(1, 0), HvStatus::SUCCESS);
}

#[test]
fn vtl0_passes_no_parameters_in_memory_it_may_not_access() {
    let setup = Setup::protecting();
    setup.protect(0x0, &[INPUT >> 12]);
    setup.protect(0x9, &[OUTPUT >> 12]);
    setup.fast_return();
    assert_eq!(setup.get(0, 0x000d_0004), Err(HvStatus::ACCESS_DENIED));
    setup.call();
    setup.protect(0x9, &[INPUT >> 12]);
    setup.fast_return();
    assert_eq!(setup.get(0, 0x000d_0004), Err(HvStatus::ACCESS_DENIED), "the output is read-only");
    setup.call();
    setup.protect(0xb, &[OUTPUT >> 12]);
    setup.fast_return();
    assert!(setup.get(0, 0x000d_0004).is_ok());
}

#[test]
fn vtl_switches_are_not_hypercalls_and_gaps_of_the_model_are_reported() {
    let setup = Setup::protecting();
    assert!(setup.reports().is_empty());
    for (count, code) in (1..).zip([0x11, 0x12, 0x9a]) {
        assert_eq!(setup.hypercall_at(code, INPUT, OUTPUT), (HvStatus::INVALID_HYPERCALL_CODE, 0), "{code:#x}");
        assert_eq!(setup.reports().len(), count, "{code:#x}");
    }
}

#[test]
fn injected_failures_strike_where_they_are_told_to() {
    let setup = Setup::protecting();
    let code = HypercallCode::MODIFY_VTL_PROTECTION_MASK;
    let before = setup.partition.hypercall_count(code);
    setup.partition.inject(Injection::new(1, HvStatus::INSUFFICIENT_MEMORY).of(code).at_element(2));
    assert_eq!(setup.protect(0x9, &[0x100, 0x101, 0x102]), (HvStatus::SUCCESS, 3));
    assert_eq!(setup.get(0, 0x000d_0004), Ok(0x0021_0003), "other hypercalls do not count");
    assert_eq!(setup.protect(0x0, &[0x100, 0x101, 0x102]), (HvStatus::INSUFFICIENT_MEMORY, 2));
    let flags = [0x100, 0x101, 0x102].map(|gfn| setup.partition.protection(gfn));
    assert_eq!(flags, [MapFlags::NONE, MapFlags::NONE, MapFlags::READ_ONLY]);
    assert_eq!(setup.protect(0x0, &[0x100, 0x101, 0x102]), (HvStatus::SUCCESS, 3));
    assert_eq!(setup.partition.hypercall_count(code) - before, 3);
    setup.partition.fail_hypercall_at(0, HvStatus::TIMEOUT);
    assert_eq!(setup.get(0, 0x000d_0004), Err(HvStatus::TIMEOUT));
}

#[test]
fn a_hypercall_needs_the_hypercall_page() {
    let setup = Setup::new();
    setup.write_msr(Vtl::Vtl0, 0x4000_0001, 0x1000).unwrap();
    assert_eq!(setup.get(0, 0x000d_0004), Err(HvStatus::OPERATION_DENIED));
}
