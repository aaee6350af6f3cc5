//! Each kind of exit, with a guest of a few instructions, and what the engine says about it.

use crate::common::{CODE, RAM, STACK, TABLES, machine, run, run_to_hypercall, start_state, with_code};
use std::time::{Duration, Instant};
use vsm_sim::engine::qemu::{Config, QemuEngine};
use vsm_sim::engine::state::msr;
use vsm_sim::engine::{
    Access, Engine, EngineError, Event, EventKind, Intercepts, MemoryFault, Reason, SharedState, Slot, Table,
};

#[test]
fn hypercall_registers_and_state_come_back() {
    let engine = machine(1, false);
    // inc rax; lea rbx,[rsp-8]; mov r15,r14; vmmcall; vmmcall
    let mut vcpu = with_code(&engine, b"\x48\xff\xc0\x48\x8d\x5c\x24\xf8\x4d\x89\xf7\x0f\x01\xd9\x0f\x01\xd9");
    let before = vcpu.state(0);
    vcpu.set_shared(&SharedState { rax: 41, r14: 0x1122_3344_5566_7788, rcx: 3, r8: 8, ..SharedState::default() });
    let shared = run_to_hypercall(&mut *vcpu, 0);
    assert_eq!(
        (shared.rax, shared.rbx, shared.r15, shared.rcx, shared.r8),
        (42, STACK - 8, 0x1122_3344_5566_7788, 3, 8)
    );
    let mut expected = before;
    expected.rip = CODE + 14;
    let mut after = vcpu.state(0);
    after.rflags = expected.rflags;
    assert_eq!(after, expected, "private state is what was set");
    run_to_hypercall(&mut *vcpu, 0);
    assert!(engine.vcpu(0).is_err(), "a VP has one handle");
    drop(vcpu);
    assert!(engine.vcpu(0).is_ok());
    assert!(engine.vcpu(1).is_err());
}

#[test]
fn msr_cpuid_io_halt() {
    let engine = machine(1, false);
    // mov ecx,0x40000073; mov eax,5; mov edx,7; wrmsr; rdmsr; cpuid; out 0x21,ax; in eax,dx; rep outsb; hlt; mov ecx,0x1b; rdmsr
    let code = b"\xb9\x73\x00\x00\x40\xb8\x05\x00\x00\x00\xba\x07\x00\x00\x00\x0f\x30\x0f\x32\x0f\xa2\x66\xe7\x21\xed\xf3\x6e\xf4\xb9\x1b\x00\x00\x00\x0f\x32";
    let mut vcpu = with_code(&engine, code);
    let io = |port, size, write, value, string| Reason::Io { port, size, write, value, string };
    let expected = [
        (Reason::MsrWrite { msr: 0x4000_0073, value: 0x7_0000_0005 }, 2),
        (Reason::MsrRead { msr: 0x4000_0073 }, 2),
        (Reason::Cpuid { leaf: 5, subleaf: 0x4000_0073 }, 2),
        (io(0x21, 2, true, 5, false), 3),
        (io(7, 4, false, 0, false), 1),
        (io(7, 1, true, 5, true), 2),
        (Reason::Halt, 1),
        (Reason::MsrRead { msr: 0x1b }, 2),
    ];
    for (reason, len) in expected {
        let exit = run(&mut *vcpu, 0);
        assert_eq!((&exit.reason, exit.instruction_len), (&reason, len), "at {:#x}", exit.rip);
        vcpu.advance(0, len);
    }
}

