//! What one entry into a guest costs in instructions of the stub. With instruction counting the emulated time-stamp counter advances by one per
//! instruction, so the stub's difference around an entry is the guest's instructions plus a constant. The constant is measured at start, with a guest of
//! known length in a space of its own, and then checked with guests of other lengths.

use super::config::Mode;
use super::layout::control;
use super::machine::Machine;
use super::vmcb::Vmcb;
use crate::engine::error::{EngineError, Result};
use crate::engine::state::PrivateState;
use core::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Instructions before the hypercall in the longest guest: more than one unit of translation.
const LONGEST: usize = 600;
const NOP: u8 = 0x90;
const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
const EXIT_VMMCALL: u64 = 0x81;

/// Measures the constant on the first CPU.
pub fn entry_cost(machine: &Machine) -> Result<u64> {
    let (space, page) = machine.spaces().with_one_page(&machine.memory)?;
    let vmcb = Vmcb::new(machine.memory.clone(), 0, 0, space.root, Mode::Script);
    // Written once, before it first runs, and entered at different places: the emulator would not see a change.
    let mut code = vec![NOP; LONGEST];
    code.extend(VMMCALL);
    machine.memory.write(page, &code);
    let measure = |length: usize| {
        vmcb.set_state(&PrivateState::protected((LONGEST - length) as u64));
        vmcb.prepare(None, 0, None);
        let before = machine.control64(0, control::TICKS).load(SeqCst);
        let done = machine.request(0, vmcb.address, Instant::now() + Duration::from_secs(20))?;
        if !done || vmcb.get64(super::vmcb::EXIT_CODE) != EXIT_VMMCALL {
            return Err(EngineError::Stuck { vp: 0, what: "measuring the cost of an entry" });
        }
        Ok(machine.control64(0, control::TICKS).load(SeqCst) - before)
    };
    measure(0)?;
    let cost = measure(0)?;
    for length in [1, 7, LONGEST] {
        let counted = measure(length)?;
        if counted != cost + length as u64 {
            let text = format!("instruction counts are not exact: {length} instructions counted as {counted} - {cost}");
            return Err(EngineError::Config(text));
        }
    }
    Ok(cost)
}
