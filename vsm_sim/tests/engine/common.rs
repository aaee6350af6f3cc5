//! What the engine tests share: a machine with page tables, and guests given as bytes.

use std::time::Duration;
use vsm_sim::engine::qemu::{Config, QemuEngine};
use vsm_sim::engine::{Engine, Exit, PrivateState, Reason, SharedState, Vcpu};

/// Guest-physical address of the identity map's root.
pub const TABLES: u64 = 0x1_0000;
/// Where guests are put.
pub const CODE: u64 = 0x20_0000;
/// Top of VP 0's stack; each further VP is 64 KiB higher.
pub const STACK: u64 = 0x40_0000;
/// RAM of the machine.
pub const RAM: u64 = 32 << 20;

/// A machine whose RAM starts with an identity map of 1 GiB (2 MiB pages).
pub fn machine(vps: u32, count_instructions: bool) -> QemuEngine {
    machine_of(&Config { count_instructions, ..Config::new(vps, RAM) })
}

/// The same, as `config` says.
pub fn machine_of(config: &Config) -> QemuEngine {
    let config = Config { watchdog: Duration::from_secs(30), ..config.clone() };
    let engine = QemuEngine::start(&config).expect("the engine starts");
    let ram = engine.ram();
    ram.write_u64(TABLES, (TABLES + 0x1000) | 3).unwrap();
    ram.write_u64(TABLES + 0x1000, (TABLES + 0x2000) | 3).unwrap();
    for page in 0..512 {
        ram.write_u64(TABLES + 0x2000 + page * 8, page << 21 | 0x83).unwrap();
    }
    engine
}

/// State of a VP about to run at `rip`.
pub fn start_state(vp: u32, rip: u64) -> PrivateState {
    PrivateState::long_mode(rip, STACK + (u64::from(vp) << 16), TABLES)
}

/// Puts code at [`CODE`] and gives a VP that will run it in context 0.
pub fn with_code(engine: &QemuEngine, code: &[u8]) -> Box<dyn Vcpu> {
    engine.ram().write(CODE, code).unwrap();
    let mut vcpu = engine.vcpu(0).unwrap();
    vcpu.set_state(0, &start_state(0, CODE));
    vcpu
}

/// Runs a context; the engine must not fail.
pub fn run(vcpu: &mut dyn Vcpu, context: usize) -> Exit {
    vcpu.run(context).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a context up to a hypercall, and over it.
pub fn run_to_hypercall(vcpu: &mut dyn Vcpu, context: usize) -> SharedState {
    let exit = run(vcpu, context);
    assert_eq!(exit.reason, Reason::Hypercall, "at RIP {:#x}", exit.rip);
    assert_eq!(exit.instruction_len, 3);
    vcpu.advance(context, exit.instruction_len);
    vcpu.shared()
}
