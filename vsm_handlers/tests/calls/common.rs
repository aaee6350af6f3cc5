//! A kernel on a machine that is nothing but a page of memory and a list of hypercalls made.

use std::sync::{Arc, Mutex};

use litebox_platform_lvbs::address::{FrameRange, PhysAddr};
use litebox_platform_lvbs::hardware::{Hardware, HypercallOutcome, MemoryFault};
use litebox_platform_lvbs::hv::{HvStatus, HypercallControl, InitialVpContext};
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::{Platform, VsmError};
use vsm_handlers::{Answer, AnswerCheck, GATE, ROWS, VSM_TABLE, dispatch};

/// First frame of VTL1's region.
pub const VTL1_START: u64 = 0x8000;
/// First frame after it.
pub const VTL1_END: u64 = 0x9000;
/// The boot processor; not 0, so that a test which mixes the two up fails.
pub const BOOT_VP: u32 = 1;
/// Possible processors.
pub const CPUS: u32 = 12;

/// What the machine is and what has been done to it.
#[derive(Default)]
pub struct State {
    /// The only page of VTL0 memory: its address and content.
    pub page: Option<(u64, Vec<u8>)>,
    /// Addresses and lengths of the reads.
    pub reads: Vec<(u64, usize)>,
    /// Control words and inputs of the hypercalls.
    pub hypercalls: Vec<(HypercallControl, Vec<u8>)>,
    /// What hypercalls answer; SUCCESS if absent.
    pub status: Option<HvStatus>,
}

/// The machine.
#[derive(Clone, Default)]
pub struct Machine(pub Arc<Mutex<State>>);

impl Hardware for Machine {
    fn hypercall(&self, control: HypercallControl, input: &[u8], _: &mut [u8]) -> HypercallOutcome {
        let mut state = self.0.lock().unwrap();
        state.hypercalls.push((control, input.to_vec()));
        HypercallOutcome { status: state.status.unwrap_or(HvStatus::SUCCESS), reps_done: 0 }
    }

    fn read_vtl0(&self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let mut state = self.0.lock().unwrap();
        state.reads.push((from.as_u64(), into.len()));
        match &state.page {
            Some((at, bytes)) if *at == from.as_u64() && bytes.len() >= into.len() => {
                into.copy_from_slice(&bytes[..into.len()]);
                Ok(())
            }
            _ => Err(MemoryFault(from)),
        }
    }

    fn write_vtl0(&self, to: PhysAddr, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault(to))
    }

    fn initial_vp_context(&self, vp: u32) -> Result<InitialVpContext, VsmError> {
        Ok(InitialVpContext { rip: 0x1000 + u64::from(vp), ..InitialVpContext::default() })
    }
}

/// A kernel on `machine`.
pub fn kernel(machine: &Machine) -> Platform {
    let config = PlatformConfig {
        vtl1_region: FrameRange::from_gfns(VTL1_START, VTL1_END).unwrap(),
        possible_cpus: CPUS,
        boot_vp: BOOT_VP,
        loader: Generation::G2,
    };
    Platform::new(Box::new(machine.clone()), config).unwrap()
}

/// Makes a VSM call through the real table.
pub fn call(platform: &Platform, vp: u32, registers: [u64; 4]) -> i64 {
    check(registers[0], dispatch(&VSM_TABLE, &GATE, platform, vp, registers))
}

/// The result, which must be one that is listed by who gave it.
pub fn check(id: u64, answer: Answer) -> i64 {
    AnswerCheck::new(&ROWS).check(id, answer).unwrap_or_else(|unlisted| panic!("{unlisted}"))
}

/// Ends the boot, by the call that does so.
pub fn end_boot(platform: &Platform) {
    assert_eq!(call(platform, BOOT_VP, [0x1_ffe3, 0, 0, 0]), 0);
}
