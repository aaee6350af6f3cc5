//! Where the steps of a life are played: each is announced, carried out, counted and reported.

use std::sync::Arc;

use anyhow::{Context, Result};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use litebox_platform_lvbs::hv::HypercallCode;
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::report::{Report, Step, show_result};
use crate::engine::SharedState;
use crate::machine::{Machine, Stop, Vtl0};

/// #GP's vector.
const GENERAL_PROTECTION: u64 = 13;

/// A step's surroundings.
pub(super) struct Stage<'a> {
    pub(super) machine: &'a Arc<Machine>,
    pub(super) report: &'a mut Report,
    /// Whether each step is announced, above what the trace has of it.
    pub(super) trace: bool,
    /// Whether the report keeps how things stood after each step.
    pub(super) moments: bool,
}

impl Stage<'_> {
    fn hypercalls(&self) -> u64 {
        [
            HypercallCode::MODIFY_VTL_PROTECTION_MASK,
            HypercallCode::ENABLE_VP_VTL,
            HypercallCode::GET_VP_REGISTERS,
            HypercallCode::SET_VP_REGISTERS,
        ]
        .into_iter()
        .map(|code| self.machine.partition().hypercall_count(code))
        .sum()
    }

    pub(super) fn step(
        &mut self,
        vtl0: &mut Vtl0,
        what: &str,
        parameters: &str,
        expected: &str,
        act: impl FnOnce(&mut Vtl0) -> Result<String>,
    ) -> Result<()> {
        if self.trace {
            println!("VP {}: {what} {parameters}", vtl0.processor().vp());
        }
        let (instructions, hypercalls) = (vtl0.processor().vtl1_instructions(), self.hypercalls());
        let result = act(vtl0).with_context(|| {
            format!("{what} {parameters}\nVTL1's console:\n{}", self.machine.console_lines().join("\n"))
        })?;
        self.report.steps.push(Step {
            vp: vtl0.processor().vp(),
            what: what.to_owned(),
            parameters: parameters.to_owned(),
            expected: expected.to_owned(),
            result,
            instructions: vtl0.processor().vtl1_instructions() - instructions,
            hypercalls: self.hypercalls() - hypercalls,
        });
        if self.moments {
            self.report.keep_moment();
        }
        Ok(())
    }

    pub(super) fn call(&mut self, vtl0: &mut Vtl0, function: F, parameters: [u64; 3], expected: &str) -> Result<()> {
        self.raw_call(vtl0, function.name(), function.id(), parameters, expected)
    }

    /// As [`Self::call`], with a remark on the parameters.
    pub(super) fn noted_call(
        &mut self,
        vtl0: &mut Vtl0,
        function: F,
        [a1, a2, a3]: [u64; 3],
        expected: &str,
        note: &str,
    ) -> Result<()> {
        let id = function.id();
        let shown = format!("{id:#x} ({a1:#x}, {a2:#x}, {a3:#x}): {note}");
        self.step(vtl0, function.name(), &shown, expected, |vtl0| {
            vtl0.vtl_call(id, a1, a2, a3).map(|result| show_result(result.value))
        })
    }

    pub(super) fn raw_call(
        &mut self,
        vtl0: &mut Vtl0,
        what: &str,
        id: u64,
        parameters: [u64; 3],
        expected: &str,
    ) -> Result<()> {
        let [a1, a2, a3] = parameters;
        let shown = format!("{id:#x} ({a1:#x}, {a2:#x}, {a3:#x})");
        self.step(vtl0, what, &shown, expected, |vtl0| {
            vtl0.vtl_call(id, a1, a2, a3).map(|result| show_result(result.value))
        })
    }

    /// VTL0 does something it must not, with `value` in RAX and RBX: a #GP.
    pub(super) fn attempt(
        &mut self,
        vtl0: &mut Vtl0,
        what: &str,
        value: u64,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<()> {
        self.execute(vtl0, what, value, "#GP", body)
    }

    /// VTL0 does something it may, with `value` in RAX and RBX.
    pub(super) fn permitted(
        &mut self,
        vtl0: &mut Vtl0,
        what: &str,
        value: u64,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<()> {
        self.execute(vtl0, what, value, "allowed", body)
    }

    fn execute(
        &mut self,
        vtl0: &mut Vtl0,
        what: &str,
        value: u64,
        expected: &str,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<()> {
        self.step(vtl0, what, &format!("{value:#x}"), expected, |vtl0| {
            let registers = SharedState { rax: value, rbx: value, ..SharedState::default() };
            Ok(match vtl0.run(&registers, body)? {
                Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION => "#GP".to_owned(),
                Stop::Done => "allowed".to_owned(),
                other => format!("{other:x?}"),
            })
        })
    }
}