#[test]
fn private_msrs_stop_only_when_asked() {
    let engine = machine(1, false);
    // mov ecx,LSTAR; mov eax,0x1000; xor edx,edx; wrmsr; mov cl,0x80; rdmsr; or eax,1; wrmsr; vmmcall
    let code =
        b"\xb9\x82\x00\x00\xc0\xb8\x00\x10\x00\x00\x31\xd2\x0f\x30\xb1\x80\x0f\x32\x83\xc8\x01\x0f\x30\x0f\x01\xd9";
    let mut vcpu = with_code(&engine, code);
    let shared = run_to_hypercall(&mut *vcpu, 0);
    let state = vcpu.state(0);
    assert_eq!(state.lstar, 0x1000);
    assert_eq!((shared.rax, state.efer), (0xd01, 0xd01), "EFER shows no trace of the engine");
    vcpu.set_state(0, &start_state(0, CODE));
    vcpu.set_intercepts(
        0,
        &Intercepts { msr_writes: vec![msr::LSTAR, msr::EFER], msr_reads: vec![msr::EFER], ..Intercepts::default() },
    );
    for reason in [
        Reason::MsrWrite { msr: msr::LSTAR, value: 0x1000 },
        Reason::MsrRead { msr: msr::EFER },
        Reason::MsrWrite { msr: msr::EFER, value: 0x1001 },
    ] {
        let exit = run(&mut *vcpu, 0);
        assert_eq!(exit.reason, reason);
        vcpu.advance(0, 2);
    }
    run_to_hypercall(&mut *vcpu, 0);
    assert_eq!(vcpu.state(0).lstar, 0, "an intercepted write is not carried out");
}

#[test]
fn control_register_and_table_writes() {
    let engine = machine(1, false);
    // mov rax,cr4; mov cr4,rax; mov rbx,cr0; and bl,0xf7; mov cr0,rbx; clts; mov ax,9; lmsw ax; lgdt [rsp-16]; lidt [rsp-16]; mov ax,0; lldt ax; mov ax,0x28; ltr ax
    let code = b"\x0f\x20\xe0\x0f\x22\xe0\x0f\x20\xc3\x80\xe3\xf7\x0f\x22\xc3\x0f\x06\x66\xb8\x09\x00\x0f\x01\xf0\x0f\x01\x54\x24\xf0\x0f\x01\x5c\x24\xf0\x66\xb8\x00\x00\x0f\x00\xd0\x66\xb8\x28\x00\x0f\x00\xd8";
    let mut vcpu = with_code(&engine, code);
    let mut state = vcpu.state(0);
    state.cr0 |= 8;
    vcpu.set_state(0, &state);
    let all = Intercepts {
        cr0_write: true,
        cr4_write: true,
        gdtr_write: true,
        idtr_write: true,
        ldtr_write: true,
        tr_write: true,
        ..Intercepts::default()
    };
    vcpu.set_intercepts(0, &all);
    let cr = |cr, value| Reason::CrWrite { cr, value };
    let expected = [
        (cr(4, 0x620), 3),
        (cr(0, 0x8001_0033), 3),
        (cr(0, 0x8001_0033), 2),
        (cr(0, 0x8001_0039), 3),
        (Reason::TableWrite(Table::Gdtr), 5),
        (Reason::TableWrite(Table::Idtr), 5),
        (Reason::TableWrite(Table::Ldtr), 3),
        (Reason::TableWrite(Table::Tr), 3),
    ];
    for (reason, len) in expected {
        let exit = run(&mut *vcpu, 0);
        assert_eq!((&exit.reason, exit.instruction_len), (&reason, len), "at {:#x}", exit.rip);
        vcpu.advance(0, len);
    }
    assert_eq!(vcpu.state(0).cr0, 0x8001_003b, "nothing was carried out");
}

#[test]
fn exceptions_and_triple_fault() {
    let engine = machine(1, false);
    // mov rax,[0x3ff00000+...] beyond RAM is a memory fault; here: mov rax,[0x4000000000] is not mapped
    let mut vcpu = with_code(&engine, b"\x48\xa1\x00\x00\x00\x00\x40\x00\x00\x00\x0f\x0b");
    vcpu.set_intercepts(0, &Intercepts { exceptions: 1 << 14, ..Intercepts::default() });
    let exit = run(&mut *vcpu, 0);
    assert_eq!(exit.reason, Reason::Exception { vector: 14, error: 0, gva: 0x40_0000_0000 });
    assert_eq!((exit.rip, exit.instruction_len), (CODE, 10));
    vcpu.advance(0, 10);
    assert_eq!(run(&mut *vcpu, 0).reason, Reason::Shutdown, "#UD without an IDT");
}

