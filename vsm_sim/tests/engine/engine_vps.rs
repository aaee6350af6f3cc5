//! Several VPs at once: exact atomic updates, kicks, rights that change under a running guest, idle CPUs, and the end of the process.

use crate::common::{CODE, RAM, machine, machine_of, run, run_to_hypercall, start_state};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use vsm_sim::engine::qemu::Config;
use vsm_sim::engine::{Access, Engine, EngineError, Reason, SharedState};

/// `lock inc qword [rbx]; dec rcx; jnz -; vmmcall`
const COUNT: &[u8] = b"\xf0\x48\xff\x03\x48\xff\xc9\x75\xf7\x0f\x01\xd9";
const COUNTER: u64 = 0x50_0000;

fn parallel_increments(vps: u32, count: u64, counting: bool) {
    let engine = machine(vps, counting);
    engine.ram().write(CODE, COUNT).unwrap();
    std::thread::scope(|scope| {
        for vp in 0..vps {
            let mut vcpu = engine.vcpu(vp).unwrap();
            scope.spawn(move || {
                for context in 0..2 {
                    vcpu.set_state(context, &start_state(vp, CODE));
                    vcpu.set_shared(&SharedState { rbx: COUNTER, rcx: count, ..SharedState::default() });
                    run_to_hypercall(&mut *vcpu, context);
                    if counting {
                        assert!(vcpu.instructions(context) > 3 * count, "VP {vp} context {context}");
                    }
                }
            });
        }
    });
    assert_eq!(engine.ram().read_u64(COUNTER), Ok(u64::from(vps) * 2 * count));
}

#[test]
fn two_vps_increment_exactly() {
    parallel_increments(2, 2_000_000, false);
}

#[test]
fn three_vps_increment_exactly() {
    parallel_increments(3, 300_000, false);
}

#[test]
fn four_vps_increment_exactly() {
    parallel_increments(4, 300_000, false);
}

#[test]
fn eight_vps_increment_exactly() {
    parallel_increments(8, 100_000, false);
}

#[test]
fn counting_vps_increment_exactly() {
    parallel_increments(3, 100_000, true);
}

#[test]
fn vps_really_run_at_the_same_time() {
    wait_for_each_other(&machine(2, false));
}

#[test]
fn counting_vps_take_turns() {
    wait_for_each_other(&machine(2, true));
}

#[test]
fn vps_of_one_thread_take_turns() {
    wait_for_each_other(&machine_of(&Config { one_thread: true, ..Config::new(2, RAM) }));
}

#[test]
fn code_that_another_vp_changes_is_seen_where_all_share_a_thread() {
    const CHANGES: u8 = 50;
    const WRITER: u64 = CODE + 0x1000;
    let engine = machine_of(&Config { one_thread: true, ..Config::new(2, RAM) });
    // VP 0: mov eax, imm; mov [rbx], eax; pause; cmp eax, CHANGES; jne to the start; vmmcall.
    let reader = [0xb8, 0, 0, 0, 0, 0x89, 0x03, 0xf3, 0x90, 0x3d, CHANGES, 0, 0, 0, 0x75, 0xf0, 0x0f, 0x01, 0xd9];
    // VP 1: xor eax, eax; inc eax; mov [rcx+1], eax; pause; cmp [rbx], eax; jne to PAUSE; cmp eax, CHANGES; jne to INC; vmmcall.
    let wait = [0xf3, 0x90, 0x39, 0x03, 0x75, 0xfa];
    let writer =
        [&[0x31, 0xc0, 0xff, 0xc0, 0x89, 0x41, 0x01], &wait[..], &[0x3d, CHANGES, 0, 0, 0, 0x75, 0xee]].concat();
    engine.ram().write(CODE, &reader).unwrap();
    engine.ram().write(WRITER, &[&writer[..], &[0x0f, 0x01, 0xd9]].concat()).unwrap();
    std::thread::scope(|scope| {
        for (vp, rip) in [(0, CODE), (1, WRITER)] {
            let mut vcpu = engine.vcpu(vp).unwrap();
            scope.spawn(move || {
                vcpu.set_state(0, &start_state(vp, rip));
                vcpu.set_shared(&SharedState { rbx: COUNTER, rcx: CODE, ..SharedState::default() });
                assert_eq!(run_to_hypercall(&mut *vcpu, 0).rax, u64::from(CHANGES));
            });
        }
    });
}

fn wait_for_each_other(engine: &dyn Engine) {
    // VP 0: mov [rbx],1; wait for [rcx]; vmmcall. VP 1 the other way round: neither ends without the other.
    engine.ram().write(CODE, b"\x48\xc7\x03\x01\x00\x00\x00\x48\x83\x39\x00\x74\xfa\x0f\x01\xd9").unwrap();
    std::thread::scope(|scope| {
        for vp in 0..2u32 {
            let mut vcpu = engine.vcpu(vp).unwrap();
            scope.spawn(move || {
                vcpu.set_state(0, &start_state(vp, CODE));
                let (rbx, rcx) = if vp == 0 { (COUNTER, COUNTER + 64) } else { (COUNTER + 64, COUNTER) };
                vcpu.set_shared(&SharedState { rbx, rcx, ..SharedState::default() });
                run_to_hypercall(&mut *vcpu, 0);
            });
        }
    });
}

