//! OpteeMessage over the hypervisor model: discovery as Linux does it, every function number, whose pages may be used, and
//! what else on a page stays as it is.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::optee::{DISCOVERY, Message, NOT_AVAILABLE};

use crate::setup::{give_frames, rights_and_owners};

/// Frames of RAM, and VTL1's among them.
const RAM: u64 = 64 << 8;
const VTL1: std::ops::Range<u64> = 32 << 8..48 << 8;
/// A page of VTL0's.
const GFN: u64 = 0x1000;
/// Functions that are answered whatever is there (contract §5.13).
const ANSWERED: [u16; 5] = [0, 1, 9, 0xff01, 0xff03];

fn machine() -> HostedMachine {
    HostedMachine::new(HostedConfig::default())
}

/// Everything a call could leave behind beside bytes: rights and owners.
fn snapshot(machine: &HostedMachine) -> (Vec<MapFlags>, Vec<FrameState>) {
    rights_and_owners(machine, RAM)
}

fn send(machine: &HostedMachine, gfn: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::OpteeMessage.id(), gfn, 0, 0)
}

/// Sends `registers` in a page full of other things; the registers afterwards.
fn exchange(machine: &HostedMachine, registers: &[u64; 9]) -> [u64; 9] {
    let mut page = [0xee; 4096];
    page[..72].copy_from_slice(&Message::to_bytes(registers));
    bytes::write(machine.memory(), GFN << 12, &page).unwrap();
    assert_eq!(send(machine, GFN), 0, "{registers:x?}");
    bytes::read(machine.memory(), GFN << 12, &mut page).unwrap();
    assert!(page[72..].iter().all(|byte| *byte == 0xee), "the rest of the page changed");
    Message::from_bytes(page[..72].try_into().unwrap())
}

#[test]
fn linux_finds_the_interface_and_nothing_behind_it() {
    let machine = machine();
    let before = snapshot(&machine);
    for message in DISCOVERY {
        let answer = exchange(&machine, &message.registers);
        assert!(message.accepts(&answer), "{}: {answer:x?}", message.what);
    }
    assert!(snapshot(&machine) == before, "a message changes no permission");
    // This kernel is not taken for OP-TEE itself, whose UUID this is (optee_msg.h).
    let answer = exchange(&machine, &[0, 9, 9, 9, 9, 9, 9, 9, 9]);
    assert_ne!(answer[..4], [0x4861_78e0, 0xe7f8_11e3, 0xbc5e_0002, 0xa5d5_c51b]);
    assert!(answer[..4].iter().all(|word| *word != 0 && *word <= 0xffff_ffff));
}

#[test]
fn every_other_function_is_not_available_whatever_comes_with_it() {
    let machine = machine();
    for function in 0..=u16::MAX {
        // The upper bits say how an SMC is called, which does not count here.
        let a0 = u64::from(function) | u64::from(function.rotate_left(3)) << 16 | u64::from(function) << 48;
        let answer = exchange(&machine, &[a0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(answer[4..], [4, 5, 6, 7, 8]);
        if !ANSWERED.contains(&function) {
            assert_eq!(answer[..4], [NOT_AVAILABLE, 0, 0, 0], "{function:#x}");
        }
    }
}

#[test]
fn a_capability_that_is_not_known_cannot_be_dealt_with() {
    let machine = machine();
    for (about_vtl0, code) in [(0, 0), (1, 0), (2, 7), (3, 7), (1 << 63, 7), (u64::MAX, 7)] {
        assert_eq!(exchange(&machine, &[9, about_vtl0, 0, 0, 0, 0, 0, 0, 0])[0], code, "{about_vtl0:#x}");
    }
}

#[test]
fn only_a_page_that_is_nobodys_gets_an_answer() {
    for (owner, permission, allowed) in [
        (Owner::Nobody, Permission::RW, true),
        (Owner::Nobody, Permission::ALL, true),
        (Owner::KernelText, Permission::RX, false),
        (Owner::BootProtected, Permission::R, false),
        (Owner::Module { token: Token::new(7).unwrap(), kind: ModuleMemoryKind::Data }, Permission::RW, false),
        (Owner::Kexec { crash: false }, Permission::R, false),
        (Owner::Kexec { crash: true }, Permission::R, false),
        (Owner::RingBuffer, Permission::R, false),
        (Owner::Trampoline, Permission::R, false),
    ] {
        let machine = machine();
        let message = Message::to_bytes(&DISCOVERY[0].registers);
        bytes::write(machine.memory(), GFN << 12, &message).unwrap();
        give_frames(&machine, GFN..GFN + 1, owner, permission);
        let before = snapshot(&machine);
        assert_eq!(send(&machine, GFN), if allowed { 0 } else { Errno::Eacces.to_result() }, "{owner}");
        assert!(snapshot(&machine) == before, "{owner}");
        let mut now = vec![0; 72];
        bytes::read(machine.memory(), GFN << 12, &mut now).unwrap();
        assert_eq!(now != message, allowed, "{owner}: an answer is written exactly when the call succeeds");
    }
}

#[test]
fn a_page_that_is_vtl1s_or_none_is_the_transports_error() {
    let machine = machine();
    for (gfn, errno) in [
        (VTL1.start, Errno::Eacces),
        (VTL1.end - 1, Errno::Eacces),
        (RAM, Errno::Efault),
        (1 << 40, Errno::Efault),
        (u64::MAX, Errno::Efault),
    ] {
        assert_eq!(send(&machine, gfn), errno.to_result(), "{gfn:#x}");
    }
}
