//! Secure intercepts of the model (LVBS contract §6, §7; TLFS "Secure Intercepts", "MBEC", "SynIC Messages").

use std::sync::atomic::{AtomicBool, Ordering};

use litebox_platform_lvbs::hv::Vtl::Vtl1;
use litebox_platform_lvbs::hv::{HvRegisterName, HvRegisterValue, HvStatus, MapFlags};
use vsm_sim::hv::{Access, ExecutionState, GuestMemory, Instruction, MemoryAccess, Mode, Verdict};

use super::support::{ASSIST, SIMP, Setup};

const KERNEL: Mode = Mode { user: false, smep_disabled: false };
const AT: Instruction = Instruction {
    rip: 0xffff_ffff_8100_0000,
    length: 3,
    rflags: 0x246,
    cs: litebox_platform_lvbs::hv::SegmentRegister { base: 0, limit: 0, selector: 0x10, attributes: 0xa09b },
    cpl: 0,
    cr8: 0xf,
    state: ExecutionState::Long,
};

/// VTL1 has set up its SynIC as the contract says, intercepts what LOCK_REGS does, and has returned.
fn locked() -> Setup {
    let setup = Setup::protecting();
    for (number, value) in
        [(0x4000_0073, ASSIST | 1), (0x4000_0083, SIMP | 1), (0x4000_0090, 0x200f3), (0x4000_0080, 1)]
    {
        setup.write_msr(Vtl1, number, value).unwrap();
    }
    for (name, value) in
        [(0x000e_0000, 0x7f_d543), (0x000e_0001, 0x8001_0001), (0x000e_0002, 0xffff_ffff_ffff_de3f), (0x000d_0010, 1)]
    {
        assert_eq!(setup.set(0, name, value), HvStatus::SUCCESS);
    }
    setup.fast_return();
    setup
}

