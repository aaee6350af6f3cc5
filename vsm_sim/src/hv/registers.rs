//! Register files: the values the model keeps for a processor, and the protocol by which the machine follows.
//!
//! The machine loads the values at an exit ([`RegisterFile::load`]) and, before it resumes, applies what hypercalls
//! have written ([`RegisterFile::take_written`]). In between the file is the truth.

use std::collections::{BTreeMap, BTreeSet};

use litebox_platform_lvbs::hv::{HvRegisterName, HvRegisterValue, InitialVpContext};

/// Registers of one VTL of one processor, or those its VTLs share.
#[derive(Clone, Debug, Default)]
pub struct RegisterFile {
    values: BTreeMap<HvRegisterName, HvRegisterValue>,
    written: BTreeSet<HvRegisterName>,
}

impl RegisterFile {
    /// The value of `name`; zero until one is stored.
    pub fn get(&self, name: HvRegisterName) -> HvRegisterValue {
        self.values.get(&name).copied().unwrap_or_default()
    }

    /// Takes over what the processor has.
    pub fn load(&mut self, name: HvRegisterName, value: impl Into<HvRegisterValue>) {
        self.values.insert(name, value.into());
    }

    /// Writes on behalf of a hypercall: the machine has to apply it.
    pub fn write(&mut self, name: HvRegisterName, value: HvRegisterValue) {
        self.values.insert(name, value);
        self.written.insert(name);
    }

    /// What hypercalls have written since the last time, for the machine to apply.
    pub fn take_written(&mut self) -> Vec<(HvRegisterName, HvRegisterValue)> {
        std::mem::take(&mut self.written).into_iter().map(|name| (name, self.get(name))).collect()
    }

    /// Loads the context a processor starts a VTL with.
    pub fn load_context(&mut self, context: &InitialVpContext) {
        use HvRegisterName as N;
        for (name, value) in [
            (N::RIP, context.rip),
            (N::RSP, context.rsp),
            (N::RFLAGS, context.rflags),
            (N::EFER, context.efer),
            (N::CR0, context.cr0),
            (N::CR3, context.cr3),
            (N::CR4, context.cr4),
            (N::PAT, context.pat),
        ] {
            self.load(name, value);
        }
        for (name, segment) in [
            (N::CS, context.cs),
            (N::DS, context.ds),
            (N::ES, context.es),
            (N::FS, context.fs),
            (N::GS, context.gs),
            (N::SS, context.ss),
            (N::TR, context.tr),
            (N::LDTR, context.ldtr),
        ] {
            self.load(name, HvRegisterValue::from_segment(segment));
        }
        self.load(N::IDTR, HvRegisterValue::from_table(context.idtr));
        self.load(N::GDTR, HvRegisterValue::from_table(context.gdtr));
    }
}

/// How a register is divided among a processor's VTLs (TLFS "Virtual Processor State Isolation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every VTL has its own.
    Private,
    /// The VTLs share one.
    Shared,
    /// Not a register of the processor itself.
    Synthetic,
}

/// Which kind of register `name` is. DR6 is private here: the model's HvRegisterVsmCapabilities reports so.
pub fn kind(name: HvRegisterName) -> Kind {
    use HvRegisterName as N;
    match name {
        N::RSP | N::RIP | N::RFLAGS | N::CR0 | N::CR3 | N::CR4 | N::CR8 | N::DR6 | N::DR7 | N::TSC_AUX
        | N::MISC_ENABLE
        // Segments, tables, and what an MSR holds.
        | HvRegisterName(0x0006_0000..=0x0006_0007 | 0x0007_0000..=0x0007_0001 | 0x0008_0000..=0x0008_000b) => {
            Kind::Private
        }
        // The general-purpose registers but RSP, which is above.
        N::CR2 | N::XFEM | HvRegisterName(0x0002_0000..=0x0002_000f) => Kind::Shared,
        _ => Kind::Synthetic,
    }
}

/// Whether the register is wider than 64 bits.
pub fn is_wide(name: HvRegisterName) -> bool {
    matches!(name.0 >> 16, 6 | 7)
}

/// Whether the register holds a linear address that must be canonical.
pub fn holds_linear_address(name: HvRegisterName) -> bool {
    use HvRegisterName as N;
    matches!(name, N::RIP | N::LSTAR | N::CSTAR | N::SYSENTER_EIP | N::SYSENTER_ESP | N::KERNEL_GS_BASE)
}