#[test]
fn a_kick_stops_only_its_vp() {
    let engine = machine(2, false);
    engine.ram().write(CODE, b"\xeb\xfe").unwrap();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..2u32)
            .map(|vp| {
                let mut vcpu = engine.vcpu(vp).unwrap();
                let stopped = &stopped;
                scope.spawn(move || {
                    vcpu.set_state(0, &start_state(vp, CODE));
                    assert_eq!(run(&mut *vcpu, 0).reason, Reason::Kicked);
                    if vp == 0 {
                        stopped.store(true, SeqCst);
                    } else {
                        assert!(stopped.load(SeqCst), "VP 1 stopped with VP 0's kick");
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        engine.kick(0).unwrap();
        while !stopped.load(SeqCst) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(100));
        engine.kick(1).unwrap();
        for handle in handles {
            handle.join().unwrap();
        }
    });
    assert!(matches!(engine.kick(2), Err(EngineError::BadVp { .. })));
}

#[test]
fn rights_change_under_a_running_guest() {
    let engine = machine(2, false);
    // inc qword [rbx]; jmp -
    engine.ram().write(CODE, b"\x48\xff\x03\xeb\xfb").unwrap();
    for vp in 0..2 {
        let mut vcpu = engine.vcpu(vp).unwrap();
        vcpu.set_state(0, &start_state(vp, CODE));
        vcpu.set_shared(&SharedState { rbx: COUNTER, ..SharedState::default() });
        std::thread::scope(|scope| {
            let guest = scope.spawn(move || run(&mut *vcpu, 0).reason);
            while engine.ram().read_u64(COUNTER) == Ok(0) {
                std::thread::yield_now();
            }
            engine.protect(0, COUNTER >> 12, 1, Access { write: false, ..Access::ALL }).unwrap();
            let after = engine.ram().read_u64(COUNTER);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(engine.ram().read_u64(COUNTER), after, "no write after the call returned");
            let reason = guest.join().unwrap();
            assert!(matches!(reason, Reason::Memory(fault) if fault.write && fault.gpa == COUNTER), "{reason:?}");
        });
        engine.protect(0, COUNTER >> 12, 1, Access::ALL).unwrap();
        engine.ram().write_u64(COUNTER, 0).unwrap();
    }
}

/// Ticks (usually 10 ms) of processor time that our child processes which run the emulator on behalf of `engine_pid` have used.
fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields.get(11..13).map_or(0, |times| times.iter().filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Children of this process, with the thread that started them.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let tasks = std::fs::read_dir(format!("/proc/{own}/task")).unwrap();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Set for a test that runs again in a process of its own, so that other tests' emulators are not seen.
const ALONE: &str = "VSM_SIM_ALONE";

/// Runs one test of this module in a process of its own.
fn alone(test: &str) -> std::process::Output {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).env(ALONE, "1").output().unwrap()
}

#[test]
fn an_aborted_process_leaves_no_emulator() {
    if std::env::var_os(ALONE).is_some() {
        let engine = machine(1, false);
        engine.ram().write(CODE, b"\xeb\xfe").unwrap();
        let mut vcpu = engine.vcpu(0).unwrap();
        vcpu.set_state(0, &start_state(0, CODE));
        std::thread::scope(|scope| {
            scope.spawn(|| vcpu.run(0));
            std::thread::sleep(Duration::from_millis(100));
            println!("child {}", children()[0]);
            std::process::abort();
        });
    }
    let output = alone("an_aborted_process_leaves_no_emulator");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pid: u32 =
        text.split("child ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect(&text);
    let limit = Instant::now() + Duration::from_secs(5);
    // Gone, or dead and not yet collected by its new parent.
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.contains("qemu") && !stat.contains(") Z"))
    };
    while alive() {
        assert!(Instant::now() < limit, "emulator {pid} outlived its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn idle_cpus_rest_and_the_process_ends() {
    if std::env::var_os(ALONE).is_none() {
        let output = alone("idle_cpus_rest_and_the_process_ends");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    for counting in [false, true] {
        let engine = machine(4, counting);
        let [pid] = children()[..] else { panic!("one child expected: {:?}", children()) };
        std::thread::sleep(Duration::from_millis(200));
        let before = processor_ticks(pid);
        std::thread::sleep(Duration::from_secs(1));
        let used = processor_ticks(pid) - before;
        assert!(used < 20, "idle emulator used {used} ticks of a second (counting: {counting})");
        drop(engine);
        assert!(children().is_empty(), "the emulator is gone");
    }
    // An emulator that is killed is reported, and nothing hangs.
    let engine = machine(1, false);
    engine.ram().write(CODE, b"\xeb\xfe").unwrap();
    let mut vcpu = engine.vcpu(0).unwrap();
    vcpu.set_state(0, &start_state(0, CODE));
    let [pid] = children()[..] else { panic!("one child expected") };
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    });
    let start = Instant::now();
    assert!(matches!(vcpu.run(0), Err(EngineError::Died { .. })));
    assert!(start.elapsed() < Duration::from_secs(5));
    killer.join().unwrap();
}