#[test]
fn memory_faults_name_the_access() {
    let engine = machine(1, false);
    // mov [0x500008],eax; mov eax,[0x501010]; mov eax,[0x3000000]; jmp 0x502000
    let code = b"\x89\x04\x25\x08\x00\x50\x00\x8b\x04\x25\x10\x10\x50\x00\x8b\x04\x25\x00\x00\x00\x03\xb8\x00\x20\x50\x00\xff\xe0";
    let mut vcpu = with_code(&engine, code);
    let (read, write, execute) = (true, true, true);
    engine.protect(0, 0x500, 1, Access { read, write: false, execute, user_execute: execute }).unwrap();
    engine.protect(0, 0x501, 1, Access::NONE).unwrap();
    engine.protect(0, 0x502, 1, Access { read, write, execute: false, user_execute: false }).unwrap();
    assert_eq!(engine.access(0, 0x501).unwrap(), Some(Access::NONE));
    assert_eq!(engine.access(1, 0x501).unwrap(), Some(Access::ALL), "the other space keeps its rights");
    assert_eq!(engine.access(0, RAM >> 12).unwrap(), None);
    let fault = |gpa, write, execute| {
        Reason::Memory(MemoryFault { gpa, write, execute, gva: Some(gpa), page_walk: false, cpl: 0 })
    };
    for reason in [
        fault(0x50_0008, true, false),
        fault(0x50_1010, false, false),
        fault(0x300_0000, false, false),
        fault(0x50_2000, false, true),
    ] {
        let exit = run(&mut *vcpu, 0);
        assert_eq!(exit.reason, reason);
        vcpu.advance(0, exit.instruction_len);
    }
    // A page table that may not be read: a fault of the walk.
    let mut state = start_state(0, CODE);
    state.cr3 = 0x50_3000;
    engine.ram().write_u64(0x50_3000, (TABLES + 0x1000) | 3).unwrap();
    engine.protect(0, 0x503, 1, Access::NONE).unwrap();
    vcpu.set_state(0, &state);
    let Reason::Memory(found) = run(&mut *vcpu, 0).reason else { panic!("not a memory fault") };
    assert!(found.page_walk && found.gva.is_none() && found.gpa & !0xfff == 0x50_3000, "{found:x?}");
    // The rights come back, and the same instruction goes through.
    engine.protect(0, 0x500, 4, Access::ALL).unwrap();
    vcpu.set_state(0, &start_state(0, CODE));
    let exit = run(&mut *vcpu, 0);
    assert_eq!(exit.reason, fault(0x300_0000, false, false), "only what is not RAM still faults");
}

#[test]
fn protect_is_all_or_nothing() {
    let engine = machine(1, false);
    let end = RAM >> 12;
    assert!(matches!(engine.protect(0, end - 1, 2, Access::NONE), Err(EngineError::NotRam { .. })));
    assert!(matches!(engine.protect(0, end, 1, Access::NONE), Err(EngineError::NotRam { .. })));
    assert!(matches!(engine.protect(0, u64::MAX, 2, Access::NONE), Err(EngineError::NotRam { .. })));
    assert!(matches!(engine.protect(2, 0, 1, Access::NONE), Err(EngineError::BadContext(2))));
    assert_eq!(engine.access(0, end - 1).unwrap(), Some(Access::ALL));
    engine.protect(0, 0x1ff, 0x402, Access::NONE).unwrap();
    for (gfn, expected) in [
        (0x1fe, Access::ALL),
        (0x1ff, Access::NONE),
        (0x200, Access::NONE),
        (0x600, Access::NONE),
        (0x601, Access::ALL),
    ] {
        assert_eq!(engine.access(0, gfn).unwrap(), Some(expected), "{gfn:#x}");
    }
}

