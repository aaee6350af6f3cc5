//! BootAPs over the hypervisor model: who is called, how, and what becomes of processors that do not come.

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, Vtl};
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::hv::{GuestMemory, Injection, ReferenceTime};

use crate::setup::give_frames;

/// Frames of the cpumask and of the boot-signal page.
const MASK: u64 = 0x100;
const SIGNAL: u64 = 0x101;
/// What VTL0 has in the page, but in byte 0.
const DIRT: u8 = 0x5a;

fn machine(loader: Generation, vps: u32) -> HostedMachine {
    let config = HostedConfig { vps, ..HostedConfig::default() };
    let machine = HostedMachine::loaded_by(loader, config);
    machine.memory().write(SIGNAL << 12, &[DIRT; 4096]).unwrap();
    machine.memory().write(SIGNAL << 12, &[0xdc]).unwrap();
    machine
}

fn set_mask(machine: &HostedMachine, cpus: impl IntoIterator<Item = u32>) {
    let mut mask = [0_u8; 4096];
    for cpu in cpus {
        mask[cpu as usize / 8] |= 1 << (cpu % 8);
    }
    machine.memory().write(MASK << 12, &mask).unwrap();
}

fn boot_aps(machine: &HostedMachine, signal: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::BootAPs.id(), MASK, signal, 0)
}

fn signal_page(machine: &HostedMachine) -> [u8; 4096] {
    let mut page = [0; 4096];
    machine.memory().read(SIGNAL << 12, &mut page).unwrap();
    page
}

fn enabled(machine: &HostedMachine) -> Vec<u32> {
    let vps = machine.partition().config().vps;
    (1..vps).filter(|vp| machine.partition().is_vtl_enabled(*vp, Vtl::Vtl1)).collect()
}

/// Waits for the signal as VTL0's thread on `vp` does, then makes the first call.
fn come(machine: &HostedMachine, vp: u32) {
    let limit = Instant::now() + Duration::from_secs(50);
    while signal_page(machine)[vp as usize] != 0xdc {
        assert!(Instant::now() < limit, "VP {vp} is not called");
        sleep(Duration::from_millis(1));
    }
    machine.first_entry(vp).unwrap();
}

#[test]
fn returns_when_every_processor_has_come_and_touches_no_other_byte() {
    for (vps, online) in [(2, vec![0, 1]), (8, (0..8).collect()), (100, vec![0, 7, 8, 63, 64, 65, 99])] {
        let machine = machine(Generation::G2, vps);
        machine.partition().set_reference_time(ReferenceTime::Host);
        set_mask(&machine, online.iter().copied());
        scope(|scope| {
            // Last first, and each once the one before has come: VTL1 asks for no order.
            scope.spawn(|| online.iter().rev().filter(|vp| **vp != 0).for_each(|vp| come(&machine, *vp)));
            assert_eq!(boot_aps(&machine, SIGNAL), 0, "{vps} processors");
            for vp in &online {
                assert!(machine.platform().has_entered(*vp), "VP {vp} of {vps} has not come");
            }
        });
        assert_eq!(enabled(&machine), online[1..], "{vps} processors");
        for (index, byte) in signal_page(&machine).into_iter().enumerate() {
            let called = online.iter().any(|vp| *vp as usize == index);
            assert_eq!(byte, if called { 0xdc } else { DIRT }, "byte {index}");
        }
        // And once more: everybody is there.
        assert_eq!(boot_aps(&machine, SIGNAL), 0);
        assert_eq!(machine.partition().reports(), []);
    }
}

#[test]
fn a_processor_that_does_not_come_ends_the_call_and_is_served_when_it_does() {
    let machine = machine(Generation::G2, 3);
    set_mask(&machine, 0..3);
    scope(|scope| {
        scope.spawn(|| come(&machine, 1));
        assert_eq!(boot_aps(&machine, SIGNAL), Errno::Etimedout.to_result());
    });
    assert!(machine.platform().has_entered(1) && !machine.platform().has_entered(2));
    machine.first_entry(2).unwrap();
    assert_eq!(machine.vtl_call(2, VsmFunction::LockRegs.id(), 0, 0, 0), 0);
    assert_eq!(boot_aps(&machine, SIGNAL), 0, "all of them are there now");
    assert_eq!(machine.partition().reports(), []);
}

