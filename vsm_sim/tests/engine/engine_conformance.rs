//! Does the emulated CPU do what a CPU does? A list of checks on real guest code; what QEMU 7.2 is known to get wrong is listed with what it does instead.
//!
//! The guests run in context 0 at privilege 0 with an IDT whose handlers are hypercalls: an exception ends the guest, and the harness reads the frame.

use crate::common::{CODE, machine, run, start_state};
use crate::guest::guest;
use vsm_sim::engine::qemu::QemuEngine;
use vsm_sim::engine::{Engine, PrivateState, Reason, Segment, SharedState, TableRegister, Vcpu};

const IDT: u64 = 0x6000;
const GDT: u64 = 0x7000;
const TSS: u64 = 0x8000;
/// Handlers: 8 bytes for each vector, each a hypercall.
const HANDLERS: u64 = 0x9000;
const SYSCALL: u64 = 0x9800;
const GDT_POINTER: u64 = 0x9900;
const IST1: u64 = 0x51_0000;
const RSP0: u64 = 0x52_0000;
/// Linear window of 4 KiB pages, and what is behind it.
const WINDOW: u64 = 0x4000_0000;
const WINDOW_TABLE: u64 = 0x1_4000;
const WINDOW_RAM: u64 = 0x100_0000;
/// Scratch data: a pattern at +0, save area at +0x1000, result at +0x2000.
const DATA: u64 = 0x60_0000;

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const NX: u64 = 1 << 63;
/// Flags of the window's pages, in order.
const PAGES: [u64; 8] = [P | W, P, 0, P | W | NX, P | W | U, P | W | 1 << 51, P | W, P];
const RW: u64 = WINDOW;
const RO: u64 = WINDOW + 0x1000;
const ABSENT: u64 = WINDOW + 0x2000;
const NO_EXEC: u64 = WINDOW + 0x3000;
const USER: u64 = WINDOW + 0x4000;
const RESERVED: u64 = WINDOW + 0x5000;

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Normally, with this in RAX.
    Rax(u64),
    /// Vector, error code (0 if the vector has none).
    Exception(u8, u64),
    /// A page fault: error code, CR2.
    PageFault(u64, u64),
    /// Through the system call entry, with CS from STAR.
    Syscall,
}

struct Bench {
    engine: QemuEngine,
    vcpu: Box<dyn Vcpu>,
    state: PrivateState,
    shared: SharedState,
}

fn gate(handler: u64, ist: u64) -> u64 {
    handler & 0xffff | 8 << 16 | ist << 32 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48
}