#[test]
fn interrupts_wait_for_the_flag_and_events_do_not() {
    let engine = machine(1, false);
    // nop; vmmcall; sti; nop; nop; vmmcall   handler at +0x100: mov rbx,[rsp]; vmmcall; iretq
    let mut vcpu = with_code(&engine, b"\x90\x0f\x01\xd9\xfb\x90\x90\x0f\x01\xd9");
    engine.ram().write(CODE + 0x100, b"\x48\x8b\x1c\x24\x0f\x01\xd9\x48\xcf").unwrap();
    for vector in [13u64, 0x40, 0x41] {
        let gate = ((CODE + 0x100) & 0xffff) | 8 << 16 | 0x8e00 << 32 | ((CODE + 0x100) >> 16) << 48;
        engine.ram().write_u64(0x6000 + vector * 16, gate).unwrap();
    }
    for (index, entry) in [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        engine.ram().write_u64(0x7000 + index as u64 * 8, entry).unwrap();
    }
    let mut state = vcpu.state(0);
    (state.idtr.base, state.idtr.limit, state.gdtr.base, state.gdtr.limit) = (0x6000, 0xfff, 0x7000, 0x17);
    vcpu.set_state(0, &state);
    vcpu.set_interrupt(0, Some(0x40));
    run_to_hypercall(&mut *vcpu, 0);
    assert_eq!(vcpu.state(0).rip, CODE + 4);
    assert_eq!(vcpu.take_interrupt(0), None, "IF is 0");
    let shared = run_to_hypercall(&mut *vcpu, 0);
    assert_eq!(shared.rbx, CODE + 6, "taken after the instruction behind STI");
    assert_eq!((vcpu.take_interrupt(0), vcpu.take_interrupt(0)), (Some(0x40), None));
    run_to_hypercall(&mut *vcpu, 0);
    assert_eq!(vcpu.state(0).rip, CODE + 10, "the handler returned");
    vcpu.set_state(0, &state);
    vcpu.inject(0, Event { vector: 0x41, kind: EventKind::Interrupt, error_code: None });
    assert_eq!(run_to_hypercall(&mut *vcpu, 0).rbx, CODE, "injected whatever IF says");
    vcpu.set_state(0, &state);
    vcpu.inject(0, Event::GENERAL_PROTECTION);
    assert_eq!(run_to_hypercall(&mut *vcpu, 0).rbx, 0, "the error code is on top");
    assert!(!vcpu.event_pending(0));
    // Delivery that faults in the address space is taken up again.
    engine.protect(0, (STACK >> 12) - 1, 1, Access::NONE).unwrap();
    vcpu.set_state(0, &state);
    vcpu.inject(0, Event { vector: 0x41, kind: EventKind::Interrupt, error_code: None });
    assert!(
        matches!(run(&mut *vcpu, 0).reason, Reason::Memory(fault) if fault.write && fault.gpa >> 12 == (STACK >> 12) - 1)
    );
    assert!(vcpu.event_pending(0));
    engine.protect(0, (STACK >> 12) - 1, 1, Access::ALL).unwrap();
    assert_eq!(run_to_hypercall(&mut *vcpu, 0).rbx, CODE);
}

#[test]
fn single_step_and_translation() {
    let engine = machine(1, false);
    let mut vcpu = with_code(&engine, b"\x90\x48\xff\xc0\x90\x0f\x01\xd9");
    vcpu.set_single_step(0, true);
    for offset in [1, 4, 5] {
        let exit = run(&mut *vcpu, 0);
        assert_eq!((exit.reason, exit.rip), (Reason::Step, CODE + offset));
    }
    vcpu.set_single_step(0, false);
    run_to_hypercall(&mut *vcpu, 0);
    assert_eq!(vcpu.state(0).rflags & 0x100, 0);
    let found = vcpu.translate(0, CODE + 5).unwrap();
    assert!(found.gpa == CODE + 5 && found.writable && found.executable && !found.user);
    assert_eq!(vcpu.translate(0, 1 << 40), None);
    assert_eq!(vcpu.translate(0, 1 << 63), None);
    vcpu.set_state(0, &start_state(0, CODE + 1));
    let instruction = vcpu.instruction(0);
    assert_eq!((instruction.len, &instruction.bytes[..3]), (3, &b"\x48\xff\xc0"[..]));
}

#[test]
fn loops_are_stopped() {
    let ram = 4 << 20;
    let config = Config { watchdog: Duration::from_millis(300), ..Config::new(1, ram) };
    let engine = QemuEngine::start(&config).unwrap();
    engine.ram().write(CODE, b"\xeb\xfe").unwrap();
    let mut vcpu = engine.vcpu(0).unwrap();
    let mut state = start_state(0, CODE);
    (state.cr0, state.cr3, state.cr4, state.efer) = (0x11, 0, 0, 0);
    vcpu.set_state(0, &state);
    let start = Instant::now();
    assert_eq!(vcpu.run(0), Err(EngineError::Watchdog { vp: 0, rip: CODE, millis: 300 }));
    assert!(start.elapsed() < Duration::from_secs(5));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            engine.kick(0).unwrap();
        });
        assert_eq!(run(&mut *vcpu, 0).reason, Reason::Kicked);
    });
    engine.kick(0).unwrap();
    assert_eq!(run(&mut *vcpu, 0).reason, Reason::Kicked, "a kick before the run is not lost");
    assert!(matches!(vcpu.run(0), Err(EngineError::Watchdog { .. })), "and counts once");
}