/// 10 s, and 0.1 s for each processor, by the hypervisor's clock: not a moment less, and not much more.
#[test]
fn the_limit_is_as_long_as_it_says() {
    const STEP: u64 = 1_000_000;
    let machine = machine(Generation::G2, 8);
    machine.partition().set_reference_time(ReferenceTime::PerRead(STEP));
    set_mask(&machine, 0..8);
    let clock = || machine.partition().msr_read(0, Vtl::Vtl1, 0x4000_0020).unwrap();
    let before = clock();
    assert_eq!(boot_aps(&machine, SIGNAL), Errno::Etimedout.to_result());
    let limit = 100_000_000 + 7 * 1_000_000;
    let taken = clock() - before;
    assert!((limit..limit + 4 * STEP).contains(&taken), "{taken}");
}

#[test]
fn the_third_generation_has_no_signal_page_and_nothing_to_wait_for() {
    for garbage in [0, 1, SIGNAL, 32 << 8, u64::MAX] {
        let machine = machine(Generation::G3, 4);
        set_mask(&machine, 0..4);
        let before = signal_page(&machine);
        assert_eq!(boot_aps(&machine, garbage), 0, "{garbage:#x}");
        assert_eq!(enabled(&machine), [1, 2, 3]);
        assert_eq!(signal_page(&machine), before);
        for vp in 1..4 {
            machine.first_entry(vp).unwrap();
            assert!(machine.platform().has_entered(vp));
        }
    }
}

#[test]
fn without_a_page_an_older_loader_is_not_waited_for() {
    let machine = machine(Generation::G2, 4);
    set_mask(&machine, [0, 2]);
    assert_eq!(boot_aps(&machine, 0), 0);
    assert_eq!(enabled(&machine), [2]);
}

#[test]
fn a_signal_page_that_is_not_vtl0s_is_refused_before_anything_is_done() {
    let machine = machine(Generation::G2, 2);
    set_mask(&machine, 0..2);
    // VTL1's, the log ring's, a trampoline's; no address at all.
    let frames = machine.platform().config().vtl1_region;
    give_frames(&machine, 8 << 8..9 << 8, Owner::Trampoline, Permission::READ);
    let bad = [
        (frames.start(), Errno::Eacces),
        (frames.end() - 1, Errno::Eacces),
        (8 << 8, Errno::Eacces),
        (u64::MAX, Errno::Efault),
    ];
    for (signal, errno) in bad {
        assert_eq!(boot_aps(&machine, signal), errno.to_result(), "{signal:#x}");
        assert!(enabled(&machine).is_empty());
    }
    // Nobody's, and not RAM: found out when it is written.
    assert_eq!(boot_aps(&machine, 1 << 20), Errno::Efault.to_result());
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn an_impossible_processor_is_refused_before_anything_is_done() {
    for impossible in [2, 95, 4096, 4096 * 8 - 1] {
        let machine = machine(Generation::G2, 2);
        set_mask(&machine, [0, 1, impossible]);
        let before = signal_page(&machine);
        assert_eq!(boot_aps(&machine, SIGNAL), Errno::Einval.to_result(), "CPU {impossible}");
        assert!(enabled(&machine).is_empty());
        assert_eq!(signal_page(&machine), before);
    }
}

#[test]
fn a_processor_the_hypervisor_refuses_ends_the_call_and_a_second_call_passes_over_the_others() {
    for refused in 0..3 {
        let machine = machine(Generation::G3, 4);
        set_mask(&machine, 0..4);
        let code = HypercallCode::ENABLE_VP_VTL;
        machine.partition().inject(Injection::new(refused, HvStatus::INSUFFICIENT_MEMORY).of(code));
        assert_eq!(boot_aps(&machine, 0), Errno::Eio.to_result());
        let before: Vec<u32> = (1..4).take(usize::try_from(refused).unwrap()).collect();
        assert_eq!(enabled(&machine), before);
        assert_eq!(boot_aps(&machine, 0), 0);
        assert_eq!(enabled(&machine), [1, 2, 3]);
        for vp in 1..4 {
            machine.first_entry(vp).unwrap();
        }
    }
}

/// The mask is read once and as a whole; VTL0 may take the page back, or change it, at any moment.
#[test]
fn a_mask_that_changes_counts_as_it_was_read() {
    use vsm_sim::hosted::RacePoint;
    let machine = machine(Generation::G3, 4);
    set_mask(&machine, [0, 1]);
    machine.memory().set_race(Some(Box::new(|point, memory| {
        if matches!(point, RacePoint::AfterRead { .. } | RacePoint::AfterHypercall(_)) {
            memory.write(MASK << 12, &[0xff; 4096]).unwrap();
        }
    })));
    assert_eq!(boot_aps(&machine, 0), 0);
    machine.memory().set_race(None);
    assert_eq!(enabled(&machine), [1]);
}