impl Bench {
    fn new() -> Self {
        let engine = machine(1, false);
        let ram = engine.ram();
        let put = |gpa, value| ram.write_u64(gpa, value).unwrap();
        ram.fill(HANDLERS, 0x800, 0x90).unwrap();
        for vector in 0..32 {
            put(IDT + vector * 16, gate(HANDLERS + vector * 8, 0));
            ram.write(HANDLERS + vector * 8, b"\x0f\x01\xd9").unwrap();
        }
        ram.write(SYSCALL, b"\x0f\x01\xd9").unwrap();
        let tss = 0x67 | (TSS & 0xff_ffff) << 16 | 0x89 << 40;
        let descriptors =
            [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, tss, 0];
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            put(GDT + index as u64 * 8, descriptor);
        }
        ram.write(GDT_POINTER, &[&0x37u16.to_le_bytes()[..], &GDT.to_le_bytes()[..]].concat()).unwrap();
        ram.write(TSS + 4, &RSP0.to_le_bytes()).unwrap();
        ram.write(TSS + 0x24, &IST1.to_le_bytes()).unwrap();
        let tables = crate::common::TABLES;
        put(tables, (tables + 0x1000) | P | W | U);
        put(tables + 0x1008, 0x1_3000 | P | W | U);
        put(0x1_3000, WINDOW_TABLE | P | W | U);
        for page in 0..8 {
            ram.fill(WINDOW_RAM + page * 0x1000, 0x1000, 0xc3).unwrap();
        }
        let mut state = start_state(0, CODE);
        state.idtr = TableRegister { base: IDT, limit: 0x1ff };
        state.gdtr = TableRegister { base: GDT, limit: 0x37 };
        state.tr = Segment { base: TSS, limit: 0x67, selector: 0x28, attributes: 0x8b };
        state.cr4 |= 1 << 16 | 1 << 18; // FSGSBASE, OSXSAVE
        state.star = 0x0013_0008_0000_0000;
        state.lstar = SYSCALL;
        state.sfmask = 0x200;
        let mut bench = Self { vcpu: engine.vcpu(0).unwrap(), engine, state, shared: SharedState::default() };
        bench.reset_window();
        bench
    }

    fn reset_window(&mut self) {
        for (page, flags) in (0..).zip(PAGES) {
            let frame = if flags == 0 { 0 } else { WINDOW_RAM + page * 0x1000 };
            self.engine.ram().write_u64(WINDOW_TABLE + page * 8, frame | flags).unwrap();
        }
        let pattern: Vec<u8> = (1..=64).collect();
        self.engine.ram().write(DATA, &pattern).unwrap();
        self.engine.ram().fill(DATA + 0x1000, 0x2000, 0).unwrap();
    }

    fn run_code(&mut self, code: &[u8], state: &PrivateState) -> End {
        self.engine.ram().write(CODE, &[code, b"\x0f\x01\xd9"].concat()).unwrap();
        self.vcpu.set_state(0, state);
        self.vcpu.set_shared(&self.shared);
        let exit = run(&mut *self.vcpu, 0);
        assert_eq!(exit.reason, Reason::Hypercall, "at RIP {:#x}", exit.rip);
        let (state, shared) = (self.vcpu.state(0), self.vcpu.shared());
        match exit.rip {
            SYSCALL => {
                assert_eq!((state.cs.selector, state.ss.selector, state.cpl()), (8, 0x10, 0), "STAR");
                assert_eq!(state.rflags & 0x200, 0, "SFMASK");
                End::Syscall
            }
            rip if (HANDLERS..HANDLERS + 0x100).contains(&rip) => {
                let vector = u8::try_from((rip - HANDLERS) / 8).unwrap();
                let has_error = matches!(vector, 8 | 10..=14 | 17);
                let error = if has_error { self.engine.ram().read_u64(state.rsp).unwrap() } else { 0 };
                if vector == 14 { End::PageFault(error, shared.cr2) } else { End::Exception(vector, error) }
            }
            rip => {
                assert_eq!(rip, CODE + code.len() as u64, "guest ended somewhere else");
                End::Rax(shared.rax)
            }
        }
    }

    /// Runs a guest by name with RBX set and the state changed.
    fn check(&mut self, name: &str, rbx: u64, change: impl FnOnce(&mut PrivateState)) -> End {
        self.reset_window();
        self.shared = SharedState { rbx, rdi: DATA + 0x1000, rsi: DATA + 0x2000, ..self.shared };
        let mut state = self.state;
        change(&mut state);
        self.run_code(guest(name), &state)
    }

    fn expect(&mut self, name: &str, rbx: u64, expected: End) {
        assert_eq!(self.check(name, rbx, |_| {}), expected, "{name} with RBX {rbx:#x}");
    }
}

const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const WP: u64 = 1 << 16;
const FILLED: u64 = 0xc3c3_c3c3_c3c3_c3c3;

