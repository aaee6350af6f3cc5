//! What each stop of the engine means, and what is done about it.

use anyhow::{Result, bail};
use litebox_platform_lvbs::hv::{EntryReason, HvRegisterName, HvRegisterValue, TableRegister, Vtl};

use super::console::Console;
use super::guest::{self, Exception};
use super::overlay::Sequence;
use super::processor::{Processor, Stop};
use super::registers::to_tlfs;
use super::watch::Change;
use crate::engine::{Engine, Event, Exit, MemoryFault, Reason, Table};
use crate::hv::synthetic_msrs::is_synthetic;
use crate::hv::{Access, Fault, Instruction, MemoryAccess, Mode, Verdict};

const CR4_SMEP: u64 = 1 << 20;
/// CPUID leaf 1: ECX bit 31, a hypervisor is present; bit 3, MONITOR, which a guest of Hyper-V does not get.
const LEAF1_HYPERVISOR: u32 = 1 << 31;
const LEAF1_MONITOR: u32 = 1 << 3;
/// CPUID leaf 8000_0001h: ECX bit 2, SVM, which is the engine's own.
const LEAF_AMD_SVM: u32 = 1 << 2;

impl Processor {
    /// Handles a stop; something for VTL0's script, or nothing when the processor just goes on.
    pub(super) fn handle(&mut self, vtl: Vtl, exit: &Exit) -> Result<Option<Stop>> {
        let length = exit.instruction_len;
        match &exit.reason {
            Reason::Hypercall => self.hypercall(vtl, exit),
            Reason::MsrRead { msr } => {
                self.msr_read(vtl, exit, *msr);
                Ok(None)
            }
            Reason::MsrWrite { msr, value } => self.msr_write(vtl, exit, *msr, *value),
            Reason::Cpuid { leaf, subleaf } => {
                let [eax, ebx, ecx, edx] = self.cpuid(vtl, *leaf, *subleaf)?.map(u64::from);
                self.change_shared(|shared| {
                    (shared.rax, shared.rbx, shared.rcx, shared.rdx) = (eax, ebx, ecx, edx);
                });
                self.vcpu.advance(vtl.index(), length);
                Ok(None)
            }
            Reason::Io { port, size, write, value, string } => {
                if *string {
                    bail!("{}: string I/O on port {port:#x} is not modelled", self.place(vtl, exit));
                }
                self.io(vtl, exit, *port, *size, write.then_some(*value))
            }
            Reason::Memory(fault) => self.memory(vtl, exit, fault),
            Reason::Halt => Ok(Some(Stop::Halted(vtl))),
            Reason::CrWrite { cr, value } => self.control_register(vtl, exit, *cr, *value),
            Reason::TableWrite(table) => self.table(vtl, exit, *table),
            Reason::Step => Ok(None),
            Reason::Shutdown => Ok(Some(Stop::Shutdown(vtl, exit.rip))),
            Reason::Kicked => {
                // An interrupt that came with the kick is taken at the next turn.
                let waits = self.machine.partition.pending_interrupt(self.vp, Vtl::Vtl1).is_some();
                Ok(if waits { None } else { Some(Stop::Kicked) })
            }
            Reason::Exception { vector, error, gva } => {
                bail!(
                    "{}: exception {vector} ({error:#x}) at {gva:#x} was not to be intercepted",
                    self.place(vtl, exit)
                )
            }
            Reason::Unsupported(what) => bail!("{}: {what}", self.place(vtl, exit)),
        }
    }

    pub(super) fn place(&self, vtl: Vtl, exit: &Exit) -> String {
        format!("VP {} {vtl} at {:#x}", self.vp, exit.rip)
    }

    /// Raises the model's exception at the instruction.
    fn raise(&mut self, vtl: Vtl, fault: Fault) {
        let event = match fault {
            Fault::InvalidOpcode => Event::INVALID_OPCODE,
            Fault::GeneralProtection => Event::GENERAL_PROTECTION,
        };
        self.vcpu.inject(vtl.index(), event);
    }

