//! Stress on the machine: the image, and a VTL0 that executes real instructions. VTL1's own state is out of sight; what must
//! hold is what the hypervisor and VTL0 can see.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::{
    AsmRegisterXmm, CodeAssembler, ax, cr0, cr4, ptr, qword_ptr, rax, rbx, rsp, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5,
    xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15,
};
use litebox_platform_lvbs::hv::{HvRegisterName, MapFlags, Vtl, msr};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::cpu::{Attempt, Cpu, Outcome, World};
use super::layout::{Layout, MAX_VPS};
use super::life::Life;
use crate::engine::{Engine, PrivateState, SharedState};
use crate::hosted::HostedMachine;
use crate::hv::{Access, GuestMemory, Partition};
use crate::machine::guest::{PORT_DONE, exchange};
use crate::machine::{Machine, MachineConfig, Ram, Stop, VTL0, Vtl0, access as engine_access};
use crate::random::SplitMix;
use crate::vtl0::bytes;
use crate::vtl0::lists::write_cpu_mask;
use crate::vtl0::loader::Generation;
use crate::vtl0::memory_map::{MemoryMap, default_region_size};

/// Guest memory: little, because VTL1 protects all of it now and then, and each hypercall stops all processors.
const RAM: u64 = 128 << 20;
/// #GP's vector.
const GENERAL_PROTECTION: u64 = 13;
/// How the line starts that VTL1 prints when it fails.
const PANIC: &str = "panic";
/// Console lines that a failure shows.
const CONSOLE_LINES: usize = 20;

/// CR0.TS.
const CR0_TS: u64 = 1 << 3;
/// The registers that VTLs share.
const XMM: [AsmRegisterXmm; 16] =
    [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];
/// Their bytes.
const XMM_LENGTH: usize = 256;
const XMM_BYTES: i64 = 256;

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;
/// Frames as first, first behind, ascending.
type Intervals = Vec<(u64, u64)>;

/// The machine of a life.
pub struct RealWorld {
    machine: Arc<Machine>,
    layout: Layout,
    /// The frames that VTL0's kernel could write and execute when that was looked at last after the end of boot.
    write_execute: Mutex<Option<Intervals>>,
}

impl RealWorld {
    /// Boots the image and enables VTL1 on all processors; VTL0's kernel on each of them, VTL1 entered on the first.
    ///
    /// # Errors
    /// When the boot fails.
    pub fn boot(vps: u32, image: &[u8], seed: u64, patience: Duration) -> Result<(Self, Vec<RealCpu>)> {
        let map = MemoryMap::new(RAM, None, default_region_size(vps))?.with_legacy_hole();
        let layout = Layout::machine(&map);
        // A processor that waits for a lock of VTL1's does not stop; here each of them may have a fraction of a core.
        let machine = Machine::new(MachineConfig { watchdog: patience, ..MachineConfig::new(map, vps) })?;
        let generation = if seed & 1 == 0 { Generation::G2 } else { Generation::G3 };
        let mut boot_vp = Vtl0::new(&machine)?;
        let start = boot_vp.prepare_vtl1(generation, vps, image)?;
        boot_vp.boot_vtl1(&start).with_context(|| machine.console_lines().join("\n"))?;
        let mask = boot_vp.with_scratch(|scratch| write_cpu_mask(machine.ram(), scratch, 0..vps))?;
        let enabled = boot_vp.vtl_call(F::EnableAPsVtl.id(), mask, 0, 0)?.value;
        ensure!(enabled == 0, "EnableAPsVtl returned {enabled}");
        // OUT and UD2, over and over: a jump there ends the snippet.
        let harmless = [0xe6, PORT_DONE, 0x0f, 0x0b].repeat(1024);
        for vp in 0..MAX_VPS {
            bytes::write(machine.ram(), layout.for_vp(vp).target << 12, &harmless)?;
        }
        let others: Vec<Vtl0> = (1..vps).map(|vp| boot_vp.another(vp)).collect::<Result<_>>()?;
        let all = std::iter::once(boot_vp).chain(others);
        let cpus = (0..).zip(all).map(|(vp, vtl0)| RealCpu::new(vp, vtl0, seed)).collect::<Result<_>>()?;
        Ok((Self { machine, layout, write_execute: Mutex::default() }, cpus))
    }

