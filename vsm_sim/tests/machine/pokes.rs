//! Many PatchText calls in one go: VTL0's own code makes them one after the other, so that they cost what the calls cost.

use anyhow::{Result, ensure};
use iced_x86::code_asm::{ecx, edx, qword_ptr, r8, r8d, r12, r13, r14, r15, rax, rbx, rdi, rsi, rsp};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use vsm_sim::engine::SharedState;
use vsm_sim::machine::{Stop, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::patcher::Patch;

/// Bytes from one request to the next: none of them crosses a page.
const STEP: u64 = 32;
/// Requests in one go, and pages for them and for their answers.
const MOST: usize = 4096;
const REQUEST_PAGES: u64 = 32;
const ANSWER_PAGES: u64 = 8;

/// A snippet that makes the calls.
pub struct Pokes(u64);

impl Pokes {
    /// Places the snippet.
    pub fn new(vtl0: &Vtl0) -> Result<Self> {
        let snippet = vtl0.place(|asm| {
            let mut next = asm.create_label();
            asm.set_label(&mut next)?;
            asm.mov(rax, r12)?;
            asm.mov(rdi, r15)?;
            asm.mov(rsi, rbx)?;
            asm.xor(edx, edx)?;
            asm.xor(r8d, r8d)?;
            asm.xor(ecx, ecx)?;
            asm.sub(rsp, 8)?;
            asm.call(rax)?;
            asm.add(rsp, 8)?;
            asm.mov(qword_ptr(r14), r8)?;
            asm.add(rbx, i32::try_from(STEP).unwrap_or(0))?;
            asm.add(r14, 8)?;
            asm.dec(r13)?;
            asm.jnz(next)
        });
        Ok(Self(snippet?))
    }

    /// Makes each step; the answers.
    pub fn run(&self, vtl0: &mut Vtl0, steps: &[Patch]) -> Result<Vec<i64>> {
        let ram = vtl0.machine().ram().clone();
        let mut answers = Vec::new();
        for steps in steps.chunks(MOST) {
            let requests = vtl0.with_scratch(|scratch| {
                scratch.reset();
                scratch.pages(REQUEST_PAGES + ANSWER_PAGES)
            })?;
            let results = requests + REQUEST_PAGES * 4096;
            for (at, step) in (requests..).step_by(32).zip(steps) {
                bytes::write(&ram, at, &step.to_bytes())?;
            }
            let registers = SharedState {
                rbx: requests,
                r12: vtl0.vtl_call_entry(),
                r13: steps.len() as u64,
                r14: results,
                r15: F::PatchText.id(),
                ..SharedState::default()
            };
            let stop = vtl0.run_at(self.0, &registers)?;
            ensure!(stop == Stop::Done, "{stop:x?}");
            for at in (results..).step_by(8).take(steps.len()) {
                answers.push(bytes::read_u64(&ram, at)?.cast_signed());
            }
        }
        Ok(answers)
    }

    /// Makes each step, all of which must be taken.
    pub fn must(&self, vtl0: &mut Vtl0, steps: &[Patch]) -> Result<()> {
        let answers = self.run(vtl0, steps)?;
        let refused = answers.iter().zip(steps).find(|(answer, _)| **answer != 0);
        refused.map_or(Ok(()), |(answer, step)| Err(anyhow::anyhow!("{step:x?} returned {answer}")))
    }
}
