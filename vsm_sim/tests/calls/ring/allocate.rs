//! AllocateRingbufferMemory over the hypervisor model: whose frames it takes, what a failure leaves, what VTL0 sees.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, MapFlags};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::{VSM_BASE, VSM_TABLE_LEN, VsmFunction};
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::{Access, GuestMemory, Injection};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::log_reader::LogReader;

use crate::setup::{end_boot, rights_and_owners};

/// An id behind the last call.
const NO_CALL: u64 = VSM_BASE + VSM_TABLE_LEN as u64;
const MODIFY: HypercallCode = HypercallCode::MODIFY_VTL_PROTECTION_MASK;

/// Frames of RAM, and VTL1's among them.
const RAM: u64 = 64 << 8;
const VTL1: std::ops::Range<u64> = 32 << 8..48 << 8;
/// The ring: 3 MiB at 8 MiB, so that it takes several hypercalls.
const RING: u64 = 8 << 20;
const SIZE: u64 = 3 << 20;

fn machine() -> HostedMachine {
    let mut machine = HostedMachine::new(HostedConfig::default());
    machine.keep_log();
    // What was in the memory before, and might be taken for a log.
    bytes::write(machine.memory(), RING, &b"\x1e0000000000000000 00000000 I old \n".repeat(100)).unwrap();
    machine
}

fn allocate(machine: &HostedMachine, pa: u64, size: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::AllocateRingbufferMemory.id(), pa, size, 0)
}

/// Everything a call could leave behind: rights, owners, mapping, the ring, and the first bytes of the memory.
fn snapshot(machine: &HostedMachine) -> (Vec<MapFlags>, Vec<FrameState>, bool, bool, Vec<u8>) {
    let (rights, owners) = rights_and_owners(machine, RAM);
    let mut memory = vec![0; 8192];
    bytes::read(machine.memory(), RING, &mut memory).unwrap();
    (rights, owners, machine.ring().mapped().is_some(), machine.platform().log_ring().lock().is_some(), memory)
}

