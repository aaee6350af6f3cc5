//! The guest in which a CPU waits while the guest with the machine's devices has halted: one HLT, with interrupts on. An
//! interrupt ends it without being taken, and finds the real guest behind its own HLT. So HLT can stop in that guest (one
//! with interrupts off is for the host to see), and yet a halted CPU costs nothing and misses no interrupt.

use std::sync::Arc;

use super::layout;
use super::spaces::Spaces;
use super::vmcb::Vmcb;
use crate::engine::error::Result;
use crate::engine::ram::Mapping;
use crate::engine::state::PrivateState;

const HLT: u8 = 0xf4;

/// Makes the waiting guests of `cpus` CPUs; the addresses of their VMCBs.
pub fn build(memory: &Arc<Mapping>, spaces: &mut Spaces, cpus: u32) -> Result<Vec<u64>> {
    let (space, page) = spaces.with_one_page(memory)?;
    memory.write(page, &[HLT]);
    let waiter = |cpu| {
        let vmcb = Vmcb::at(Arc::clone(memory), layout::vmcb(cpu, 2));
        vmcb.wait(space.root);
        vmcb.set_state(&PrivateState { rflags: 0x202, ..PrivateState::protected(0) });
        vmcb.address
    };
    Ok((0..cpus).map(waiter).collect())
}
