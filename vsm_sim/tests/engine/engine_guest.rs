//! What a guest with the machine's devices needs of the engine: execution rights of user code, HLT that waits, devices that
//! are carried out for it, calls that are no NMIs of its own.

use std::time::Duration;

use vsm_sim::engine::qemu::{Config, Mode, QemuEngine, devices};
use vsm_sim::engine::{Access, DeviceAccess, Engine, Reason, Vcpu};

use crate::common::{CODE, TABLES, machine_of, run, start_state};

const VMMCALL: &[u8] = b"\x0f\x01\xd9";
const PAGE: u64 = 0x50_0000;

fn guest(vps: u32) -> QemuEngine {
    let engine = machine_of(&Config { mode: Mode::Guest, slots: devices::ram(1 << 30), ..Config::new(vps, 0) });
    // Pages that user code may use.
    for entry in 0..512 {
        engine.ram().write_u64(TABLES + 0x2000 + entry * 8, entry << 21 | 0x87).unwrap();
    }
    engine.ram().write_u64(TABLES, (TABLES + 0x1000) | 7).unwrap();
    engine.ram().write_u64(TABLES + 0x1000, (TABLES + 0x2000) | 7).unwrap();
    engine
}

fn go_to(vcpu: &mut dyn Vcpu, rip: u64, user: bool) {
    let mut state = start_state(0, rip);
    if user {
        (state.cs.attributes, state.cs.selector) = (state.cs.attributes | 3 << 5, 0x1b);
        (state.ss.attributes, state.ss.selector) = (state.ss.attributes | 3 << 5, 0x23);
    }
    vcpu.set_state(0, &state);
}

fn is_refused_fetch(reason: &Reason) -> bool {
    matches!(reason, Reason::Memory(fault) if fault.execute && fault.gpa == PAGE)
}

#[test]
fn user_code_has_rights_of_its_own() {
    let engine = guest(1);
    engine.ram().write(PAGE, VMMCALL).unwrap();
    engine.ram().write(CODE, VMMCALL).unwrap();
    let mut vcpu = engine.vcpu(0).unwrap();
    let for_user = Access { execute: false, ..Access::ALL };
    engine.protect(0, PAGE >> 12, 1, for_user).unwrap();
    assert_eq!(engine.access(0, PAGE >> 12).unwrap(), Some(for_user));
    // As long as it is off, what kernel code may not execute nobody may.
    for (on, user, allowed) in [(false, true, false), (true, true, true), (true, false, false), (true, true, true)] {
        vcpu.set_user_execution(0, on);
        go_to(&mut *vcpu, PAGE, user);
        let reason = run(&mut *vcpu, 0).reason;
        let right = if allowed { reason == Reason::Hypercall } else { is_refused_fetch(&reason) };
        assert!(right, "on {on}, user {user}: {reason:?}");
        // What both may execute.
        go_to(&mut *vcpu, CODE, user);
        assert_eq!(run(&mut *vcpu, 0).reason, Reason::Hypercall, "on {on}, user {user}");
    }
    engine.protect(0, PAGE >> 12, 1, Access { user_execute: false, ..for_user }).unwrap();
    go_to(&mut *vcpu, PAGE, true);
    assert!(is_refused_fetch(&run(&mut *vcpu, 0).reason));
}

#[test]
fn halting_waits_with_interrupts_on_and_stops_with_them_off() {
    let engine = guest(1);
    // hlt; vmmcall, and sti; hlt; vmmcall
    engine.ram().write(CODE, b"\xf4\x0f\x01\xd9").unwrap();
    engine.ram().write(PAGE, b"\xfb\xf4\x0f\x01\xd9").unwrap();
    let mut vcpu = engine.vcpu(0).unwrap();
    go_to(&mut *vcpu, CODE, false);
    assert_eq!(run(&mut *vcpu, 0).reason, Reason::Halt);
    // This guest has no handlers: no interrupts from the old controllers.
    for port in [0x21, 0xa1] {
        vcpu.device(DeviceAccess::Out { port, size: 1, value: 0xff }).unwrap();
    }
    go_to(&mut *vcpu, PAGE, false);
    let exit = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run(&mut *vcpu, 0));
        while engine.turns(0)[1] == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        engine.kick(0).unwrap();
        waiting.join().unwrap()
    });
    assert_eq!((exit.reason, exit.rip), (Reason::Kicked, PAGE + 2), "behind the HLT, and no NMI of the guest's");
    assert_eq!(run(&mut *vcpu, 0).reason, Reason::Hypercall);
}

#[test]
fn devices_are_carried_out_for_the_guest() {
    let engine = guest(1);
    let mut vcpu = engine.vcpu(0).unwrap();
    // The scratch register of COM1 and the address register of PCI, which keeps all but the bits it does not have.
    for (port, size, value) in [(0x3ff, 1, 0xa5), (0xcf8, 4, 0x8000_1230)] {
        vcpu.device(DeviceAccess::Out { port, size, value }).unwrap();
        assert_eq!(vcpu.device(DeviceAccess::In { port, size }).unwrap(), value, "{port:#x}");
    }
    let [vendor, ..] = vcpu.cpuid(0, 0).unwrap();
    assert!(vendor >= 0xd);
}
