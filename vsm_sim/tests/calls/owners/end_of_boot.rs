//! SignalEndOfBoot takes no parameter; of its own accord it takes writing from owned frames that VTL0 can also execute,
//! and changes nothing else.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, Vtl, msr};
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::hv::{Access, Injection};

use super::protect::{protect, range};
use super::{OWNED, OWNERS, machine_with};
use crate::kdata::{RAM, machine, snapshot};
use crate::setup::end_boot;

#[test]
fn only_owned_frames_that_are_writable_and_executable_change() {
    let module = Owner::Module { token: Token::new(7).unwrap(), kind: ModuleMemoryKind::Text };
    for (owner, permission) in OWNERS.into_iter().chain([(module, Permission::ALL)]) {
        let machine = machine_with(owner, permission);
        let before = snapshot(&machine);
        assert_eq!(end_boot(&machine), 0);
        let after = snapshot(&machine);
        let expected =
            if permission == Permission::ALL && owner != Owner::Nobody { Permission::RX } else { permission };
        for gfn in 0..RAM {
            let index = usize::try_from(gfn).unwrap();
            if (OWNED..OWNED + 8).contains(&gfn) {
                assert_eq!(after.0[index], expected.map_flags(), "{owner} {permission}");
                assert_eq!(machine.platform().frames().lock().get(gfn), Some((owner, expected)));
            } else {
                assert_eq!(after.0[index], before.0[index], "{owner} {permission}, frame {gfn:#x}");
            }
        }
    }
}

/// A machine with frames that are writable and executable: 1200 in one run, 700 in another, and 3 that are no memory.
fn open_machine() -> HostedMachine {
    let machine = machine();
    let ranges = [(0x1000, 1200), (0x2000, 700), (RAM + 2, 3)].map(|(first, count)| range(first, count, 7));
    assert_eq!(protect(&machine, &ranges), 0);
    machine
}

fn open_frames(machine: &HostedMachine) -> u64 {
    let registry = machine.platform().frames().lock();
    let open =
        |gfn| registry.get(gfn).is_some_and(|(owner, rights)| owner != Owner::Nobody && rights.is_write_and_execute());
    let open: Vec<u64> = (0..RAM).filter(|gfn| open(*gfn)).collect();
    for gfn in 0..RAM {
        let rights = machine.partition().protection(gfn);
        assert_eq!(rights, registry.get(gfn).unwrap().1.map_flags(), "frame {gfn:#x}");
    }
    open.len() as u64
}

/// Without KASLR a real kernel names its hypercall page as writable and executable (LVBS contract §11.1), and makes a hypercall
/// soon after the end of boot.
#[test]
fn vtl0_can_run_its_hypercall_page_ever_after() {
    for held in [false, true] {
        let mut machine = machine();
        machine.keep_log();
        let page = machine.partition().msr_read(0, Vtl::Vtl0, msr::HYPERCALL).unwrap() >> 12;
        assert_eq!(protect(&machine, &[range(page, 1, 7), range(0x1000, 8, 7)]), 0);
        if held {
            // The hypervisor changes nothing under a page of its own.
            machine.partition().hold_frames(FrameRange::from_gfns(page, page + 1).unwrap());
        }
        assert_eq!(end_boot(&machine), 0);
        assert!(machine.vtl0_may(0, page << 12, Access::Execute).is_ok(), "held: {held}");
        assert_eq!(machine.vtl0_may(0, page << 12, Access::Write).is_ok(), held);
        assert_eq!(open_frames(&machine), u64::from(held));
        let lines = machine.log_lines();
        let told = |what: &str| lines.iter().any(|line| line.contains(what));
        assert_eq!(told(&format!("one of them is VTL0's hypercall page at {:#x}", page << 12)), held, "{lines:#?}");
        assert!(told("frames of the kernel were writable and executable: now only executable"), "{lines:#?}");
    }
}

#[test]
fn what_is_no_memory_keeps_nothing_else_open() {
    let machine = open_machine();
    assert_eq!(open_frames(&machine), 1900);
    assert_eq!(end_boot(&machine), 0);
    assert_eq!(open_frames(&machine), 0);
}

#[test]
fn a_hypervisor_that_refuses_at_any_step_does_not_make_the_boot_fail() {
    let code = HypercallCode::MODIFY_VTL_PROTECTION_MASK;
    let machine = open_machine();
    let before = machine.partition().hypercall_count(code);
    assert_eq!(end_boot(&machine), 0);
    let steps = machine.partition().hypercall_count(code) - before;
    assert!(steps > 5, "only {steps} hypercalls");
    for step in 0..steps {
        for element in [0, 3, 200] {
            // Refused once: tried again in halves, and closed. Refused for good: left as the registry says.
            for (repeated, most) in [(1, 0), (1_000_000, 1900)] {
                let machine = open_machine();
                let failure = Injection::new(step, HvStatus::INSUFFICIENT_MEMORY).of(code).at_element(element);
                machine.partition().inject(failure.repeated(repeated));
                assert_eq!(end_boot(&machine), 0, "step {step}, element {element}");
                assert!(open_frames(&machine) <= most, "step {step}, element {element}, {repeated} times");
            }
        }
    }
}