#[test]
fn paging() {
    let mut bench = Bench::new();
    for (name, rbx, expected) in [
        ("read", RW, End::Rax(FILLED)),
        ("read", ABSENT, End::PageFault(0, ABSENT)),
        ("write", ABSENT, End::PageFault(2, ABSENT)),
        ("call", ABSENT, End::PageFault(0x10, ABSENT)),
        ("write", RO, End::PageFault(3, RO)),
        ("call", RO, End::Rax(0)),
        ("call", NO_EXEC, End::PageFault(0x11, NO_EXEC)),
        ("read", NO_EXEC, End::Rax(FILLED)),
        ("read", 1 << 63, End::Exception(13, 0)),
        ("read", USER, End::Rax(FILLED)),
        ("call", USER, End::Rax(0)),
    ] {
        bench.shared = SharedState::default();
        bench.expect(name, rbx, expected);
    }
    assert_eq!(bench.check("write", RO, |state| state.cr0 &= !WP), End::Rax(0), "CR0.WP off");
    assert_eq!(bench.check("read", USER, |state| state.cr4 |= SMAP), End::PageFault(1, USER));
    assert_eq!(bench.check("read_ac", USER, |state| state.cr4 |= SMAP), End::Rax(FILLED));
    assert_eq!(bench.check("call", USER, |state| state.cr4 |= SMEP), End::PageFault(0x11, USER));
    // A store over a page boundary into a read-only page leaves nothing behind.
    bench.expect("write", RO - 4, End::PageFault(3, RO));
    assert_eq!(bench.engine.ram().read_u64(WINDOW_RAM + 0xff8), Ok(FILLED));
    // Accessed and dirty bits.
    let entry = |bench: &Bench, page: u64| bench.engine.ram().read_u64(WINDOW_TABLE + page * 8).unwrap() & 0x60;
    bench.check("read", RO, |_| {});
    assert_eq!((entry(&bench, 0), entry(&bench, 1)), (0, 0x20));
    bench.check("write", RW, |_| {});
    assert_eq!((entry(&bench, 0), entry(&bench, 1)), (0x60, 0));
    // INVLPG after the guest changed its own table.
    bench.engine.ram().write_u64(WINDOW_RAM + 0x6000, 0x1234).unwrap();
    bench.shared = SharedState { rcx: WINDOW_TABLE, rdx: WINDOW_RAM + 0x6000 + P, ..SharedState::default() };
    bench.expect("remap", RW, End::Rax(0x1234));
}

#[test]
fn exceptions() {
    let mut bench = Bench::new();
    bench.expect("undefined", 0, End::Exception(6, 0));
    bench.expect("divide", 0, End::Exception(0, 0));
    bench.expect("breakpoint", 0, End::Exception(3, 0));
    bench.expect("bad_selector", 0, End::Exception(13, 0x50));
    bench.expect("vmrun", 0, End::Exception(6, 0));
    assert_eq!(bench.check("device_not_available", 0, |state| state.cr0 |= 8), End::Exception(7, 0));
    let stack = |bench: &Bench| bench.vcpu.state(0).rsp;
    assert_eq!(stack(&bench), crate::common::STACK - 40, "on the present stack");
    bench.engine.ram().write_u64(IDT + 6 * 16, gate(HANDLERS + 6 * 8, 1)).unwrap();
    bench.expect("undefined", 0, End::Exception(6, 0));
    assert_eq!(stack(&bench), IST1 - 40, "on the IST stack");
    // #GP whose gate is absent: #NP while delivering #GP, hence #DF.
    bench.engine.ram().write_u64(IDT + 13 * 16, 0).unwrap();
    bench.engine.ram().write_u64(IDT + 8 * 16, gate(HANDLERS + 8 * 8, 1)).unwrap();
    bench.expect("read", 1 << 63, End::Exception(8, 0));
    assert_eq!(stack(&bench), IST1 - 48);
    bench.engine.ram().write_u64(IDT + 8 * 16, 0).unwrap();
    bench.vcpu.set_state(0, &bench.state);
    assert_eq!(run(&mut *bench.vcpu, 0).reason, Reason::Shutdown, "and a triple fault without #DF");
}

#[test]
fn privilege_levels() {
    let mut bench = Bench::new();
    for name in ["to_user_iretq", "to_user_sysretq"] {
        for (code, expected) in
            [(&b"\x0f\x05"[..], End::Syscall), (b"\x0f\x0b", End::Exception(6, 0)), (b"\xf4", End::Exception(13, 0))]
        {
            bench.engine.ram().write(WINDOW_RAM + 0x4000, code).unwrap();
            bench.shared = SharedState { rcx: USER + 0x1000, ..SharedState::default() };
            assert_eq!(bench.check(name, USER, |state| state.efer |= 1), expected, "{name} {code:x?}");
            if expected == End::Syscall {
                assert_eq!(bench.vcpu.shared().rcx, USER + 2);
            } else {
                let error = u64::from(matches!(expected, End::Exception(13, _))) * 8;
                assert_eq!(bench.vcpu.state(0).rsp, RSP0 - 40 - error, "on the stack of the TSS");
                let cs = bench.engine.ram().read_u64(RSP0 - 32).unwrap();
                assert_eq!(cs, 0x23, "from ring 3");
            }
        }
        // An exit from ring 3 tells its privilege.
        bench.vcpu.set_intercepts(0, &vsm_sim::engine::Intercepts { exceptions: 1 << 6, ..Default::default() });
        bench.engine.ram().write(WINDOW_RAM + 0x4000, b"\x0f\x0b").unwrap();
        bench.engine.ram().write(CODE, guest(name)).unwrap();
        bench.vcpu.set_state(0, &bench.state);
        bench.vcpu.set_shared(&SharedState { rbx: USER, rcx: USER + 0x1000, ..SharedState::default() });
        assert_eq!(run(&mut *bench.vcpu, 0).reason, Reason::Exception { vector: 6, error: 0, gva: 0 });
        assert_eq!(bench.vcpu.state(0).cpl(), 3);
        bench.vcpu.set_intercepts(0, &vsm_sim::engine::Intercepts::default());
    }
}

