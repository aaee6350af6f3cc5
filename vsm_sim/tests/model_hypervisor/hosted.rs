//! The hosted machine: boots as the contract has it, and its witnesses see what they are for.

use std::sync::{Arc, Mutex};

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::address::{FrameRange, PhysAddr};
use litebox_platform_lvbs::hardware::calls::{get_vp_registers, modify_vtl_protection_mask, set_vp_registers};
use litebox_platform_lvbs::hv::{HvRegisterName, HvRegisterValue, HvStatus, HypercallCode, InputVtl, MapFlags, Vtl};
use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_TABLE_LEN, VsmFunction};
use vsm_sim::hosted::{HostedConfig, HostedMachine, RacePoint};
use vsm_sim::hv::{Access, GuestMemory, Injection, Refusal, TraceEvent, Verdict};
use vsm_sim::vtl0::lists::{Range, Scratch, write_cpu_mask, write_list};
use vsm_sim::vtl0::memory_map::{MemoryMap, default_region_size};
use vsm_sim::vtl0::ranges::{CODE_START, Kernel, READ_EXECUTE, READ_ONLY, READ_WRITE, kernel_ranges, last_attributes};

#[test]
fn boots_within_the_specification_and_protects_itself() {
    let machine = HostedMachine::new(HostedConfig::default());
    assert_eq!(machine.partition().reports(), []);
    assert_eq!(machine.partition().active_vtl(0), Vtl::Vtl0);
    assert!(machine.partition().secure_config(0).is_mbec_enabled());
    for gpa in [32 << 20, (48 << 20) - 4096] {
        for access in [Access::Read, Access::Write, Access::Execute] {
            assert_eq!(machine.vtl0_may(0, gpa, access), Err(Verdict::Intercepted), "{gpa:#x} {access:?}");
        }
    }
    for gpa in [(32 << 20) - 1, 48 << 20] {
        assert_eq!(machine.vtl0_may(0, gpa, Access::Write), Ok(()));
    }
    let explicit: Vec<_> = machine.partition().protections().intervals().collect();
    assert_eq!(explicit, [(0x2000, 0x3000, MapFlags::NONE)]);
}

#[test]
fn typed_hypercalls_reach_the_model() {
    let machine = HostedMachine::new(HostedConfig::default());
    machine.in_vtl1(0, |platform| {
        let hw = platform.hardware();
        let names = [HvRegisterName::CR_INTERCEPT_CONTROL, HvRegisterName::CR_INTERCEPT_CR4_MASK];
        let values = [HvRegisterValue::from_u64(0x7f_d543), HvRegisterValue::from_u64(!0x21c0)];
        set_vp_registers(hw, InputVtl::CURRENT, &[(names[0], values[0]), (names[1], values[1])]).unwrap();
        let mut read = [HvRegisterValue::default(); 2];
        get_vp_registers(hw, InputVtl::CURRENT, &names, &mut read).unwrap();
        assert_eq!(read, values);
        assert_eq!(modify_vtl_protection_mask(hw, MapFlags::READ_ONLY, &[5, 6, 7]), Ok(()));
        assert_eq!(modify_vtl_protection_mask(hw, MapFlags::READ_ONLY, &[]), Ok(()));
        let beyond = modify_vtl_protection_mask(hw, MapFlags::NONE, &[5, 6, 1 << 40]);
        assert_eq!(beyond, Err((2, HvStatus::INVALID_PARAMETER)));
    });
    assert_eq!(machine.partition().protection(7), MapFlags::READ_ONLY);
    assert_eq!(machine.partition().protection(6), MapFlags::NONE);
    let code = HypercallCode::GET_VP_REGISTERS;
    assert_eq!(machine.partition().hypercall_count(code), 1, "two registers, one hypercall");
}

#[test]
fn an_incomplete_success_is_taken_up_and_one_without_progress_is_a_failure() {
    let machine = HostedMachine::new(HostedConfig::default());
    let close = |gfns: &[u64]| {
        machine.in_vtl1(0, |platform| modify_vtl_protection_mask(platform.hardware(), MapFlags::NONE, gfns))
    };
    let code = HypercallCode::MODIFY_VTL_PROTECTION_MASK;
    let before = machine.partition().hypercall_count(code);
    machine.partition().inject(Injection::new(0, HvStatus::SUCCESS).at_element(1));
    assert_eq!(close(&[5, 6, 7]), Ok(()));
    assert_eq!(machine.partition().hypercall_count(code) - before, 2);
    for gfn in [5, 6, 7] {
        assert_eq!(machine.partition().protection(gfn), MapFlags::NONE);
    }
    machine.partition().inject(Injection::new(0, HvStatus::SUCCESS).at_element(1).repeated(2));
    assert_eq!(close(&[8, 9]), Err((1, HvStatus::TIMEOUT)), "the second answer made no progress");
}

