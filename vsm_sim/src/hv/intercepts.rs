//! Secure intercepts: which accesses of VTL0 are stopped, and the message VTL1 gets (TLFS "Secure Intercepts",
//! "Memory Access Violations").
//!
//! The machine asks before it lets VTL0 do something; only accesses of VTL0 are asked about.

use litebox_platform_lvbs::hv::message::{
    InterceptAccess, InterceptHeader, MemoryIntercept, MsrIntercept, RegisterIntercept,
};
use litebox_platform_lvbs::hv::{
    CrInterceptControl, HvMessage, HvRegisterName, HvRegisterValue, MapFlags, MessageType, SegmentRegister, Vtl, msr,
};
use zerocopy::FromZeros;

use super::memory::GuestMemory;
use super::partition::{Partition, State};
use super::synic::INTERCEPT_SINT;

/// The instruction of VTL0 that accesses something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Its address.
    pub rip: u64,
    /// Its length in bytes, 0 when the machine does not know.
    pub length: u8,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: SegmentRegister,
    /// Privilege level.
    pub cpl: u8,
    /// Task priority.
    pub cr8: u8,
    /// What the processor is in.
    pub state: ExecutionState,
}

/// How far a processor's VTL0 has come since it was reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutionState {
    /// Long mode is active.
    #[default]
    Long,
    /// CR0.PE is set.
    Protected,
    /// As after a reset.
    Real,
}

/// Whether VTL0 may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The access takes place.
    Allowed,
    /// It does not, and a message for VTL1 is queued. The machine now enters VTL1
    /// ([`Partition::interrupt_entry`]); the instruction has had no effect and RIP still points at it.
    Intercepted,
    /// There is no memory.
    Unmapped,
}

/// The kind of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading data.
    Read,
    /// Writing data.
    Write,
    /// Fetching an instruction.
    Execute,
}

/// The processor mode a memory access is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Ring 3.
    pub user: bool,
    /// SMEP exists for the guest but CR4.SMEP is clear: KMX then governs all execution (TLFS "MBEC Interaction with
    /// SMEP").
    pub smep_disabled: bool,
}

/// A memory access VTL0 is about to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAccess {
    /// Physical address.
    pub gpa: u64,
    /// Virtual address, if there is one.
    pub gva: Option<u64>,
    /// Reading, writing or executing.
    pub access: Access,
    /// In which mode.
    pub mode: Mode,
}

impl State {
    fn required(&mut self, vp: u32, access: Access, mode: Mode) -> MapFlags {
        match access {
            Access::Read => MapFlags::READ,
            Access::Write => MapFlags::WRITE,
            Access::Execute => {
                let mbec = self.vp(vp).secure_config.is_mbec_enabled();
                if mbec && mode.user && !mode.smep_disabled { MapFlags::USER_EXECUTE } else { MapFlags::KERNEL_EXECUTE }
            }
        }
    }

    /// Whether VTL1 intercepts `what` on `vp`.
    fn intercepts(&mut self, vp: u32, what: CrInterceptControl) -> bool {
        let processor = self.vp(vp);
        processor.active == Vtl::Vtl0
            && processor.vtl1_enabled
            && CrInterceptControl::from_bits_retain(processor.cr_intercept_control).contains(what)
    }

    fn raise(&mut self, vp: u32, message: HvMessage, memory: &dyn GuestMemory) -> Verdict {
        self.post(vp, Vtl::Vtl1, INTERCEPT_SINT, message, memory);
        if self.vtl(vp, Vtl::Vtl1).interrupts.is_empty() {
            self.report(vp, Vtl::Vtl1, "an intercept does not interrupt VTL1: its source is masked".into());
        }
        Verdict::Intercepted
    }
}

fn header(vp: u32, access: InterceptAccess, at: &Instruction) -> InterceptHeader {
    // CR0.PE and EFER.LMA.
    let state = match at.state {
        ExecutionState::Long => 1 << 2 | 1 << 4,
        ExecutionState::Protected => 1 << 2,
        ExecutionState::Real => 0,
    };
    InterceptHeader {
        vp_index: vp,
        instruction_length_and_cr8: at.length & 0xf | (at.cr8 & 0xf) << 4,
        access,
        execution_state: u16::from(at.cpl & 3) | state,
        cs: at.cs,
        rip: at.rip,
        rflags: at.rflags,
    }
}

/// The control bit for writing a register, and which of the masks goes with it.
fn write_bit(register: HvRegisterName) -> Option<(CrInterceptControl, Option<usize>)> {
    use CrInterceptControl as C;
    Some(match register {
        HvRegisterName::CR0 => (C::CR0_WRITE, Some(0)),
        HvRegisterName::CR4 => (C::CR4_WRITE, Some(1)),
        HvRegisterName::XFEM => (C::XCR0_WRITE, None),
        HvRegisterName::GDTR => (C::GDTR_WRITE, None),
        HvRegisterName::IDTR => (C::IDTR_WRITE, None),
        HvRegisterName::LDTR => (C::LDTR_WRITE, None),
        HvRegisterName::TR => (C::TR_WRITE, None),
        _ => return None,
    })
}