    fn hypercall(&mut self, vtl: Vtl, exit: &Exit) -> Result<Option<Stop>> {
        let place = self.vcpu.translate(vtl.index(), exit.rip).map(|translation| translation.gpa);
        let Some(sequence) = place.and_then(|gpa| self.machine.overlays().sequence(vtl, gpa)) else {
            // TLFS: hypercalls are made through the hypercall page.
            eprintln!("{}: VMMCALL outside of the hypercall page", self.place(vtl, exit));
            self.raise(vtl, Fault::InvalidOpcode);
            return Ok(None);
        };
        let shared = self.vcpu.shared();
        let cpl = self.vcpu.state(vtl.index()).cpl();
        let vp = self.vp;
        match sequence {
            Sequence::Hypercall => {
                if cpl != 0 {
                    self.raise(vtl, Fault::InvalidOpcode);
                    return Ok(None);
                }
                let result = self.with_model_registers(|processor| {
                    let machine = &processor.machine;
                    machine.partition.hypercall(vp, vtl, shared.rcx, shared.rdx, shared.r8, &machine.ram)
                });
                self.machine.apply_effects()?;
                self.change_shared(|shared| shared.rax = result.0);
            }
            Sequence::VtlCall => {
                if let Err(fault) = self.machine.partition.vtl_call(vp, cpl, shared.rax, &self.machine.ram) {
                    self.raise(vtl, fault);
                    return Ok(None);
                }
                self.switch(Vtl::Vtl0, Vtl::Vtl1);
                self.tell_change(Change::Enter(EntryReason::VTL_CALL));
            }
            Sequence::VtlReturn => match self.machine.partition.vtl_return(vp, cpl, shared.rax, &self.machine.ram) {
                Err(fault) => {
                    self.raise(vtl, fault);
                    return Ok(None);
                }
                Ok(done) => {
                    if let Some((rax, rcx)) = done.restore {
                        self.change_shared(|shared| (shared.rax, shared.rcx) = (rax, rcx));
                    }
                    self.switch(Vtl::Vtl1, Vtl::Vtl0);
                    self.tell_change(Change::Return);
                }
            },
        }
        self.vcpu.advance(vtl.index(), exit.instruction_len);
        Ok(None)
    }

    fn cpuid(&mut self, vtl: Vtl, leaf: u32, subleaf: u32) -> Result<[u32; 4]> {
        let mut answer = self.whole_cpuid(vtl, leaf, subleaf)?;
        for hidden in self.machine.config.hidden.iter().filter(|hidden| hidden.leaf == leaf) {
            for (register, bits) in answer.iter_mut().zip(hidden.bits) {
                *register &= !bits;
            }
        }
        Ok(answer)
    }

    fn whole_cpuid(&mut self, vtl: Vtl, leaf: u32, subleaf: u32) -> Result<[u32; 4]> {
        if let Some(answer) = self.machine.partition.cpuid(leaf) {
            return Ok(answer);
        }
        let mut answer = self.machine.engine.cpuid(leaf, subleaf);
        if self.has_devices(Vtl::Vtl0) {
            self.own_cpuid(vtl, leaf, subleaf, &mut answer)?;
        }
        match leaf {
            1 => answer[2] = answer[2] & !LEAF1_MONITOR | LEAF1_HYPERVISOR,
            0x8000_0001 => answer[2] &= !LEAF_AMD_SVM,
            _ => {}
        }
        Ok(answer)
    }

    fn msr_read(&mut self, vtl: Vtl, exit: &Exit, msr: u32) {
        let at = self.instruction(vtl, exit);
        let machine = &self.machine;
        let value = if is_synthetic(msr) {
            machine.partition.msr_read(self.vp, vtl, msr).ok()
        } else {
            if vtl == Vtl::Vtl0
                && machine.partition.msr_read_access(self.vp, msr, &at, &machine.ram) == Verdict::Intercepted
            {
                return;
            }
            self.msr(vtl, msr)
        };
        match value {
            Some(value) => {
                self.change_shared(|shared| (shared.rax, shared.rdx) = (value & 0xffff_ffff, value >> 32));
                self.vcpu.advance(vtl.index(), exit.instruction_len);
            }
            None => self.raise(vtl, Fault::GeneralProtection),
        }
    }