fn slot(setup: &Setup) -> [u8; 256] {
    let mut bytes = [0; 256];
    setup.memory.read(SIMP, &mut bytes).unwrap();
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn write_register(setup: &Setup, name: u32, old: u64, new: u64) -> Verdict {
    let value = HvRegisterValue::from_u64;
    setup.partition.register_write(0, HvRegisterName(name), value(old), value(new), &AT, &setup.memory)
}

fn write_msr(setup: &Setup, number: u32, value: u64) -> Verdict {
    setup.partition.msr_write_access(0, number, 0, value, &AT, &setup.memory)
}

fn access(setup: &Setup, gpa: u64, access: Access, mode: Mode) -> Verdict {
    setup.partition.gpa_access(0, &MemoryAccess { gpa, gva: Some(0x5000), access, mode }, &AT, &setup.memory)
}

#[test]
fn a_register_intercept_arrives_as_the_contract_lays_it_out() {
    let setup = locked();
    assert_eq!(write_register(&setup, 0x0004_0000, 0x8005_0033, 0x8004_0033), Verdict::Intercepted);
    let message = slot(&setup);
    assert_eq!(message[..4], 0x8001_0006_u32.to_le_bytes());
    assert_eq!((message[4], message[5]), (64, 0));
    let payload = &message[16..];
    assert_eq!(payload[..4], [0; 4], "VP 0");
    assert_eq!(payload[4], 0xf3, "instruction length in the low nibble, CR8 in the high one");
    assert_eq!(payload[5], 1, "a write");
    assert_eq!((word(payload, 24), word(payload, 32)), (AT.rip, AT.rflags));
    assert_eq!(payload[44..48], 0x0004_0000_u32.to_le_bytes());
    assert_eq!(word(payload, 48), 0x8004_0033);
    assert_eq!(setup.partition.pending_interrupt(0, Vtl1), Some(0xf3));
    assert!(setup.partition.interrupt_entry(0, &setup.memory));
    let mut reason = [0; 4];
    setup.memory.read(ASSIST + 8, &mut reason).unwrap();
    assert_eq!(reason, [2, 0, 0, 0]);
}

#[test]
fn masked_bits_alone_are_intercepted() {
    let setup = locked();
    // TS and AM are not in the CR0 mask; PCE (bit 8) is not in the CR4 mask, SMEP (bit 20) is.
    assert_eq!(write_register(&setup, 0x0004_0000, 0x8005_0033, 0x8005_003b), Verdict::Allowed);
    assert_eq!(write_register(&setup, 0x0004_0003, 0x0010_00a0, 0x0010_01a0), Verdict::Allowed);
    assert_eq!(write_register(&setup, 0x0004_0003, 0x0010_00a0, 0x00a0), Verdict::Intercepted);
    assert_eq!(write_register(&setup, 0x0004_0002, 1, 2), Verdict::Allowed, "CR3 cannot be intercepted");
    assert_eq!(write_register(&setup, 0x0004_0005, 1, 3), Verdict::Allowed, "XCR0 is not asked for");
}

#[test]
fn descriptor_tables_are_intercepted_whatever_the_value() {
    for name in [0x0007_0000, 0x0007_0001, 0x0006_0006, 0x0006_0007] {
        let setup = locked();
        assert_eq!(write_register(&setup, name, 5, 5), Verdict::Intercepted, "{name:#x}");
    }
}

#[test]
fn msr_intercepts_name_the_msr_and_its_halves() {
    for number in [0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0x1b, 0x174, 0x175, 0x176] {
        let setup = locked();
        assert_eq!(write_msr(&setup, number, 0x1_2345_6789), Verdict::Intercepted, "{number:#x}");
        let message = slot(&setup);
        assert_eq!(message[..4], 0x8001_0001_u32.to_le_bytes());
        let payload = &message[16..];
        assert_eq!(payload[40..44], number.to_le_bytes());
        assert_eq!((word(payload, 48), word(payload, 56)), (1, 0x2345_6789), "RDX, RAX");
    }
    let setup = locked();
    for number in [0xc000_0101, 0xc000_0102, 0x277, 0x10] {
        assert_eq!(write_msr(&setup, number, 1), Verdict::Allowed, "{number:#x}");
    }
    assert_eq!(setup.partition.msr_read_access(0, 0xc000_0080, &AT, &setup.memory), Verdict::Allowed, "reads");
}

#[test]
fn nothing_is_intercepted_on_a_processor_that_is_not_locked() {
    let setup = locked();
    let value = HvRegisterValue::from_u64;
    let verdict = setup.partition.register_write(1, HvRegisterName::CR0, value(0), value(1), &AT, &setup.memory);
    assert_eq!(verdict, Verdict::Allowed);
}

#[test]
fn a_memory_violation_is_reported_with_its_address() {
    let setup = locked();
    setup.call();
    setup.protect(0x9, &[0x100]);
    setup.fast_return();
    assert_eq!(access(&setup, 0x10_0123, Access::Read, KERNEL), Verdict::Allowed);
    assert_eq!(access(&setup, 0x10_0123, Access::Write, KERNEL), Verdict::Intercepted);
    let message = slot(&setup);
    assert_eq!(message[..4], 0x8000_0001_u32.to_le_bytes());
    assert_eq!(message[4], 0x50);
    let payload = &message[16..];
    assert_eq!((payload[5], payload[45]), (1, 1), "a write, with a valid virtual address");
    assert_eq!((word(payload, 48), word(payload, 56)), (0x5000, 0x10_0123));
    assert_eq!(access(&setup, 0x100_0000, Access::Read, KERNEL), Verdict::Unmapped);
}

#[test]
fn execution_follows_mbec() {
    let user = Mode { user: true, smep_disabled: false };
    let no_smep = Mode { user: true, smep_disabled: true };
    for (mbec, flags, mode, allowed) in [
        (1, 0x9, user, true),
        (1, 0x9, KERNEL, false),
        (1, 0x9, no_smep, false),
        (1, 0xd, KERNEL, true),
        (1, 0x1, user, false),
        (0, 0x9, user, false),
        (0, 0xd, user, true),
        (0, 0xd, KERNEL, true),
    ] {
        let setup = locked();
        setup.call();
        assert_eq!(setup.set(0, 0x000d_0010, mbec), HvStatus::SUCCESS);
        setup.protect(flags, &[0x100]);
        setup.fast_return();
        let expected = if allowed { Verdict::Allowed } else { Verdict::Intercepted };
        assert_eq!(access(&setup, 0x10_0000, Access::Execute, mode), expected, "{mbec} {flags:#x} {mode:?}");
    }
}

#[test]
fn further_messages_wait_until_the_slot_is_free_and_eom_is_written() {
    let setup = locked();
    write_msr(&setup, 0xc000_0081, 1);
    write_msr(&setup, 0xc000_0082, 2);
    write_msr(&setup, 0xc000_0083, 3);
    let first = slot(&setup);
    assert_eq!(word(&first[16..], 56), 1);
    assert_eq!(first[5] & 1, 1, "more wait");
    assert!(setup.partition.acknowledge_interrupt(0, Vtl1, 0xf3));
    // EOM alone does not help while the slot is taken.
    setup.write_msr(Vtl1, 0x4000_0084, 0).unwrap();
    assert_eq!(setup.partition.pending_interrupt(0, Vtl1), None);
    for (value, more) in [(2, 1), (3, 0)] {
        setup.memory.write(SIMP, &[0; 4]).unwrap();
        assert_eq!(setup.partition.pending_interrupt(0, Vtl1), None, "not before EOM");
        setup.write_msr(Vtl1, 0x4000_0084, 0).unwrap();
        let message = slot(&setup);
        assert_eq!((word(&message[16..], 56), message[5] & 1), (value, more));
        assert!(setup.partition.acknowledge_interrupt(0, Vtl1, 0xf3), "an interrupt for each");
    }
    assert!(setup.reports().is_empty(), "{:?}", setup.reports());
}

#[test]
fn an_intercept_that_cannot_be_delivered_is_kept_and_reported() {
    let setup = locked();
    setup.write_msr(Vtl1, 0x4000_0080, 0).unwrap();
    assert_eq!(write_msr(&setup, 0xc000_0081, 7), Verdict::Intercepted);
    assert_eq!(slot(&setup)[..4], [0; 4]);
    assert_eq!(setup.reports().len(), 2, "{:?}", setup.reports());
    setup.write_msr(Vtl1, 0x4000_0080, 1).unwrap();
    assert_eq!(word(&slot(&setup)[16..], 56), 7);
}

/// An access that is allowed has taken place before a hypercall that forbids it returns.
#[test]
fn an_access_and_a_change_of_rights_do_not_overlap() {
    const GFN: u64 = 0x123;
    let setup = Setup::protecting();
    let access = MemoryAccess { gpa: GFN << 12, gva: None, access: Access::Write, mode: KERNEL };
    let (inside, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let work = || {
        inside.store(true, Ordering::SeqCst);
        std::thread::yield_now();
        inside.store(false, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        let stores = scope.spawn(|| {
            let mut done = 0;
            while !stop.load(Ordering::SeqCst) || done == 0 {
                done += u32::from(setup.partition.while_allowed(0, &access, work).is_ok());
            }
            done
        });
        for _ in 0..2000 {
            for flags in [MapFlags::READ_ONLY, MapFlags::ALL] {
                setup.partition.force_protection(GFN, GFN + 1, flags);
                let forbidden = !flags.contains(MapFlags::WRITE);
                assert!(!(forbidden && inside.load(Ordering::SeqCst)), "a store goes on after it was forbidden");
            }
        }
        stop.store(true, Ordering::SeqCst);
        assert!(stores.join().expect("no panic") > 0);
    });
    setup.partition.force_protection(GFN, GFN + 1, MapFlags::READ_ONLY);
    assert_eq!(setup.partition.while_allowed(0, &access, || panic!("forbidden")), Err::<(), _>(Verdict::Intercepted));
}
