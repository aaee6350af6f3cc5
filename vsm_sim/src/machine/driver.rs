//! What VTL0's kernel does with VTL1, in real instructions: set up Hyper-V, enable and boot VTL1, make VSM calls, and
//! try what it must not.
//!
//! The order and the checks are those of the LVBS driver (contract §2.8, §3).

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use litebox_platform_lvbs::hv::{HvRegisterName, HvStatus, HypercallCode, HypercallControl, HypercallResult, msr};
use vsm_handlers::{Answer, AnswerCheck, ROWS};

use super::guest::{self, Arena};
use super::processor::{Processor, Stop};
use super::{Machine, VTL0};
use crate::engine::{PrivateState, Segment, SharedState, TableRegister};
use crate::vtl0::bytes;
use crate::vtl0::lists::Scratch;
use crate::vtl0::loader::{self, Generation, Start};

const PAGE: u64 = 4096;
const SELF_PARTITION: u64 = u64::MAX;
const SELF_VP: u32 = 0xffff_fffe;
/// Any open-source operating system's identity will do for VTL0: Linux, 6.6.
const GUEST_OS_ID: u64 = msr::guest_os_id(1, 0x0006_0006, 0);

/// What a VTL call gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallResult {
    /// R8.
    pub value: i64,
    /// Instructions VTL1 executed for it; 0 when the machine does not count.
    pub instructions: u64,
}

/// What VTL0's processors share.
#[derive(Debug, Default)]
struct Shared {
    arena: Arena,
    scratch: Scratch,
}

/// VTL0's kernel on one processor.
pub struct Vtl0 {
    processor: Processor,
    shared: Arc<Mutex<Shared>>,
    call: u64,
    vtl_call: u64,
}

impl Vtl0 {
    /// VTL0's boot processor, with Hyper-V's interface set up.
    pub fn new(machine: &Arc<Machine>) -> Result<Self> {
        Self::on(machine, 0, Arc::default())
    }

    /// VTL0's kernel on another processor.
    pub fn another(&self, vp: u32) -> Result<Self> {
        Self::on(self.processor.machine(), vp, Arc::clone(&self.shared))
    }

    fn on(machine: &Arc<Machine>, vp: u32, shared: Arc<Mutex<Shared>>) -> Result<Self> {
        ensure!(vp < guest::MAX_VPS, "VTL0 has no memory for VP {vp}");
        let mut state = PrivateState::long_mode(0, guest::stack_top(vp), guest::PML4);
        state.gdtr = TableRegister { base: guest::GDT, limit: guest::GDT_LIMIT };
        state.idtr = TableRegister { base: guest::IDT, limit: 0xfff };
        state.tr = Segment { base: guest::tss(vp), limit: 103, selector: 0x18, attributes: 0x8b };
        // OSXSAVE and SMEP, as Linux has them.
        state.cr4 |= 1 << 18 | 1 << 20;
        // What was in the hypercall input page before it became that.
        bytes::write(machine.ram(), guest::exchange(vp), &[0x81; 4096])?;
        let processor = Processor::new(Arc::clone(machine), vp, &state)?;
        let mut vtl0 = Self { processor, shared, call: 0, vtl_call: 0 };
        let ram = machine.ram().clone();
        vtl0.call = vtl0.with_shared(|shared| shared.arena.place_call(&ram))?;
        vtl0.set_up_hyperv()?;
        Ok(vtl0)
    }