    fn msr_write(&mut self, vtl: Vtl, exit: &Exit, msr: u32, value: u64) -> Result<Option<Stop>> {
        let at = self.instruction(vtl, exit);
        let machine = &self.machine;
        let mut state = self.vcpu.state(vtl.index());
        let done = if is_synthetic(msr) {
            let done = machine.partition.msr_write(self.vp, vtl, msr, value, &machine.ram).is_ok();
            machine.apply_effects()?;
            done
        } else {
            let old = state.msr(msr).or_else(|| self.msrs[vtl.index()].read(msr));
            if vtl == Vtl::Vtl0
                && let Some(old) = old
                && machine.partition.msr_write_access(self.vp, msr, old, value, &at, &machine.ram)
                    == Verdict::Intercepted
            {
                return Ok(None);
            }
            match state.write_msr(msr, value) {
                Some(done) => {
                    self.vcpu.set_state(vtl.index(), &state);
                    done
                }
                None => self.msrs[vtl.index()].write(msr, value),
            }
        };
        if done {
            self.vcpu.advance(vtl.index(), exit.instruction_len);
        } else {
            self.raise(vtl, Fault::GeneralProtection);
        }
        Ok(None)
    }

    fn io(&mut self, vtl: Vtl, exit: &Exit, port: u16, size: u8, value: Option<u32>) -> Result<Option<Stop>> {
        if self.has_devices(vtl) {
            return self.device_port(exit, port, size, value);
        }
        let script = vtl == Vtl::Vtl0 && value.is_some();
        if script && port == u16::from(guest::PORT_DONE) {
            return Ok(Some(Stop::Done));
        }
        if script && port == u16::from(guest::PORT_EXCEPTION) {
            let stack = self.vcpu.state(super::VTL0).rsp;
            return Ok(Some(Stop::Exception(Exception::read(&self.machine.ram, stack)?)));
        }
        match value {
            Some(value) if Console::owns(port) => {
                self.machine.console_write(port, value.to_le_bytes()[0]);
            }
            // No device: writes vanish, as on a bus without a device.
            Some(_) => {}
            None => {
                let read = if Console::owns(port) { u32::from(self.machine.console().read(port)) } else { u32::MAX };
                self.port_value(size, read);
            }
        }
        self.vcpu.advance(vtl.index(), exit.instruction_len);
        Ok(None)
    }

    /// Gives what IN of `size` bytes has read.
    pub(super) fn port_value(&mut self, size: u8, read: u32) {
        let read = u64::from(read);
        self.change_shared(|shared| {
            shared.rax = match size {
                1 => shared.rax & !0xff | read & 0xff,
                2 => shared.rax & !0xffff | read & 0xffff,
                _ => read,
            };
        });
    }

