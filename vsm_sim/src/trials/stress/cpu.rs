//! The seam between what VTL0 does and the machine it does it on: VTL1 as host code, or the image on a software CPU.

use std::fmt;

use anyhow::Result;
use litebox_platform_lvbs::hv::{HvRegisterName, msr};

use super::life::Life;
use super::memory::AsVtl0;
use crate::hosted::HostedMachine;
use crate::hv::{Access, GuestMemory, Partition};

/// What came of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was a #GP, with RIP at it.
    Fault,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "allowed",
            Self::Fault => "#GP",
        })
    }
}

/// An instruction that VTL1 may have to answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// WRMSR: number, register, value.
    Msr(u32, HvRegisterName, u64),
    /// MOV to CR0 or CR4, or XSETBV.
    Control(HvRegisterName, u64),
    /// LGDT, LIDT, LLDT or LTR, with what is loaded already.
    Table(HvRegisterName),
    /// A load or a store of 8 bytes, or a jump.
    Memory(Access, u64),
}

/// A register that LockRegs pins (LVBS contract §5.3): its name, the MSR it is in, if it is in one, and its pinned bits.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    /// The register.
    pub name: HvRegisterName,
    /// The MSR.
    pub msr: Option<u32>,
    /// The bits.
    pub mask: u64,
    /// Whether it is pinned where the hypervisor lets VTL1: so not after a hypercall that failed.
    pub optional: bool,
}

/// IA32_MISC_ENABLE's bit for XD disable (Intel SDM vol. 4, MSR 1A0h).
pub const XD_DISABLE: u64 = 1 << 34;

/// CR0: PE, WP, PG. CR4: all but TSD, MCE, PGE, PCE and VMXE. IA32_MISC_ENABLE: XD disable. Others: all bits. APIC_BASE is not
/// written by VTL0 here.
pub const PINNED: [Pinned; 13] = [
    Pinned { name: HvRegisterName::CR0, msr: None, mask: 0x8001_0001, optional: false },
    Pinned { name: HvRegisterName::CR4, msr: None, mask: 0xffff_ffff_ffff_de3b, optional: false },
    of_msr(HvRegisterName::EFER, msr::EFER),
    of_msr(HvRegisterName::STAR, msr::STAR),
    of_msr(HvRegisterName::LSTAR, msr::LSTAR),
    of_msr(HvRegisterName::CSTAR, msr::CSTAR),
    of_msr(HvRegisterName::SFMASK, msr::SFMASK),
    of_msr(HvRegisterName::SYSENTER_CS, msr::SYSENTER_CS),
    of_msr(HvRegisterName::SYSENTER_EIP, msr::SYSENTER_EIP),
    of_msr(HvRegisterName::SYSENTER_ESP, msr::SYSENTER_ESP),
    Pinned { name: HvRegisterName::XFEM, msr: None, mask: u64::MAX, optional: true },
    Pinned { optional: true, ..of_msr(HvRegisterName::TSC_AUX, msr::TSC_AUX) },
    Pinned { mask: XD_DISABLE, optional: true, ..of_msr(HvRegisterName::MISC_ENABLE, msr::MISC_ENABLE) },
];

const fn of_msr(name: HvRegisterName, number: u32) -> Pinned {
    Pinned { name, msr: Some(number), mask: u64::MAX, optional: false }
}

/// VTL0's kernel on one processor.
pub trait Cpu: Send {
    /// The processor.
    fn vp(&self) -> u32;

    /// The hypervisor model.
    fn partition(&self) -> &Partition;

    /// Memory, past all protections.
    fn ram(&self) -> &dyn GuestMemory;

    /// Memory as VTL0 gets at it.
    fn memory(&self) -> AsVtl0<'_> {
        AsVtl0::new(self.partition(), self.ram(), self.vp())
    }

    /// Enters VTL1 for the first time; it has been enabled here.
    ///
    /// # Errors
    /// When VTL1 does not do as it must.
    fn first_entry(&mut self) -> Result<()>;

    /// Makes a VSM call; the result register.
    ///
    /// # Errors
    /// When VTL1 does not return, or a register of VTL0's has not survived.
    fn call(&mut self, id: u64, parameters: [u64; 3]) -> Result<i64>;

    /// Executes an instruction.
    ///
    /// # Errors
    /// When neither of the outcomes came of it.
    fn attempt(&mut self, attempt: &Attempt) -> Result<Outcome>;

    /// Whether this kind of machine stops a write of the register, one of [`PINNED`], where VTL1 wants it to.
    fn stops_at(&self, name: HvRegisterName) -> bool;

    /// A register of VTL0's, one of [`PINNED`] that the machine stops at; else 0.
    fn register(&mut self, name: HvRegisterName) -> u64;

    /// Whether VTL1 has locked the registers of this processor.
    fn is_locked(&self) -> bool;

    /// Changes a register that is pinned, past VTL1: to see whether a check notices.
    fn tamper_with_register(&mut self);
}

/// The machine of a life, and the rules that can be checked on it.
pub trait World: Send + Sync {
    /// The hosted machine, if it is one.
    fn hosted(&self) -> Option<&HostedMachine>;

    /// The hypervisor model.
    fn partition(&self) -> &Partition;

    /// What must hold at any moment.
    ///
    /// # Errors
    /// The rule that is broken.
    fn check(&self, life: &Life) -> Result<()>;

    /// What must hold while no processor is in VTL1.
    ///
    /// # Errors
    /// The rule that is broken.
    fn check_at_rest(&self, life: &Life) -> Result<()>;

    /// What must hold at the end of a life, which this may use up.
    ///
    /// # Errors
    /// The rule that is broken.
    fn check_at_end(&self, life: &Life) -> Result<()>;

    /// Opens a frame of VTL1's to VTL0, past VTL1: to see whether a check notices.
    fn tamper_with_permission(&self);

    /// What VTL1 has printed last.
    fn console(&self) -> Vec<String>;
}