/// The control bits for reading and writing an MSR.
fn msr_bits(number: u32) -> Option<(CrInterceptControl, CrInterceptControl)> {
    use CrInterceptControl as C;
    Some(match number {
        msr::MISC_ENABLE => (C::IA32_MISC_ENABLE_READ, C::IA32_MISC_ENABLE_WRITE),
        msr::LSTAR => (C::LSTAR_READ, C::LSTAR_WRITE),
        msr::STAR => (C::STAR_READ, C::STAR_WRITE),
        msr::CSTAR => (C::CSTAR_READ, C::CSTAR_WRITE),
        msr::APIC_BASE => (C::APIC_BASE_READ, C::APIC_BASE_WRITE),
        msr::EFER => (C::EFER_READ, C::EFER_WRITE),
        msr::SYSENTER_CS => (C::empty(), C::SYSENTER_CS_WRITE),
        msr::SYSENTER_EIP => (C::empty(), C::SYSENTER_EIP_WRITE),
        msr::SYSENTER_ESP => (C::empty(), C::SYSENTER_ESP_WRITE),
        msr::SFMASK => (C::empty(), C::SFMASK_WRITE),
        msr::TSC_AUX => (C::empty(), C::TSC_AUX_WRITE),
        _ => return None,
    })
}

impl Partition {
    /// VTL0 of `vp` is about to write a control or descriptor-table register.
    pub fn register_write(
        &self,
        vp: u32,
        register: HvRegisterName,
        old: HvRegisterValue,
        new: HvRegisterValue,
        at: &Instruction,
        memory: &dyn GuestMemory,
    ) -> Verdict {
        let mut state = self.lock();
        let Some((bit, mask)) = write_bit(register) else { return Verdict::Allowed };
        if !state.intercepts(vp, bit) {
            return Verdict::Allowed;
        }
        if let Some(mask) = mask
            && !state.abilities.ignores_masks
            && (old.low ^ new.low) & state.vp(vp).cr_intercept_masks[mask] == 0
        {
            return Verdict::Allowed;
        }
        let from_memory = matches!(register, HvRegisterName::GDTR | HvRegisterName::IDTR);
        let payload = RegisterIntercept {
            header: header(vp, InterceptAccess::WRITE, at),
            flags: u8::from(from_memory),
            reserved: [0; 3],
            register,
            value: new,
        };
        state.raise(vp, HvMessage::new(MessageType::REGISTER_INTERCEPT, 0, &payload), memory)
    }

    /// VTL0 of `vp` is about to write `new` to an architectural MSR that holds `old`.
    pub fn msr_write_access(
        &self,
        vp: u32,
        number: u32,
        old: u64,
        new: u64,
        at: &Instruction,
        memory: &dyn GuestMemory,
    ) -> Verdict {
        let mut state = self.lock();
        let Some((_, bit)) = msr_bits(number) else { return Verdict::Allowed };
        let has_mask = number == msr::MISC_ENABLE && !state.abilities.ignores_masks;
        let masked_out = has_mask && (old ^ new) & state.vp(vp).cr_intercept_masks[2] == 0;
        if masked_out || !state.intercepts(vp, bit) {
            return Verdict::Allowed;
        }
        state.raise_msr(vp, number, InterceptAccess::WRITE, (new >> 32, new & 0xffff_ffff), at, memory)
    }

    /// VTL0 of `vp` is about to read an architectural MSR.
    pub fn msr_read_access(&self, vp: u32, number: u32, at: &Instruction, memory: &dyn GuestMemory) -> Verdict {
        let mut state = self.lock();
        match msr_bits(number) {
            Some((bit, _)) if !bit.is_empty() && state.intercepts(vp, bit) => {
                state.raise_msr(vp, number, InterceptAccess::READ, (0, 0), at, memory)
            }
            _ => Verdict::Allowed,
        }
    }

    /// Whether VTL0 of `vp` may access memory in this way, without any consequence.
    pub fn may_access(&self, vp: u32, access: &MemoryAccess) -> Verdict {
        match self.while_allowed(vp, access, || ()) {
            Ok(()) => Verdict::Allowed,
            Err(verdict) => verdict,
        }
    }

    /// Does `work` if VTL0 of `vp` may access memory in this way, and holds that until it is done: so an
    /// access has taken place before a hypercall that forbids it returns, or never. `work` must not use the partition.
    ///
    /// # Errors
    /// Why VTL0 may not; without any consequence.
    pub fn while_allowed<R>(&self, vp: u32, access: &MemoryAccess, work: impl FnOnce() -> R) -> Result<R, Verdict> {
        if !self.is_ram(access.gpa >> 12) {
            return Err(Verdict::Unmapped);
        }
        let mut state = self.lock();
        let required = state.required(vp, access.access, access.mode);
        let allowed = state.protections.get(access.gpa >> 12).contains(required);
        if allowed { Ok(work()) } else { Err(Verdict::Intercepted) }
    }

    /// VTL0 of `vp` is about to access memory.
    pub fn gpa_access(&self, vp: u32, access: &MemoryAccess, at: &Instruction, memory: &dyn GuestMemory) -> Verdict {
        let verdict = self.may_access(vp, access);
        if verdict != Verdict::Intercepted {
            return verdict;
        }
        let kind = match access.access {
            Access::Read => InterceptAccess::READ,
            Access::Write => InterceptAccess::WRITE,
            Access::Execute => InterceptAccess::EXECUTE,
        };
        let mut payload = MemoryIntercept::new_zeroed();
        payload.header = header(vp, kind, at);
        payload.gpa = access.gpa;
        if let Some(gva) = access.gva {
            payload.gva = gva;
            payload.access_info = MemoryIntercept::GVA_VALID;
        }
        self.lock().raise(vp, HvMessage::new(MessageType::GPA_INTERCEPT, 0, &payload), memory)
    }
}

impl State {
    fn raise_msr(
        &mut self,
        vp: u32,
        number: u32,
        access: InterceptAccess,
        (rdx, rax): (u64, u64),
        at: &Instruction,
        memory: &dyn GuestMemory,
    ) -> Verdict {
        let payload = MsrIntercept { header: header(vp, access, at), msr: number, reserved: 0, rdx, rax };
        self.raise(vp, HvMessage::new(MessageType::MSR_INTERCEPT, 0, &payload), memory)
    }
}
