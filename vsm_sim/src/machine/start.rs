//! How VTL0's driver brings its other processors into VTL1 (contract §4).
//!
//! The loaders before the third generation have a thread on each processor that waits, with interrupts off, for its byte of
//! the boot-signal page; the boot processor is in BootAPs meanwhile. The threads wake each other one after the other, and
//! here they share a thread of the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use iced_x86::code_asm::{byte_ptr, rax, rbx};
use litebox_platform_lvbs::vsm::VsmFunction;

use super::driver::{CallResult, Vtl0};
use super::processor::Stop;
use crate::engine::{Engine, SharedState};
use crate::vtl0::bytes;

const PAGE: u64 = 4096;
/// What a thread waits for.
pub const SIGNAL: u8 = 0xdc;
/// How often waiting threads are told to give up.
const KICK_EVERY: Duration = Duration::from_millis(5);
/// No processor.
const NONE: u32 = u32::MAX;

/// A processor after BootAPs.
pub struct Arrival {
    /// VTL0 on it.
    pub vtl0: Vtl0,
    /// What its first VTL call gave; nothing when it was not called.
    pub first: Option<CallResult>,
}

impl Vtl0 {
    /// A boot-signal page as VTL0 makes it: its frame number.
    pub fn boot_signal_page(&self) -> Result<u64> {
        let machine = self.machine();
        let page = self.with_scratch(|scratch| scratch.pages(1))?;
        bytes::write(machine.ram(), page, &[0; 4096])?;
        bytes::write(machine.ram(), page, &[SIGNAL])?;
        Ok(page / PAGE)
    }

    /// Calls BootAPs with the frames of a mask and of a boot-signal page, while each of `others` waits for its signal and
    /// then makes its first VTL call. Those that have not been called when BootAPs is done do not make it.
    pub fn boot_with_signal(
        &mut self,
        mask: u64,
        signal: u64,
        others: Vec<Self>,
    ) -> Result<(CallResult, Vec<Arrival>)> {
        let machine = self.machine();
        let over = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(AtomicU32::new(NONE));
        let thread = {
            let (over, waiting) = (Arc::clone(&over), Arc::clone(&waiting));
            std::thread::spawn(move || -> Result<Vec<Arrival>> {
                let one = |mut vtl0: Self| {
                    let first = vtl0.await_signal(signal, &over, &waiting)?.then(|| vtl0.first_call()).transpose()?;
                    Ok(Arrival { vtl0, first })
                };
                others.into_iter().map(one).collect()
            })
        };
        let result = self.vtl_call(VsmFunction::BootAPs.id(), mask, signal, 0);
        over.store(true, SeqCst);
        while !thread.is_finished() {
            match waiting.load(SeqCst) {
                NONE => {}
                vp => machine.engine().kick(vp)?,
            }
            std::thread::sleep(KICK_EVERY);
        }
        let arrivals = thread.join().map_err(|_| anyhow!("the thread of the other processors panicked"))?;
        Ok((result?, arrivals?))
    }

    /// Waits in real instructions for this processor's byte of the page; whether it came before `over`.
    fn await_signal(&mut self, page: u64, over: &AtomicBool, waiting: &AtomicU32) -> Result<bool> {
        let vp = self.processor().vp();
        let registers = SharedState { rbx: page * PAGE + u64::from(vp), ..SharedState::default() };
        let snippet = self.place(|asm| {
            let (mut again, mut called) = (asm.create_label(), asm.create_label());
            asm.set_label(&mut again)?;
            asm.cmp(byte_ptr(rbx), i32::from(SIGNAL.cast_signed()))?;
            asm.je(called)?;
            asm.pause()?;
            asm.jmp(again)?;
            asm.set_label(&mut called)?;
            asm.mov(rax, rbx)
        })?;
        self.go_to(snippet, &registers);
        waiting.store(vp, SeqCst);
        let called = loop {
            match self.processor().run()? {
                Stop::Done => break true,
                Stop::Kicked if over.load(SeqCst) => break false,
                Stop::Kicked => {}
                other => bail!("VP {vp} waiting for its signal ended in {other:x?}"),
            }
        };
        waiting.store(NONE, SeqCst);
        Ok(called)
    }

    /// The first VTL call of a processor: all arguments are zero.
    pub fn first_call(&mut self) -> Result<CallResult> {
        let before = self.processor().vtl1_instructions();
        let registers = self.call_registers(0, 0, 0, 0);
        self.go_to(self.call_site(), &registers);
        loop {
            match self.processor().run()? {
                Stop::Done => break,
                // Meant for its wait, which was over.
                Stop::Kicked => {}
                other => bail!("the first VTL call of VP {} ended in {other:x?}", self.processor().vp()),
            }
        }
        let value = self.processor().vcpu().shared().r8.cast_signed();
        let result = CallResult { value, instructions: self.processor().vtl1_instructions() - before };
        self.check_mbec()?;
        Ok(result)
    }
}
