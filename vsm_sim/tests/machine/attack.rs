//! A second processor of VTL0 that stores into what a call validates, while the first processor makes the call.

use std::sync::Barrier;

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{al, byte_ptr, rbx, rcx};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::Vtl0;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::lists::Range;

use crate::linux::Linux;
use crate::setup::is_carried_out;

/// A call, and the stores that are made during it.
pub struct Attack<'a> {
    pub function: VsmFunction,
    pub ranges: &'a [Range],
    /// Bytes that are changed, in turn.
    pub targets: &'a [u64],
    pub rounds: u64,
    /// How long the last round's store waits, in turns of two instructions.
    pub longest_delay: u64,
    /// What the call may answer when it finds the change.
    pub errnos: &'a [Errno],
}

impl Attack<'_> {
    /// Makes the call once for each round, with the store a little later each time. `judge` looks at each result and what it
    /// has left, and undoes a success.
    pub fn run(
        &self,
        linux: &mut Linux,
        attacker: &mut Vtl0,
        mut judge: impl FnMut(&mut Linux, i64) -> Result<()>,
    ) -> Result<()> {
        let machine = linux.vtl0.machine();
        // Waits, then stores.
        let snippet = attacker.place(|asm| {
            let mut turn = asm.create_label();
            asm.set_label(&mut turn)?;
            asm.dec(rcx)?;
            asm.jnz(turn)?;
            asm.mov(byte_ptr(rbx), al)
        })?;
        let (mut refused, mut faults, mut late) = (0, 0, 0);
        for (round, target) in (0..self.rounds).zip(self.targets.iter().cycle()) {
            let mut original = [0];
            bytes::read(machine.ram(), *target, &mut original)?;
            let delay = 1 + self.longest_delay * round / self.rounds;
            let registers =
                SharedState { rbx: *target, rcx: delay, rax: u64::from(original[0] ^ 0xff), ..SharedState::default() };
            let barrier = Barrier::new(2);
            let (result, stop) = std::thread::scope(|scope| -> Result<_> {
                let store = scope.spawn(|| {
                    barrier.wait();
                    attacker.run_at(snippet, &registers)
                });
                barrier.wait();
                let result = linux.call(self.function, self.ranges);
                let stop = store.join().expect("no panic");
                Ok((result?.value, stop?))
            })?;
            let stored = is_carried_out(&stop).with_context(|| format!("round {round}: the attacker"))?;
            if result < 0 {
                let expected = self.errnos.iter().any(|errno| errno.to_result() == result);
                ensure!(expected && stored, "round {round}: {result}, stored: {stored}");
                refused += 1;
            } else if stored {
                late += 1;
            } else {
                faults += 1;
            }
            judge(linux, result).with_context(|| format!("round {round}"))?;
            bytes::write(machine.ram(), *target, &original).context("the byte as it was")?;
        }
        println!("{refused} calls refused for a store, {faults} stores refused, {late} stores too late or elsewhere");
        ensure!(refused > 0 && faults > 0, "the attacker comes always too early or always too late");
        Ok(())
    }
}