#[test]
fn vtl0_reads_the_log_and_cannot_write_it() {
    let machine = machine();
    assert_eq!(allocate(&machine, RING, SIZE), 0);
    for gfn in [RING >> 12, ((RING + SIZE) >> 12) - 1] {
        assert_eq!(machine.platform().frames().lock().get(gfn), Some((Owner::RingBuffer, Permission::R)));
        assert_eq!(machine.partition().protection(gfn), MapFlags::READ_ONLY);
        assert!(machine.vtl0_write(0, gfn << 12, &[0]).is_err());
        assert!(machine.vtl0_may(0, gfn << 12, Access::Execute).is_err());
    }
    for gfn in [(RING >> 12) - 1, (RING + SIZE) >> 12] {
        assert_eq!(machine.partition().protection(gfn), MapFlags::ALL, "a neighbour");
    }
    assert_eq!(snapshot(&machine).4[0x800..], [0; 8192 - 0x800], "the memory is wiped");
    // What is logged from now on is there, and nothing of what was there before.
    let mut reader = LogReader::new(usize::try_from(SIZE).unwrap());
    let mut poll = || {
        reader.poll(&mut |offset, into| {
            for (at, byte) in (RING + offset as u64..).zip(into.chunks_mut(1)) {
                machine.vtl0_read(0, at, byte).expect("VTL0 may read the ring");
            }
        })
    };
    let first = poll();
    assert_eq!((first.lost, first.lines.len()), (0, 1));
    assert_eq!(first.lines[0].text, "log ring: 3072 KiB at 0x800000, read-only for VTL0");
    let (hypercalls, before) = (machine.partition().hypercall_count(MODIFY), machine.ring().writes());
    assert_eq!(machine.vtl_call(0, NO_CALL, 0, 0, 0), Errno::Einval.to_result());
    let second = poll();
    assert_eq!((second.lines.len(), second.lines[0].level, second.lines[0].number), (1, 'W', 1));
    assert_eq!(machine.log_lines().last(), Some(&second.lines[0].on_console()["vtl1: ".len()..].to_owned()));
    assert!(machine.ring().writes() > before);
    assert_eq!(machine.partition().hypercall_count(MODIFY), hypercalls, "a line costs no hypercall");
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn a_failure_at_any_step_leaves_everything_as_it_was() {
    let steps = {
        let machine = machine();
        let before = machine.partition().hypercall_count(MODIFY);
        assert_eq!(allocate(&machine, RING, SIZE), 0);
        machine.partition().hypercall_count(MODIFY) - before
    };
    assert_eq!(steps, 2, "768 frames");
    for step in 0..steps {
        for element in [0, 1, 100, 257] {
            let machine = machine();
            let before = snapshot(&machine);
            let failure = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(MODIFY).at_element(element);
            machine.partition().inject(failure);
            assert_eq!(allocate(&machine, RING, SIZE), Errno::Eio.to_result(), "step {step}, element {element}");
            assert!(snapshot(&machine) == before, "step {step}, element {element}");
            machine.partition().clear_injections();
            assert_eq!(allocate(&machine, RING, SIZE), 0, "and nothing stands in the way of another try");
        }
    }
    let machine = machine();
    let before = snapshot(&machine);
    machine.ring().set_failing(true);
    assert_eq!(allocate(&machine, RING, SIZE), Errno::Enomem.to_result());
    assert!(snapshot(&machine) == before, "a mapping that fails");
    machine.ring().set_failing(false);
    assert_eq!(allocate(&machine, RING, SIZE), 0);
}

#[test]
fn bad_parameters_are_refused_and_change_nothing() {
    let machine = machine();
    let before = snapshot(&machine);
    let calls = machine.partition().hypercall_count(MODIFY);
    for (what, pa, size, errno) in [
        ("no bytes", RING, 0, Errno::Einval),
        ("half a page", RING, 0x800, Errno::Einval),
        ("a page and a half", RING, 0x1800, Errno::Einval),
        ("misaligned", RING + 8, 0x1000, Errno::Einval),
        ("more than VTL1 has addresses for", 0, (16 << 20) + 0x1000, Errno::Einval),
        ("the greatest size", RING, u64::MAX, Errno::Einval),
        ("beyond physical addresses", 1 << 52, 0x1000, Errno::Efault),
        ("the greatest address", !0xfff, 0x1000, Errno::Efault),
        ("ends beyond physical addresses", (1 << 52) - 0x1000, 0x2000, Errno::Efault),
        ("VTL1's first page", VTL1.start << 12, 0x1000, Errno::Eacces),
        ("VTL1's last page", (VTL1.end - 1) << 12, 0x1000, Errno::Eacces),
        ("ends in VTL1", (VTL1.start - 1) << 12, 0x2000, Errno::Eacces),
        ("around VTL1's start", (VTL1.start - 8) << 12, 16 << 12, Errno::Eacces),
    ] {
        assert_eq!(allocate(&machine, pa, size), errno.to_result(), "{what}");
        assert!(snapshot(&machine) == before, "{what} left something behind");
    }
    assert_eq!(machine.partition().hypercall_count(MODIFY), calls, "nothing was tried");
    for (what, pa, size) in [("beyond RAM", RAM << 12, 0x1000), ("ends beyond RAM", (RAM - 1) << 12, 0x2000)] {
        assert_eq!(allocate(&machine, pa, size), Errno::Eio.to_result(), "{what}");
        assert!(snapshot(&machine) == before, "{what} left something behind");
    }
}

#[test]
fn there_is_one_ring_and_only_before_the_end_of_boot() {
    let machine = machine();
    assert_eq!(allocate(&machine, RING, SIZE), 0);
    let before = snapshot(&machine);
    assert_eq!(allocate(&machine, RING + SIZE, 0x1000), Errno::Ebusy.to_result());
    assert_eq!(allocate(&machine, RING, SIZE), Errno::Ebusy.to_result());
    let (rights, owners, ..) = snapshot(&machine);
    assert!(rights == before.0 && owners == before.1);
    let machine = self::machine();
    assert_eq!(end_boot(&machine), 0);
    let before = snapshot(&machine);
    assert_eq!(allocate(&machine, RING, SIZE), Errno::Eperm.to_result());
    assert!(snapshot(&machine) == before);
}

#[test]
fn a_later_protect_memory_leaves_the_ring_alone() {
    let machine = machine();
    assert_eq!(allocate(&machine, RING, SIZE), 0);
    // One range over the ring and its surroundings, writable.
    let list = 0x10_0000_u64;
    for (offset, value) in [(16, 1_u64), (24, 0), (32, RING - 0x4000), (40, RING + SIZE + 0x4000), (48, 3)] {
        machine.memory().write(list + offset, &value.to_le_bytes()).unwrap();
    }
    assert_eq!(machine.vtl_call(0, VsmFunction::ProtectMemory.id(), list, 1, 0), 0);
    assert_eq!(machine.partition().protection(RING >> 12), MapFlags::READ_ONLY);
    assert_eq!(
        machine.partition().protection((RING >> 12) - 1),
        MapFlags::READ | MapFlags::WRITE | MapFlags::USER_EXECUTE
    );
}