#[test]
fn system_registers() {
    let mut bench = Bench::new();
    bench.expect("cr8", 0, End::Rax(5));
    assert_eq!(bench.vcpu.state(0).cr8, 5);
    bench.expect("cr4_reserved", 0, End::Exception(13, 0));
    bench.expect("tables", GDT_POINTER, End::Rax(0x28));
    let tr = bench.vcpu.state(0).tr;
    assert_eq!((tr.base, tr.selector, tr.attributes & 0xff), (TSS, 0x28, 0x8b));
    bench.expect("tables", GDT_POINTER, End::Exception(13, 0x28));
    let efer = vsm_sim::engine::state::msr::EFER;
    for (value, expected) in
        [(0x1d01u64, End::Exception(13, 0)), (0xc01, End::Exception(13, 0)), (0xd00, End::Rax(0xd00))]
    {
        bench.shared = SharedState { rax: value, rcx: efer.into(), ..SharedState::default() };
        bench.expect("wrmsr", 0, expected);
    }
    assert_eq!(bench.vcpu.state(0).efer, 0xd00 | 1 << 10);
    bench.shared = SharedState { rdx: 0x77, ..SharedState::default() };
    bench.expect("swapgs", 0x55, End::Rax(0x55 << 32 | 0x77));
}

#[test]
fn floating_point_and_vectors() {
    let mut bench = Bench::new();
    bench.expect("sse", DATA, End::Rax(0x100e_0c0a_0806_0402));
    bench.expect("x87", DATA, End::Rax(core::f64::consts::PI.to_bits()));
    bench.expect("avx_xsave", DATA, End::Rax(0x403e_3c3a_3836_3432));
    bench.expect("fxsave", DATA, End::Rax(0x0807_0605_0403_0201));
    bench.expect("cmpxchg16b", 0, End::Rax(0x77));
    bench.expect("bits", 0, End::Rax(4 << 4));
    bench.expect("aes", DATA, End::Rax(0));
}

#[test]
fn self_modifying_code() {
    let mut bench = Bench::new();
    bench.shared = SharedState::default();
    // Turn n executes what turn n-1 wrote: the low byte of its counter; the sum of 0x200..=2 by low bytes.
    let sum = (2..=0x200u64).map(|counter| counter & 0xff).sum();
    bench.expect("self_modifying", 0, End::Rax(sum));
}