#[test]
fn unknown_calls_are_refused_through_the_jump_table() {
    let machine = HostedMachine::new(HostedConfig::default());
    for id in
        [0, 1, VSM_BASE - 1, VSM_BASE + VSM_TABLE_LEN as u64, 1 << 32 | VsmFunction::SignalEndOfBoot.id(), u64::MAX]
    {
        assert_eq!(machine.vtl_call(0, id, 0, 0, 0), Errno::Einval.to_result(), "{id:#x}");
    }
    assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0, "SignalEndOfBoot");
    assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), Errno::Eperm.to_result(), "only once");
}

#[test]
fn every_fetch_of_a_byte_is_counted_and_can_be_raced() {
    let machine = HostedMachine::new(HostedConfig::default());
    machine.memory().write(0x10_0000, &[7; 16]).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let witness = Arc::clone(&seen);
    machine.memory().set_race(Some(Box::new(move |point, memory| {
        witness.lock().unwrap().push(point);
        if let RacePoint::AfterRead { gpa, .. } = point {
            memory.write(gpa, &[9]).unwrap();
        }
    })));
    machine.memory().count_fetches();
    let at = PhysAddr::new(0x10_0000).unwrap();
    let mut bytes = [0; 4];
    let read = |bytes: &mut [u8]| machine.in_vtl1(0, |platform| platform.hardware().read_vtl0(at, bytes));
    read(&mut bytes).unwrap();
    assert_eq!(bytes, [7; 4]);
    read(&mut bytes[..1]).unwrap();
    assert_eq!(bytes, [9, 7, 7, 7], "VTL0 changed the byte in between");
    let fetches = machine.memory().take_fetches();
    assert_eq!((fetches.len(), fetches[&0x10_0000], fetches[&0x10_0001]), (4, 2, 1));
    let (gpa, len) = (0x10_0000, 4);
    let points = seen.lock().unwrap();
    assert_eq!(points[..2], [RacePoint::BeforeRead { gpa, len }, RacePoint::AfterRead { gpa, len }]);
}

#[test]
fn accesses_keep_the_rules_of_the_seam() {
    let machine = HostedMachine::new(HostedConfig::default());
    machine.in_vtl1(0, |platform| {
        let hw = platform.hardware();
        let at = |raw| PhysAddr::new(raw).unwrap();
        assert!(hw.read_vtl0(at(0x10_0ffc), &mut [0; 8]).is_err(), "crosses a page");
        assert!(hw.read_vtl0(at(64 << 20), &mut [0; 8]).is_err(), "not RAM");
        assert!(hw.write_vtl0(at(64 << 20), &[0; 8]).is_err(), "not RAM");
        assert!(hw.initial_vp_context(2).is_err(), "no such processor");
        assert_eq!(hw.initial_vp_context(1), hw.initial_vp_context(1));
    });
}

#[test]
fn the_trace_is_readable() {
    let machine = HostedMachine::new(HostedConfig::default());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    machine.partition().set_trace(Box::new(move |event: &TraceEvent<'_>| {
        sink.lock().unwrap().push(event.to_string());
    }));
    machine.in_vtl1(0, |platform| {
        modify_vtl_protection_mask(platform.hardware(), MapFlags::READ_EXECUTE, &[0x100, 0x101, 0x200]).unwrap();
    });
    let expected = [
        "VP 0 enters VTL1: VTL call",
        "VTL0 0x100000..0x102000 (2 frames): R-KU",
        "VTL0 0x200000..0x201000 (1 frames): R-KU",
        "VP 0 VTL1 HvCallModifyVtlProtectionMask[0..3] flags 0xd: 0x100000..0x102000 0x200000..0x201000 \
         -> SUCCESS (0x0), 3 done",
        "VP 0 returns to VTL0 (fast)",
    ];
    assert_eq!(*lines.lock().unwrap(), expected);
}

#[test]
fn effective_protections_do_not_tell_who_mentioned_a_frame() {
    let machine = HostedMachine::new(HostedConfig::default());
    let before = machine.partition().effective_protections();
    let all = MapFlags::ALL;
    assert_eq!(before, [(0, 0x2000, all), (0x2000, 0x3000, MapFlags::NONE), (0x3000, 0x4000, all)]);
    let protect = |flags| {
        machine.in_vtl1(0, |platform| modify_vtl_protection_mask(platform.hardware(), flags, &[0x100, 0x101]).unwrap());
    };
    protect(MapFlags::READ_ONLY);
    assert_eq!(machine.partition().effective_protections().len(), 5);
    protect(all);
    assert_eq!(machine.partition().effective_protections(), before);
}