    /// The places.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory map.
    #[must_use]
    pub fn map(&self) -> &MemoryMap {
        &self.machine.config().map
    }
}

/// The first frame of `now` that is not in `before`.
fn first_new(now: &Intervals, before: &Intervals) -> Option<u64> {
    for (start, end) in now {
        let mut at = *start;
        for (from, to) in before {
            if *from <= at && at < *to {
                at = *to;
            }
        }
        if at < *end {
            return Some(at);
        }
    }
    None
}

impl World for RealWorld {
    fn hosted(&self) -> Option<&HostedMachine> {
        None
    }

    fn partition(&self) -> &Partition {
        self.machine.partition()
    }

    fn check(&self, _: &Life) -> Result<()> {
        let rights = self.machine.partition().effective_protections();
        let vtl1 = &self.layout.vtl1;
        let open =
            rights.iter().find(|(start, end, flags)| *start < vtl1.end && *end > vtl1.start && !flags.is_empty());
        ensure!(open.is_none(), "VTL1's memory is open: frames {open:x?}");
        let reports = self.machine.partition().reports();
        let report = reports.iter().find(|report| report.vtl == Vtl::Vtl1);
        ensure!(report.is_none(), "VTL1 did what the TLFS does not define: {report:?}");
        Ok(())
    }

    fn check_at_rest(&self, life: &Life) -> Result<()> {
        life.tokens_at_rest()?;
        self.machine.partition().clear_injections();
        let lines = self.machine.console_lines();
        let panic = lines.iter().find(|line| line.contains(PANIC));
        ensure!(panic.is_none(), "VTL1 has failed: {panic:?}");
        let rights = self.machine.partition().effective_protections();
        if life.has_ended() {
            // Only now: in the middle of a call, unowned frames may be frozen, and thaw when it fails.
            let both = MapFlags::WRITE | MapFlags::KERNEL_EXECUTE;
            let now = rights.iter().filter(|(.., flags)| flags.contains(both)).map(|(start, end, _)| (*start, *end));
            let now: Intervals = now.collect();
            let mut before = self.write_execute.lock().unwrap_or_else(PoisonError::into_inner);
            let new = before.as_ref().and_then(|before| first_new(&now, before));
            ensure!(new.is_none(), "frame {new:#x?} has become writable and executable after boot");
            *before = Some(now);
        }
        for (start, end, flags) in rights {
            for gfn in [start, end - 1] {
                let there = self.machine.engine().access(VTL0, gfn)?;
                let expected = engine_access(flags);
                ensure!(there == Some(expected), "frame {gfn:#x} is {flags}, but the processors have {there:?}");
            }
        }
        Ok(())
    }

    fn check_at_end(&self, life: &Life) -> Result<()> {
        self.check(life)?;
        self.check_at_rest(life)
    }

    fn tamper_with_permission(&self) {
        let last = self.layout.vtl1.end;
        self.machine.partition().force_protection(last - 1, last, MapFlags::READ_WRITE);
    }

    fn console(&self) -> Vec<String> {
        let mut lines = self.machine.console_lines();
        lines.split_off(lines.len().saturating_sub(CONSOLE_LINES))
    }
}

/// Code that VTL0 executes over and over, by address.
struct Snippets {
    /// Fills XMM0 to XMM15 from the 256 bytes at RBX, calls RAX, and stores them behind.
    call_with_xmm: u64,
    wrmsr: u64,
    control: [u64; 2],
    tables: [u64; 4],
    load: u64,
    store: u64,
    jump: u64,
}

/// VTL0's kernel on a processor of the machine.
pub struct RealCpu {
    vp: u32,
    vtl0: Vtl0,
    machine: Arc<Machine>,
    ram: Ram,
    snippets: Snippets,
    random: SplitMix,
}