#[test]
fn contexts_share_and_separate_what_the_tlfs_says() {
    let mut bench = Bench::new();
    let patterns = SharedState { rax: 0x1000, rbx: DATA, rdx: 0xdead_beef_1234, ..SharedState::default() };
    bench.shared = patterns;
    let (rdi, rsi) = (DATA + 0x1000, DATA + 0x2000);
    bench.shared.rdi = rdi;
    assert_eq!(bench.run_code(guest("set_shared"), &bench.state.clone()), End::Rax(7));
    // The other context, with everything private different.
    let before = bench.vcpu.state(0);
    let mut other = start_state(0, CODE + 0x1000);
    (other.cr4, other.cr8, other.lstar, other.kernel_gs_base, other.dr7) =
        (bench.state.cr4 | SMEP, 9, 0x1111, 0x2222, 0x400);
    (other.fs.base, other.gs.base, other.sysenter_eip, other.star) = (0x3333, 0x4444, 0x5555, 0x6666);
    bench.engine.ram().write(CODE + 0x1000, &[guest("get_shared"), b"\x0f\x01\xd9"].concat()).unwrap();
    bench.vcpu.set_state(1, &other);
    let carried = bench.vcpu.shared();
    bench.vcpu.set_shared(&SharedState { rdi, rsi, dr6: 0xffff_0ff1, ..carried });
    assert_eq!(run(&mut *bench.vcpu, 1).reason, Reason::Hypercall);
    let seen = bench.vcpu.shared();
    assert_eq!([seen.r8, seen.r9, seen.r10, seen.r11], [0x1000, 0x1001, 0x1002, 0x1003], "DR0 to DR3");
    assert_eq!((seen.r12, seen.cr2, seen.dr6), (patterns.rdx, patterns.rdx, 0xffff_0ff1), "CR2 and DR6");
    assert_eq!(seen.r13, core::f64::consts::PI.to_bits(), "x87");
    assert_eq!((seen.r14, seen.r15), (0x1f00, 7), "MXCSR and XCR0");
    let mut vectors = [0; 64];
    bench.engine.ram().read(rsi, &mut vectors).unwrap();
    let pattern: Vec<u8> = (1..=32).chain(1..=32).collect();
    assert_eq!(&vectors[..], &pattern[..], "YMM15 and YMM0");
    assert_eq!(bench.vcpu.state(0), before, "the first context's private state is untouched");
    let mut after = bench.vcpu.state(1);
    (after.rip, after.rflags) = (other.rip, other.rflags);
    assert_eq!(after, other, "and the second's is its own");
    // And back: RAX, CR2 and DR6 follow.
    bench.vcpu.set_shared(&SharedState { rax: 0x99, cr2: 0x88, ..seen });
    bench.engine.ram().write(CODE, b"\x0f\x20\xd3\x0f\x01\xd9").unwrap();
    bench.vcpu.set_state(0, &bench.state);
    assert_eq!(run(&mut *bench.vcpu, 0).reason, Reason::Hypercall);
    let back = bench.vcpu.shared();
    assert_eq!((back.rax, back.rbx, back.cr2, back.dr6), (0x99, 0x88, 0x88, 0xffff_0ff1));
}

#[test]
fn the_cpu_tells_what_it_has() {
    let engine = machine(1, false);
    let [max, ebx, ecx, edx] = engine.cpuid(0, 0);
    let vendor = [ebx, edx, ecx].map(u32::to_le_bytes).concat();
    assert!(max >= 0xd && vendor.is_ascii(), "{max:#x} {vendor:?}");
    let features = engine.cpuid(7, 0)[1];
    assert_eq!(features & (1 | 1 << 7 | 1 << 20), 1 | 1 << 7 | 1 << 20, "FSGSBASE, SMEP, SMAP");
    let [_, _, ecx, edx] = engine.cpuid(1, 0);
    assert!(ecx & (1 << 26) != 0 && ecx & (1 << 28) != 0 && edx & (1 << 25) != 0, "XSAVE, AVX, SSE");
    assert_eq!(engine.cpuid(0x4000_0000, 0), [0; 4]);
}

/// What QEMU 7.2 is known to do wrong. A newer one may do it right; anything else is news.
#[test]
fn known_faults() {
    let mut bench = Bench::new();
    let lstar = SharedState { rcx: 0xc000_0082, rdx: 0x8000_0000, ..SharedState::default() };
    for (what, name, rbx, shared, right, known) in [
        (
            "P is missing in the code of a reserved-bit page fault",
            "read",
            RESERVED,
            None,
            End::PageFault(9, RESERVED),
            End::PageFault(8, RESERVED),
        ),
        ("LSTAR takes a non-canonical address", "wrmsr", 0, Some(lstar), End::Exception(13, 0), End::Rax(0)),
        ("no SHA extensions", "sha", 0, None, End::Rax(0), End::Exception(6, 0)),
        ("no INVPCID", "invpcid", DATA + 0x100, None, End::Rax(0), End::Exception(6, 0)),
    ] {
        bench.shared = shared.unwrap_or_default();
        let found = bench.check(name, rbx, |_| {});
        assert!(found == right || found == known, "{what}: found {found:x?}");
        println!("{what}: {}", if found == right { "not any more" } else { "still so" });
    }
}