#[test]
fn another_processor_enters_vtl1_after_it_was_enabled() {
    let machine = HostedMachine::new(HostedConfig::default());
    let page = 0x10_0000;
    machine.memory().write(page, &[0b11]).unwrap();
    assert!(!machine.partition().is_vtl_enabled(1, Vtl::Vtl1));
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), page >> 12, 0, 0), 0, "EnableAPsVtl");
    assert!(machine.partition().is_vtl_enabled(1, Vtl::Vtl1));
    machine.first_entry(1).unwrap();
    assert!(machine.partition().secure_config(1).is_mbec_enabled());
    // Both at once: each processor has its own hypercall pages.
    std::thread::scope(|scope| {
        for vp in 0..2 {
            let machine = &machine;
            scope.spawn(move || {
                for round in 0..200_u64 {
                    machine.in_vtl1(vp, |platform| {
                        let (hw, name) = (platform.hardware(), HvRegisterName::CR_INTERCEPT_CR0_MASK);
                        let value = HvRegisterValue::from_u64(round << 8 | u64::from(vp));
                        set_vp_registers(hw, InputVtl::CURRENT, &[(name, value)]).unwrap();
                        let mut read = [HvRegisterValue::default()];
                        get_vp_registers(hw, InputVtl::CURRENT, &[name], &mut read).unwrap();
                        assert_eq!(read, [value]);
                    });
                }
            });
        }
    });
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn the_end_of_boot_closes_what_it_can_however_the_hypervisor_refuses() {
    for refusal in [Refusal::AtFrame, Refusal::WholeList] {
        let machine = HostedMachine::new(HostedConfig::default());
        let range = Range::direct(0x20_0000, 0x21_0000, READ_WRITE | READ_EXECUTE);
        let list = write_list(machine.memory(), &mut Scratch::default(), &[range]).unwrap();
        assert_eq!(machine.vtl_call(0, VsmFunction::ProtectMemory.id(), list.pa, list.nranges, 0), 0);
        machine.partition().set_refusal(refusal);
        machine.partition().hold_frames(FrameRange::from_gfns(0x205, 0x206).unwrap());
        assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0);
        for gfn in 0x200..0x210 {
            let expected = if gfn == 0x205 { MapFlags::ALL } else { MapFlags::READ_EXECUTE };
            assert_eq!(machine.partition().protection(gfn), expected, "{refusal:?}, frame {gfn:#x}");
        }
    }
}

#[test]
fn of_a_real_kernels_list_the_last_naming_of_a_frame_counts() {
    let map = MemoryMap::new(1 << 30, None, default_region_size(2)).unwrap();
    let frames = |start, end| FrameRange::from_bytes(start, end).unwrap();
    let machine = HostedMachine::new(HostedConfig {
        ram: vec![frames(0, map.total)],
        vtl1_region: frames(map.region_start, map.region_end()),
        vps: 2,
    });
    let mut scratch = Scratch::default();
    let mask = write_cpu_mask(machine.memory(), &mut scratch, 0..2).unwrap();
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), mask, 0, 0), 0);
    machine.first_entry(1).unwrap();
    // This machine has RAM where a PC has a hole; of what is no RAM only the ioremapped frames remain.
    let mut ranges = kernel_ranges(&map, Kernel::Kaslr, CODE_START + 0x1000);
    ranges.retain(|range| range.pa < map.total);
    let list = write_list(machine.memory(), &mut scratch, &ranges).unwrap();
    for vp in 0..2 {
        assert_eq!(machine.vtl_call(vp, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    }
    assert_eq!(machine.vtl_call(1, VsmFunction::ProtectMemory.id(), list.pa, list.nranges, 0), 0);
    assert_eq!(machine.vtl_call(1, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0);
    for pa in (0..map.total).step_by(4096) {
        let expected = match last_attributes(&ranges, pa) {
            _ if (map.region_start..map.region_end()).contains(&pa) => MapFlags::NONE,
            Some(READ_ONLY) => MapFlags::READ_ONLY,
            Some(READ_WRITE) => MapFlags::READ_WRITE,
            Some(READ_EXECUTE) => MapFlags::READ_EXECUTE,
            other => panic!("{pa:#x} ends with {other:?}"),
        };
        assert_eq!(machine.partition().protection(pa >> 12), expected, "{pa:#x}");
    }
}