impl RealCpu {
    fn new(vp: u32, vtl0: Vtl0, seed: u64) -> Result<Self> {
        let place = |body: Body| vtl0.place(body);
        let snippets = Snippets {
            call_with_xmm: place(|asm| {
                for (register, at) in XMM.into_iter().zip((0..).step_by(16)) {
                    asm.movups(register, ptr(rbx + at))?;
                }
                asm.sub(rsp, 8)?;
                asm.call(rax)?;
                asm.add(rsp, 8)?;
                for (register, at) in XMM.into_iter().zip((XMM_BYTES..).step_by(16)) {
                    asm.movups(ptr(rbx + at), register)?;
                }
                Ok(())
            })?,
            wrmsr: place(CodeAssembler::wrmsr)?,
            control: [place(|asm| asm.mov(cr0, rax))?, place(|asm| asm.mov(cr4, rax))?],
            tables: [
                place(|asm| asm.lgdt(ptr(rbx)))?,
                place(|asm| asm.lidt(ptr(rbx)))?,
                place(|asm| asm.lldt(ax))?,
                place(|asm| asm.ltr(ax))?,
            ],
            load: place(|asm| asm.mov(rax, qword_ptr(rbx)))?,
            store: place(|asm| asm.mov(qword_ptr(rbx), rax))?,
            jump: place(|asm| asm.jmp(rbx))?,
        };
        let machine = vtl0.machine();
        let ram = machine.ram().clone();
        let random = SplitMix(seed.rotate_left(32) ^ u64::from(vp));
        Ok(Self { vp, vtl0, machine, ram, snippets, random })
    }

    fn state(&mut self) -> PrivateState {
        self.vtl0.processor().vcpu().state(VTL0)
    }

    fn msr(&mut self, number: u32) -> u64 {
        self.vtl0.processor().msr(Vtl::Vtl0, number).unwrap_or_default()
    }

    /// Runs a snippet whose instruction at `rip` may be a #GP.
    fn run(&mut self, snippet: u64, rip: u64, registers: &SharedState) -> Result<Outcome> {
        match self.vtl0.run_at(snippet, registers)? {
            Stop::Done => Ok(Outcome::Done),
            Stop::Exception(exception) if exception.vector == GENERAL_PROTECTION => {
                ensure!(exception.rip == rip, "#GP at {:#x}, not at {rip:#x}", exception.rip);
                ensure!(exception.error == 0, "#GP with the error code {:#x}", exception.error);
                Ok(Outcome::Fault)
            }
            other => bail!("neither done nor #GP, but {other:x?}"),
        }
    }

    /// The registers that VTL0's kernel relies on over a call (LVBS contract §3).
    fn preserved(registers: &SharedState) -> [u64; 12] {
        let it = registers;
        [it.rbx, it.rbp, it.r9, it.r10, it.r11, it.r12, it.r13, it.r14, it.r15, it.cr2, it.rdi, it.rsi]
    }
}

impl Cpu for RealCpu {
    fn vp(&self) -> u32 {
        self.vp
    }

    fn partition(&self) -> &Partition {
        self.machine.partition()
    }

    fn ram(&self) -> &dyn GuestMemory {
        &self.ram
    }

    fn first_entry(&mut self) -> Result<()> {
        let result = self.vtl0.vtl_call(0, 0, 0, 0)?.value;
        ensure!(result == 0, "VTL1's first entry returned {result}");
        self.vtl0.check_mbec()
    }

    fn call(&mut self, id: u64, [a1, a2, a3]: [u64; 3]) -> Result<i64> {
        let mut registers = self.vtl0.call_registers(id, a1, a2, a3);
        let random = &mut self.random;
        for register in [
            &mut registers.rbx,
            &mut registers.rbp,
            &mut registers.r9,
            &mut registers.r10,
            &mut registers.r11,
            &mut registers.r12,
            &mut registers.r13,
            &mut registers.r14,
            &mut registers.r15,
        ] {
            *register = random.next();
        }
        let cr2 = self.vtl0.processor().vcpu().shared().cr2;
        // With CR0.TS set, SSE instructions would be a #NM.
        let with_xmm = self.state().cr0 & CR0_TS == 0;
        let place = exchange(self.vp);
        let mut xmm = [0; XMM_LENGTH];
        if with_xmm {
            xmm.as_chunks_mut::<8>().0.iter_mut().for_each(|word| *word = self.random.next().to_le_bytes());
            bytes::write(&self.ram, place, &xmm)?;
            registers.rbx = place;
        }
        let site = if with_xmm { self.snippets.call_with_xmm } else { self.vtl0.call_site() };
        let stop = self.vtl0.run_at(site, &registers)?;
        ensure!(stop == Stop::Done, "the call {id:#x} ended in {stop:x?}");
        let after = self.vtl0.processor().vcpu().shared();
        let (expected, found) = (Self::preserved(&SharedState { cr2, ..registers }), Self::preserved(&after));
        ensure!(expected == found, "registers of VP {} over the call {id:#x}: {expected:x?} {found:x?}", self.vp);
        if with_xmm {
            let mut now = [0; XMM_LENGTH];
            bytes::read(&self.ram, place + XMM_BYTES.cast_unsigned(), &mut now)?;
            ensure!(now == xmm, "XMM registers of VP {} over the call {id:#x}: {xmm:x?} {now:x?}", self.vp);
        }
        Ok(after.r8.cast_signed())
    }