    fn memory(&mut self, vtl: Vtl, exit: &Exit, fault: &MemoryFault) -> Result<Option<Stop>> {
        if self.has_devices(vtl)
            && let Some(done) = self.local_apic(exit, fault)?
        {
            return Ok(done);
        }
        let at = self.instruction(vtl, exit);
        let machine = &self.machine;
        if vtl == Vtl::Vtl1 {
            // Everything that is RAM is VTL1's to use. The TLFS leaves an access to nothing to the partition's parent; a
            // #GP is what the guest sees when the parent refuses.
            if machine.partition.is_ram(fault.gpa >> 12) {
                bail!("{}: the engine refuses VTL1 the RAM at {:#x}", self.place(vtl, exit), fault.gpa);
            }
            self.raise(vtl, Fault::GeneralProtection);
            return Ok(None);
        }
        let access = MemoryAccess {
            gpa: fault.gpa,
            gva: fault.gva,
            access: match (fault.execute, fault.write) {
                (true, _) => Access::Execute,
                (false, true) => Access::Write,
                (false, false) => Access::Read,
            },
            mode: Mode { user: fault.cpl == 3, smep_disabled: self.vcpu.state(super::VTL0).cr4 & CR4_SMEP == 0 },
        };
        match machine.partition.gpa_access(self.vp, &access, &at, &machine.ram) {
            Verdict::Intercepted if machine.partition.is_vtl_enabled(self.vp, Vtl::Vtl1) => Ok(None),
            // This processor has no VTL1 to answer the message; VTL0 would try again for ever.
            Verdict::Intercepted => {
                bail!("{}: {access:?} is VTL1's to judge, which is not enabled here", self.place(vtl, exit))
            }
            Verdict::Unmapped => {
                self.raise(vtl, Fault::GeneralProtection);
                Ok(None)
            }
            Verdict::Allowed => {
                // Another processor has allowed it since the engine stopped: it is tried again when that is in force.
                machine.apply_effects()?;
                let granted = machine.engine.access(super::VTL0, fault.gpa >> 12)?.is_some_and(|now| {
                    let execute = if fault.cpl == 3 { now.user_execute } else { now.execute };
                    now.read && (now.write || !fault.write) && (execute || !fault.execute)
                });
                if !granted {
                    bail!("{}: the model allows {access:?}, the engine cannot", self.place(vtl, exit));
                }
                Ok(None)
            }
        }
    }

    fn control_register(&mut self, vtl: Vtl, exit: &Exit, cr: u8, value: u64) -> Result<Option<Stop>> {
        let mut state = self.vcpu.state(vtl.index());
        let (name, field) = match cr {
            0 => (HvRegisterName::CR0, &mut state.cr0),
            4 => (HvRegisterName::CR4, &mut state.cr4),
            _ => bail!("{}: a write of CR{cr} was not to be intercepted", self.place(vtl, exit)),
        };
        let old = *field;
        *field = value;
        let at = self.instruction(vtl, exit);
        let machine = &self.machine;
        let verdict = machine.partition.register_write(self.vp, name, old.into(), value.into(), &at, &machine.ram);
        if verdict == Verdict::Intercepted {
            return Ok(None);
        }
        // Reserved bits (Intel SDM vol. 3 §2.5): bits 63:32 of both registers.
        if value >> 32 != 0 {
            self.raise(vtl, Fault::GeneralProtection);
            return Ok(None);
        }
        self.vcpu.set_state(vtl.index(), &state);
        self.vcpu.advance(vtl.index(), exit.instruction_len);
        Ok(None)
    }

    fn table(&mut self, vtl: Vtl, exit: &Exit, table: Table) -> Result<Option<Stop>> {
        let state = self.vcpu.state(vtl.index());
        let pseudo = |register: crate::engine::TableRegister| {
            HvRegisterValue::from_table(TableRegister { pad: [0; 3], limit: register.limit, base: register.base })
        };
        let (name, old) = match table {
            Table::Gdtr => (HvRegisterName::GDTR, pseudo(state.gdtr)),
            Table::Idtr => (HvRegisterName::IDTR, pseudo(state.idtr)),
            Table::Ldtr => (HvRegisterName::LDTR, HvRegisterValue::from_segment(to_tlfs(state.ldtr))),
            Table::Tr => (HvRegisterName::TR, HvRegisterValue::from_segment(to_tlfs(state.tr))),
        };
        let at = self.instruction(vtl, exit);
        let machine = &self.machine;
        // The engine does not take the operand apart; the message carries the value the register has.
        match machine.partition.register_write(self.vp, name, old, old, &at, &machine.ram) {
            Verdict::Intercepted => Ok(None),
            _ => bail!("{}: a load of {name} was not to be intercepted", self.place(vtl, exit)),
        }
    }

    /// The stopped instruction as an intercept message describes it.
    fn instruction(&self, vtl: Vtl, exit: &Exit) -> Instruction {
        let state = self.vcpu.state(vtl.index());
        Instruction {
            rip: exit.rip,
            length: exit.instruction_len,
            rflags: state.rflags,
            cs: to_tlfs(state.cs),
            cpl: state.cpl(),
            cr8: u8::try_from(state.cr8 & 0xf).unwrap_or(0),
        }
    }
}
