//! The model's register files and the engine's registers: one is loaded from the other before the model works on
//! them, and what the model has written is carried back.

use litebox_platform_lvbs::hv::{HvRegisterName as N, HvRegisterValue, SegmentRegister, TableRegister};

use crate::engine::{PrivateState, Segment, SharedState, TableRegister as EngineTable};
use crate::hv::RegisterFile;

/// A register's name, and the field of the engine's state that holds it.
type Register<State, Value> = (N, fn(&mut State) -> &mut Value);

/// Registers that are one 64-bit field of the private state.
const SCALARS: [Register<PrivateState, u64>; 18] = [
    (N::RIP, |state| &mut state.rip),
    (N::RSP, |state| &mut state.rsp),
    (N::RFLAGS, |state| &mut state.rflags),
    (N::CR0, |state| &mut state.cr0),
    (N::CR3, |state| &mut state.cr3),
    (N::CR4, |state| &mut state.cr4),
    (N::CR8, |state| &mut state.cr8),
    (N::DR7, |state| &mut state.dr7),
    (N::EFER, |state| &mut state.efer),
    (N::PAT, |state| &mut state.pat),
    (N::KERNEL_GS_BASE, |state| &mut state.kernel_gs_base),
    (N::STAR, |state| &mut state.star),
    (N::LSTAR, |state| &mut state.lstar),
    (N::CSTAR, |state| &mut state.cstar),
    (N::SFMASK, |state| &mut state.sfmask),
    (N::SYSENTER_CS, |state| &mut state.sysenter_cs),
    (N::SYSENTER_ESP, |state| &mut state.sysenter_esp),
    (N::SYSENTER_EIP, |state| &mut state.sysenter_eip),
];

const SEGMENTS: [Register<PrivateState, Segment>; 8] = [
    (N::ES, |state| &mut state.es),
    (N::CS, |state| &mut state.cs),
    (N::SS, |state| &mut state.ss),
    (N::DS, |state| &mut state.ds),
    (N::FS, |state| &mut state.fs),
    (N::GS, |state| &mut state.gs),
    (N::LDTR, |state| &mut state.ldtr),
    (N::TR, |state| &mut state.tr),
];

const TABLES: [Register<PrivateState, EngineTable>; 2] =
    [(N::GDTR, |state| &mut state.gdtr), (N::IDTR, |state| &mut state.idtr)];

const SHARED: [Register<SharedState, u64>; 16] = [
    (N::RAX, |state| &mut state.rax),
    (N::RCX, |state| &mut state.rcx),
    (N::RDX, |state| &mut state.rdx),
    (N::RBX, |state| &mut state.rbx),
    (N::RBP, |state| &mut state.rbp),
    (N::RSI, |state| &mut state.rsi),
    (N::RDI, |state| &mut state.rdi),
    (N::R8, |state| &mut state.r8),
    (N::R9, |state| &mut state.r9),
    (N::R10, |state| &mut state.r10),
    (N::R11, |state| &mut state.r11),
    (N::R12, |state| &mut state.r12),
    (N::R13, |state| &mut state.r13),
    (N::R14, |state| &mut state.r14),
    (N::R15, |state| &mut state.r15),
    (N::CR2, |state| &mut state.cr2),
];

/// Loads the model's file from the engine's private state.
pub fn load(file: &mut RegisterFile, mut state: PrivateState) {
    for (name, field) in SCALARS {
        file.load(name, *field(&mut state));
    }
    for (name, field) in SEGMENTS {
        file.load(name, HvRegisterValue::from_segment(to_tlfs(*field(&mut state))));
    }
    for (name, field) in TABLES {
        let table = *field(&mut state);
        file.load(
            name,
            HvRegisterValue::from_table(TableRegister { pad: [0; 3], limit: table.limit, base: table.base }),
        );
    }
}

/// Loads the model's file from what the VTLs share.
pub fn load_shared(file: &mut RegisterFile, mut state: SharedState) {
    for (name, field) in SHARED {
        file.load(name, *field(&mut state));
    }
}

/// Applies one written register to the private state; whether it is one of that state's.
pub fn apply(state: &mut PrivateState, name: N, value: HvRegisterValue) -> bool {
    if let Some((_, field)) = SCALARS.iter().find(|(scalar, _)| *scalar == name) {
        *field(state) = value.low;
    } else if let Some((_, field)) = SEGMENTS.iter().find(|(segment, _)| *segment == name) {
        *field(state) = from_tlfs(value.as_segment());
    } else if let Some((_, field)) = TABLES.iter().find(|(table, _)| *table == name) {
        let table = value.as_table();
        *field(state) = EngineTable { base: table.base, limit: table.limit };
    } else {
        return false;
    }
    true
}

/// Applies one written register to what the VTLs share; whether it is one of those.
pub fn apply_shared(state: &mut SharedState, name: N, value: HvRegisterValue) -> bool {
    match SHARED.iter().find(|(shared, _)| *shared == name) {
        Some((_, field)) => {
            *field(state) = value.low;
            true
        }
        None => false,
    }
}

/// The private state a whole register file describes: that of a VTL which has never run.
#[must_use]
pub fn initial(file: &RegisterFile) -> PrivateState {
    let mut state = PrivateState { dr7: 0x400, ..PrivateState::default() };
    let names = SCALARS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != N::DR7)
        .chain(SEGMENTS.iter().map(|(name, _)| *name))
        .chain(TABLES.iter().map(|(name, _)| *name));
    for name in names {
        apply(&mut state, name, file.get(name));
    }
    state
}

/// A segment in the TLFS's form.
#[must_use]
pub fn to_tlfs(segment: Segment) -> SegmentRegister {
    SegmentRegister {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        attributes: segment.attributes,
    }
}

fn from_tlfs(segment: SegmentRegister) -> Segment {
    Segment { base: segment.base, limit: segment.limit, selector: segment.selector, attributes: segment.attributes }
}