#[test]
fn sparse_ram_of_8_gib() {
    let slots = vec![Slot { gpa: 0, size: 0xf800_0000 }, Slot { gpa: 4 << 30, size: 0x1_0800_0000 }];
    let config = Config { slots, ..Config::new(1, 0) };
    let engine = QemuEngine::start(&config).unwrap();
    let ram = engine.ram();
    assert!(
        ram.is_ram(0xf7ff_ffff) && !ram.is_ram(0xf800_0000) && ram.is_ram(0x2_07ff_ffff) && !ram.is_ram(0x2_0800_0000)
    );
    assert_eq!(ram.write_u64(0xf7ff_fffc, 1), Err(EngineError::NotRam { gpa: 0xf7ff_fffc, len: 8 }));
    // mov [0x2_07ff_fff8 in rbx],rbx; mov [rcx],rbx; vmmcall
    let mut vcpu = engine.vcpu(0).unwrap();
    ram.write(CODE, b"\x48\x89\x1b\x48\x89\x19\x0f\x01\xd9").unwrap();
    ram.write_u64(TABLES, (TABLES + 0x1000) | 3).unwrap();
    for gib in 0..9u64 {
        ram.write_u64(TABLES + 0x1000 + gib * 8, gib << 30 | 0x83).unwrap();
    }
    vcpu.set_state(0, &start_state(0, CODE));
    vcpu.set_shared(&SharedState { rbx: 0x2_07ff_fff8, rcx: 0xf7ff_fff8, ..SharedState::default() });
    run_to_hypercall(&mut *vcpu, 0);
    assert_eq!((ram.read_u64(0x2_07ff_fff8), ram.read_u64(0xf7ff_fff8)), (Ok(0x2_07ff_fff8), Ok(0x2_07ff_fff8)));
}

#[test]
fn errors_at_start_are_told() {
    let missing = Config { program: "qemu-not-there".into(), ..Config::new(1, 1 << 20) };
    let error = QemuEngine::start(&missing).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("qemu-not-there") && error.contains("qemu-system-x86"), "{error}");
    let wrong = Config { program: "false".into(), ..Config::new(1, 1 << 20) };
    assert!(matches!(QemuEngine::start(&wrong), Err(EngineError::Died { .. })));
    for config in [Config::new(0, 1 << 20), Config::new(17, 1 << 20), Config::new(1, 0), Config::new(1, 0x1234)] {
        assert!(matches!(QemuEngine::start(&config), Err(EngineError::Config(_))), "{config:?}");
    }
}

#[test]
fn code_written_by_the_host_is_what_runs() {
    let engine = machine(1, false);
    // mov eax,1; vmmcall
    let mut vcpu = with_code(&engine, b"\xb8\x01\x00\x00\x00\x0f\x01\xd9");
    assert_eq!(run_to_hypercall(&mut *vcpu, 0).rax, 1);
    for value in 2..200u8 {
        engine.ram().write(CODE + 1, &[value]).unwrap();
        // Many small writes elsewhere, more than can be named one by one.
        for other in 0..u64::from(value) {
            engine.ram().write(0x60_0000 + other * 0x1000, &[value]).unwrap();
        }
        let context = usize::from(value % 2);
        vcpu.set_state(context, &start_state(0, CODE));
        assert_eq!(run_to_hypercall(&mut *vcpu, context).rax, u64::from(value));
    }
    engine.ram().fill(CODE + 1, 4, 0x11).unwrap();
    vcpu.set_state(0, &start_state(0, CODE));
    assert_eq!(run_to_hypercall(&mut *vcpu, 0).rax, 0x1111_1111);
}