    fn attempt(&mut self, attempt: &Attempt) -> Result<Outcome> {
        let none = SharedState::default();
        let (snippet, registers) = match *attempt {
            Attempt::Msr(number, _, value) => {
                let halves = SharedState { rax: value & 0xffff_ffff, rdx: value >> 32, ..none };
                (self.snippets.wrmsr, SharedState { rcx: number.into(), ..halves })
            }
            Attempt::Control(name, value) => {
                let index = usize::from(name == HvRegisterName::CR4);
                (self.snippets.control[index], SharedState { rax: value, ..none })
            }
            Attempt::Table(name) => {
                let state = self.state();
                let (index, table, selector) = match name {
                    HvRegisterName::GDTR => (0, state.gdtr, 0),
                    HvRegisterName::IDTR => (1, state.idtr, 0),
                    HvRegisterName::LDTR => (2, state.gdtr, 0),
                    _ => (3, state.gdtr, 0x18),
                };
                let operand = exchange(self.vp);
                bytes::write(&self.ram, operand, &table.limit.to_le_bytes())?;
                bytes::write(&self.ram, operand + 2, &table.base.to_le_bytes())?;
                (self.snippets.tables[index], SharedState { rbx: operand, rax: selector, ..none })
            }
            Attempt::Memory(access, gpa) => {
                let snippet = match access {
                    Access::Read => self.snippets.load,
                    Access::Write => self.snippets.store,
                    Access::Execute => self.snippets.jump,
                };
                (snippet, SharedState { rbx: gpa, rax: 0x5a5a_5a5a_5a5a_5a5a, ..none })
            }
        };
        let rip = match *attempt {
            Attempt::Memory(Access::Execute, gpa) => gpa,
            _ => snippet,
        };
        self.run(snippet, rip, &registers)
    }

    fn stops_at(&self, name: HvRegisterName) -> bool {
        // The engine does not stop at XSETBV.
        name != HvRegisterName::XFEM
    }

    fn register(&mut self, name: HvRegisterName) -> u64 {
        let state = self.state();
        match name {
            HvRegisterName::CR0 => state.cr0,
            HvRegisterName::CR4 => state.cr4,
            HvRegisterName::EFER => state.efer,
            HvRegisterName::STAR => state.star,
            HvRegisterName::LSTAR => state.lstar,
            HvRegisterName::CSTAR => state.cstar,
            HvRegisterName::SFMASK => state.sfmask,
            HvRegisterName::SYSENTER_CS => state.sysenter_cs,
            HvRegisterName::SYSENTER_ESP => state.sysenter_esp,
            HvRegisterName::SYSENTER_EIP => state.sysenter_eip,
            HvRegisterName::TSC_AUX => self.msr(msr::TSC_AUX),
            HvRegisterName::MISC_ENABLE => self.msr(msr::MISC_ENABLE),
            _ => 0,
        }
    }

    fn is_locked(&self) -> bool {
        self.machine.partition().cr_intercepts(self.vp).0 != 0
    }

    fn tamper_with_register(&mut self) {
        let mut state = self.state();
        state.cr4 ^= 1 << 20;
        self.vtl0.processor().vcpu().set_state(VTL0, &state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_new_are_found() {
        let before = vec![(0, 4), (4, 6), (8, 10)];
        for (now, new) in [
            (vec![(0, 6)], None),
            (vec![(1, 2), (8, 10)], None),
            (vec![(0, 7)], Some(6)),
            (vec![(7, 9)], Some(7)),
            (vec![(9, 11)], Some(10)),
            (vec![], None),
        ] {
            assert_eq!(first_new(&now, &before), new, "{now:?}");
        }
    }
}