    fn with_shared<R>(&self, work: impl FnOnce(&mut Shared) -> R) -> R {
        work(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> Arc<Machine> {
        Arc::clone(self.processor.machine())
    }

    /// The processor.
    pub fn processor(&mut self) -> &mut Processor {
        &mut self.processor
    }

    /// Works with VTL0's scratch memory.
    pub fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        self.with_shared(|shared| work(&mut shared.scratch))
    }

    /// Assembles a snippet; its address.
    pub fn place(&self, body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Result<u64> {
        let ram = self.processor.machine().ram().clone();
        self.with_shared(|shared| shared.arena.place(&ram, body))
    }

    /// Runs the snippet at `address` with these registers; why it stopped.
    pub fn run_at(&mut self, address: u64, registers: &SharedState) -> Result<Stop> {
        self.go_to(address, registers);
        self.processor.run()
    }

    /// Makes the snippet at `address` the next thing VTL0 runs, with these registers.
    pub fn go_to(&mut self, address: u64, registers: &SharedState) {
        let vp = self.processor.vp();
        let vcpu = self.processor.vcpu();
        let mut state = vcpu.state(VTL0);
        state.rip = address;
        state.rsp = guest::stack_top(vp);
        state.rflags = 0x2;
        vcpu.set_state(VTL0, &state);
        // CR2 and DR6 stay what they are.
        let now = vcpu.shared();
        vcpu.set_shared(&SharedState { cr2: now.cr2, dr6: now.dr6, ..*registers });
    }

    /// Assembles a snippet and runs it; why it stopped.
    pub fn run(
        &mut self,
        registers: &SharedState,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<Stop> {
        let address = self.place(body)?;
        self.run_at(address, registers)
    }

    /// Runs a snippet that must end well.
    pub fn must_run(
        &mut self,
        registers: &SharedState,
        body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Result<SharedState> {
        match self.run(registers, body)? {
            Stop::Done => Ok(self.processor.vcpu().shared()),
            other => bail!("VTL0's snippet ended in {other:x?}"),
        }
    }

    /// Executes WRMSR.
    pub fn write_msr(&mut self, number: u32, value: u64) -> Result<Stop> {
        let registers = SharedState {
            rcx: u64::from(number),
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            ..SharedState::default()
        };
        self.run(&registers, CodeAssembler::wrmsr)
    }

    fn set_up_hyperv(&mut self) -> Result<()> {
        if self.processor.vp() == 0 {
            for (number, value) in [(msr::GUEST_OS_ID, GUEST_OS_ID), (msr::HYPERCALL, guest::HYPERCALL_PAGE | 1)] {
                let stop = self.write_msr(number, value)?;
                ensure!(stop == Stop::Done, "VTL0's write of MSR {number:#x} ended in {stop:x?}");
            }
        }
        self.find_vtl_call()
    }

    /// Asks where in the hypercall page the sequence for VTL calls is.
    fn find_vtl_call(&mut self) -> Result<()> {
        let offsets = self.get_register(HvRegisterName::VSM_CODE_PAGE_OFFSETS)?;
        self.vtl_call = guest::HYPERCALL_PAGE + (offsets & 0xfff);
        Ok(())
    }

    /// Makes a hypercall; its result and the first `output` bytes of its output page.
    pub fn hypercall(
        &mut self,
        control: HypercallControl,
        input: &[u8],
        output: usize,
    ) -> Result<(HypercallResult, Vec<u8>)> {
        self.hypercall_with(control, &[(0, input)], output)
    }

    /// The same with an input of which only some fields are written: the rest is what the last hypercall left, as with the
    /// driver, which never clears its input page (LVBS contract §11.12).
    fn hypercall_with(
        &mut self,
        control: HypercallControl,
        fields: &[(u64, &[u8])],
        output: usize,
    ) -> Result<(HypercallResult, Vec<u8>)> {
        let ram = self.processor.machine().ram().clone();
        // The processor's exchange pages serve: one for the input, the next for the output.
        let at = guest::exchange(self.processor.vp());
        for (offset, field) in fields {
            bytes::write(&ram, at + offset, field)?;
        }
        let registers = SharedState {
            rax: guest::HYPERCALL_PAGE,
            rcx: control.raw(),
            rdx: at,
            r8: at + PAGE,
            ..SharedState::default()
        };
        let stop = self.run_at(self.call, &registers)?;
        ensure!(stop == Stop::Done, "VTL0's hypercall ended in {stop:x?}");
        let mut answer = vec![0; output];
        bytes::read(&ram, at + PAGE, &mut answer)?;
        Ok((HypercallResult(self.processor.vcpu().shared().rax), answer))
    }

    /// Reads a register of this VTL and processor.
    pub fn get_register(&mut self, name: HvRegisterName) -> Result<u64> {
        let control = HypercallControl::new(HypercallCode::GET_VP_REGISTERS).with_reps(1);
        let (result, output) =
            self.hypercall_with(control, &[(0, &header(SELF_VP, 0)), (16, &name.0.to_le_bytes())], 16)?;
        ensure!(result.status().is_success(), "VTL0 reading {name}: {}", result.status());
        Ok(u64::from_le_bytes(output[..8].try_into()?))
    }

    /// Enables VTL1 for the partition, loads the image and enables VTL1 on this processor (contract §2.8, steps 1, 2).
    pub fn prepare_vtl1(&mut self, generation: Generation, possible_cpus: u32, image: &[u8]) -> Result<Start> {
        const VTL1_ENABLED: u64 = 1 << 1;
        const VTL1_MBEC: u64 = 1 << 21;
        if self.get_register(HvRegisterName::VSM_PARTITION_STATUS)? & VTL1_ENABLED == 0 {
            // Target VTL 1, flags: enable MBEC.
            let fields = [(0, &SELF_PARTITION.to_le_bytes()[..]), (8, &[1, 1])];
            let control = HypercallControl::new(HypercallCode::ENABLE_PARTITION_VTL);
            let (result, _) = self.hypercall_with(control, &fields, 0)?;
            ensure!(result.status().is_success(), "HvCallEnablePartitionVtl: {}", result.status());
        }
        let status = self.get_register(HvRegisterName::VSM_PARTITION_STATUS)?;
        ensure!(status & VTL1_ENABLED != 0 && status & VTL1_MBEC != 0, "VTL1 is not enabled with MBEC: {status:#x}");
        let machine = self.machine();
        let start = loader::load(machine.ram(), &machine.config().map, generation, possible_cpus, image)
            .context("VTL0 cannot load the image")?;
        let status = self.enable_vp_vtl1(SELF_VP, &start)?;
        ensure!(status.is_success(), "HvCallEnableVpVtl: {status}");
        if generation == Generation::G3 {
            // Only now does that one ask (LVBS contract §11.10).
            self.find_vtl_call()?;
        }
        Ok(start)
    }

    /// Makes HvCallEnableVpVtl; its status.
    pub fn enable_vp_vtl1(&mut self, vp: u32, start: &Start) -> Result<HvStatus> {
        use zerocopy::IntoBytes;
        let fields = [(0, &header(vp, 1)[..]), (16, start.context.as_bytes())];
        let (result, _) = self.hypercall_with(HypercallControl::new(HypercallCode::ENABLE_VP_VTL), &fields, 0)?;
        Ok(result.status())
    }

    /// Makes the first VTL call and checks what VTL0 checks after it (contract §2.8, steps 3, 4).
    pub fn boot_vtl1(&mut self, start: &Start) -> Result<CallResult> {
        let [rdi, rsi, rdx, r8] = start.arguments;
        let result = self.vtl_call(rdi, rsi, rdx, r8)?;
        ensure!(result.value == 0, "the boot call returned {:#x}", result.value);
        self.check_mbec()?;
        Ok(result)
    }

    /// What VTL0 checks after each processor's first entry.
    pub fn check_mbec(&mut self) -> Result<()> {
        const MBEC_ACTIVE: u64 = 1 << 4;
        let status = self.get_register(HvRegisterName::VSM_VP_STATUS)?;
        ensure!(status & MBEC_ACTIVE != 0, "VTL1 has not activated MBEC: VsmVpStatus is {status:#x}");
        Ok(())
    }

    /// Makes a VTL call with these four arguments. It must not answer with an errno that its row does not list.
    pub fn vtl_call(&mut self, id: u64, a1: u64, a2: u64, a3: u64) -> Result<CallResult> {
        match self.try_vtl_call(id, a1, a2, a3)? {
            (Stop::Done, result) => {
                // Who answered is not known: the gate and the parameters' types may have.
                let answer = Answer { result: result.value, by_handler: false };
                AnswerCheck::new(&ROWS).check(id, answer).map_err(anyhow::Error::msg)?;
                Ok(result)
            }
            (other, _) => bail!("VTL call {id:#x} ended in {other:x?}"),
        }
    }

    /// Makes a VTL call that may end otherwise than by returning.
    pub fn try_vtl_call(&mut self, id: u64, a1: u64, a2: u64, a3: u64) -> Result<(Stop, CallResult)> {
        let before = self.processor.vtl1_instructions();
        let registers = self.call_registers(id, a1, a2, a3);
        let stop = self.run_at(self.call, &registers)?;
        let value = self.processor.vcpu().shared().r8.cast_signed();
        Ok((stop, CallResult { value, instructions: self.processor.vtl1_instructions() - before }))
    }

    /// The registers of a VTL call through [`Self::call_site`].
    #[must_use]
    pub fn call_registers(&self, id: u64, a1: u64, a2: u64, a3: u64) -> SharedState {
        SharedState { rax: self.vtl_call, rcx: 0, rdi: id, rsi: a1, rdx: a2, r8: a3, ..SharedState::default() }
    }

    /// Address of the snippet that calls the address in RAX.
    #[must_use]
    pub fn call_site(&self) -> u64 {
        self.call
    }

    /// Address of the VTL call sequence in VTL0's hypercall page.
    #[must_use]
    pub fn vtl_call_entry(&self) -> u64 {
        self.vtl_call
    }
}

/// The fields with which the hypercalls about a processor begin: own partition, VP, VTL; not the reserved bytes behind them.
fn header(vp: u32, vtl: u8) -> Vec<u8> {
    [&SELF_PARTITION.to_le_bytes()[..], &vp.to_le_bytes(), &[vtl]].concat()
}
