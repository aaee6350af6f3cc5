//! What one entry into a guest costs in instructions of the stub. With instruction counting the emulated time-stamp counter advances by one per
//! instruction, so the stub's difference around an entry is the guest's instructions plus a constant. The constant is measured at start, with a guest of
//! known length in a space of its own, and then checked with guests of other lengths.

use super::layout::control;
use super::machine::Machine;
use super::npt::AddressSpace;
use super::process::machine_address;
use super::vmcb::Vmcb;
use crate::engine::error::{EngineError, Result};
use crate::engine::ram::{Placed, Slot};
use crate::engine::state::{PrivateState, Segment};
use core::sync::atomic::Ordering::SeqCst;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Instructions before the hypercall in the longest guest: more than one unit of translation.
const LONGEST: usize = 600;
const NOP: u8 = 0x90;
const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
const EXIT_VMMCALL: u64 = 0x81;

/// Measures the constant on the first CPU.
pub fn entry_cost(machine: &Machine) -> Result<u64> {
    let (space, page) = {
        let mut guard = machine.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let page = guard.pool.page()?;
        let space = AddressSpace::new(machine.memory.clone(), &mut guard.pool)?;
        space.map_slot(
            &mut guard.pool,
            &Placed { slot: Slot { gpa: 0, size: 0x1000 }, offset: page },
            machine_address,
        )?;
        (space, page)
    };
    let vmcb = Vmcb::new(machine.memory.clone(), 0, 0, space.root);
    // Written once, before it first runs, and entered at different places: the emulator would not see a change.
    let mut code = vec![NOP; LONGEST];
    code.extend(VMMCALL);
    machine.memory.write(page, &code);
    let measure = |length: usize| {
        // Protected mode without paging, so that no guest page tables are needed.
        let mut state = PrivateState::long_mode((LONGEST - length) as u64, 0x1000, 0);
        (state.cr0, state.cr4, state.efer) = (0x11, 0, 0);
        state.cs = Segment { attributes: 0xc09b, ..state.cs };
        vmcb.set_state(&state);
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
