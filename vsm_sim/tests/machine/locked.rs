//! Writes of locked registers by real instructions (contract §5.3, §6): the same value passes, a change of a pinned bit
//! is a #GP at the instruction, other bits are VTL0's.

use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Result, ensure};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, ax, cr0, cr4, ptr, rax, rbx};
use litebox_platform_lvbs::hv::{HvRegisterName as N, msr};
use litebox_platform_lvbs::vsm::VsmFunction as F;
use litebox_platform_lvbs::vtl0::control_regs::LOCKED_REGISTERS;
use vsm_sim::engine::{PrivateState, SharedState};
use vsm_sim::machine::{Stop, VTL0, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::memory_map::SCRATCH_START;

use crate::registers::count_entries;
use crate::setup::{booted, call, console, must_fault};

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The MSRs that LockRegs locks, with values VTL0 might have given them at boot, and bits that VTL0 may change.
const MSRS: [(u32, N, u64, &[u32]); 11] = [
    (msr::EFER, N::EFER, 0xD01, &[]),
    (msr::STAR, N::STAR, 0x0023_0010_0000_0000, &[]),
    (msr::LSTAR, N::LSTAR, 0xffff_ffff_8200_0080, &[]),
    (msr::CSTAR, N::CSTAR, 0xffff_ffff_8200_1500, &[]),
    (msr::SFMASK, N::SFMASK, 0x25_7fd5, &[]),
    (msr::APIC_BASE, N::APIC_BASE, 0xFEE0_0900, &[]),
    (msr::SYSENTER_CS, N::SYSENTER_CS, 0x10, &[]),
    (msr::SYSENTER_EIP, N::SYSENTER_EIP, 0xffff_ffff_8200_1480, &[]),
    (msr::SYSENTER_ESP, N::SYSENTER_ESP, 0xffff_8880_0000_2000, &[]),
    (msr::TSC_AUX, N::TSC_AUX, 0x1007, &[]),
    // Fast strings, TCC, FERR, SpeedStep, MONITOR, CPUID limit, xTPR, turbo: all but XD disable (bit 34).
    (msr::MISC_ENABLE, N::MISC_ENABLE, 0x85_0089, &[0, 3, 10, 16, 18, 22, 23, 38]),
];
/// Bits of an MSR that are tried where all are pinned, and of IA32_MISC_ENABLE the one that is.
const PINNED: [u32; 5] = [0, 4, 11, 31, 47];
const XD_DISABLE: [u32; 1] = [34];

fn with_value(value: u64) -> SharedState {
    SharedState { rax: value, ..SharedState::default() }
}

fn msr_registers(number: u32, value: u64) -> SharedState {
    SharedState { rcx: number.into(), rax: value & 0xffff_ffff, rdx: value >> 32, ..SharedState::default() }
}

fn read_msr(vtl0: &mut Vtl0, number: u32) -> Result<u64> {
    let state = vtl0.must_run(&msr_registers(number, 0), CodeAssembler::rdmsr)?;
    Ok(state.rdx << 32 | state.rax & 0xffff_ffff)
}

/// VTL0 after LockRegs, with [`MSRS`] set before.
fn locked() -> Result<Vtl0> {
    let mut vtl0 = booted(1)?;
    for (number, _, value, _) in MSRS {
        ensure!(vtl0.write_msr(number, value)? == Stop::Done, "MSR {number:#x} before it is locked");
        ensure!(read_msr(&mut vtl0, number)? == value, "MSR {number:#x} does not hold its value");
    }
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "{}", console(&vtl0.machine()));
    Ok(vtl0)
}

#[test]
fn machine_pins_msrs() -> Result<()> {
    for after_boot in [false, true] {
        let mut vtl0 = locked()?;
        if after_boot {
            ensure!(call(&mut vtl0, F::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot");
        }
        for (number, _, value, free) in MSRS {
            let pinned = if free.is_empty() { &PINNED[..] } else { &XD_DISABLE[..] };
            let stop = vtl0.write_msr(number, value)?;
            ensure!(stop == Stop::Done, "MSR {number:#x}, the value it has: {stop:x?}\n{}", console(&vtl0.machine()));
            for bit in free {
                let other = value ^ 1 << bit;
                let stop = vtl0.write_msr(number, other)?;
                ensure!(stop == Stop::Done, "MSR {number:#x}, free bit {bit}: {stop:x?}");
                ensure!(read_msr(&mut vtl0, number)? == other, "MSR {number:#x}: VTL0 does not see bit {bit}");
                // A pinned bit does not slip through together with a free one.
                let registers = msr_registers(number, other ^ 1 << pinned[0]);
                must_fault(
                    &mut vtl0,
                    &format!("MSR {number:#x}, bit {bit} and more"),
                    &registers,
                    CodeAssembler::wrmsr,
                )?;
                ensure!(read_msr(&mut vtl0, number)? == other, "MSR {number:#x} has changed");
                ensure!(vtl0.write_msr(number, value)? == Stop::Done, "MSR {number:#x} back");
            }
            for bit in pinned {
                let registers = msr_registers(number, value ^ 1 << bit);
                must_fault(&mut vtl0, &format!("MSR {number:#x}, bit {bit}"), &registers, CodeAssembler::wrmsr)?;
                ensure!(read_msr(&mut vtl0, number)? == value, "MSR {number:#x} has changed");
            }
        }
    }
    Ok(())
}

/// No locked register is left out of this file but XCR0, whose writes the engine cannot stop.
#[test]
fn every_locked_register_is_tried() {
    let mut tried: Vec<N> = MSRS.iter().map(|(_, name, ..)| *name).collect();
    tried.extend([N::CR0, N::CR4, N::XFEM]);
    tried.sort_unstable();
    let mut locked = LOCKED_REGISTERS.to_vec();
    locked.sort_unstable();
    assert_eq!(tried, locked);
}

/// The hypervisor of this machine cannot intercept XSETBV. VTL1 says so, and locks everything else.
#[test]
fn machine_leaves_unlocked_what_the_hypervisor_cannot_intercept() -> Result<()> {
    let mut vtl0 = locked()?;
    let machine = vtl0.machine();
    let said = "LockRegs: writes that are not intercepted on any processor: CrInterceptControl(XCR0_WRITE)";
    ensure!(console(&machine).contains(said), "{}", console(&machine));
    let entries = count_entries(&machine);
    vtl0.must_run(&SharedState { rax: 3, ..SharedState::default() }, CodeAssembler::xsetbv)?;
    ensure!(entries.load(SeqCst) == 0, "VTL1 was asked about XCR0");
    ensure!(
        machine.partition().cr_intercepts(0).0 == 0xfd_d557 & !(1 << 2),
        "{:x?}",
        machine.partition().cr_intercepts(0)
    );
    Ok(())
}

/// MSRs that are not locked stay VTL0's, without an intercept.
#[test]
fn machine_leaves_other_msrs_alone() -> Result<()> {
    const FS_BASE: u32 = 0xC000_0100;
    const KERNEL_GS_BASE: u32 = 0xC000_0102;
    let mut vtl0 = locked()?;
    let entries = count_entries(&vtl0.machine());
    for number in [FS_BASE, KERNEL_GS_BASE] {
        ensure!(vtl0.write_msr(number, 0x1234_5678)? == Stop::Done, "MSR {number:#x}");
        ensure!(read_msr(&mut vtl0, number)? == 0x1234_5678, "MSR {number:#x} does not hold its value");
        ensure!(entries.load(SeqCst) == 0, "VTL1 was asked about MSR {number:#x}");
    }
    Ok(())
}

/// Writes a control register with the bits of `bits` inverted; what VTL0 then reads.
fn flip(vtl0: &mut Vtl0, bits: u64, body: Body, read: Body) -> Result<u64> {
    vtl0.must_run(&SharedState { rbx: bits, ..SharedState::default() }, body)?;
    Ok(vtl0.must_run(&SharedState::default(), read)?.rax)
}

/// A control register: how to read it, how to write RAX to it, how to invert RBX's bits in it, and where it is.
struct Control {
    name: &'static str,
    read: Body,
    write: Body,
    flip: Body,
    value: fn(&PrivateState) -> u64,
    pinned: &'static [u32],
    free: &'static [u32],
}

const CR0: Control = Control {
    name: "CR0",
    read: |asm| asm.mov(rax, cr0),
    write: |asm| asm.mov(cr0, rax),
    flip: |asm| {
        asm.mov(rax, cr0)?;
        asm.xor(rax, rbx)?;
        asm.mov(cr0, rax)
    },
    value: |state| state.cr0,
    // WP. (PE and PG cannot be cleared in 64-bit mode at all.)
    pinned: &[16],
    // MP, TS, AM.
    free: &[1, 3, 18],
};

const CR4: Control = Control {
    name: "CR4",
    read: |asm| asm.mov(rax, cr4),
    write: |asm| asm.mov(cr4, rax),
    flip: |asm| {
        asm.mov(rax, cr4)?;
        asm.xor(rax, rbx)?;
        asm.mov(cr4, rax)
    },
    value: |state| state.cr4,
    // DE, PSE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE, SMEP, SMAP, PKE.
    pinned: &[3, 4, 9, 10, 11, 16, 18, 20, 21, 22],
    // TSD, MCE, PGE, PCE.
    free: &[2, 6, 7, 8],
};

#[test]
fn machine_pins_control_registers() -> Result<()> {
    pins_control_registers(|_| {})
}

/// The same where the hypervisor spares VTL1 nothing: the value a register has, and bits that are free, are then VTL1's to
/// carry out.
#[test]
fn machine_carries_out_what_changes_no_pinned_bit_of_a_control_register() -> Result<()> {
    pins_control_registers(|vtl0| vtl0.machine().partition().ignore_cr_masks())
}

fn pins_control_registers(prepare: impl Fn(&Vtl0)) -> Result<()> {
    for control in [CR0, CR4] {
        let mut vtl0 = locked()?;
        prepare(&vtl0);
        let name = control.name;
        let value = (control.value)(&vtl0.processor().vcpu().state(VTL0));
        // The value it has.
        vtl0.must_run(&with_value(value), control.write)?;
        for bit in control.pinned {
            let registers = with_value(value ^ 1 << bit);
            must_fault(&mut vtl0, &format!("{name}, bit {bit}"), &registers, control.write)?;
            let now = (control.value)(&vtl0.processor().vcpu().state(VTL0));
            ensure!(now == value, "{name} has become {now:#x} by bit {bit}");
        }
        for bit in control.free {
            let now = flip(&mut vtl0, 1 << bit, control.flip, control.read)?;
            ensure!(now == value ^ 1 << bit, "{name}, bit {bit}: VTL0 reads {now:#x}");
            // A pinned bit does not slip through together with a free one.
            let pinned = 1 << control.pinned[0];
            must_fault(
                &mut vtl0,
                &format!("{name}, bit {bit} and a pinned one"),
                &with_value(value ^ pinned),
                control.write,
            )?;
            let back = flip(&mut vtl0, 1 << bit, control.flip, control.read)?;
            ensure!(back == value, "{name}, bit {bit} back: VTL0 reads {back:#x}");
        }
    }
    Ok(())
}

/// CR0 has other ways to be written: CLTS passes, LMSW too as long as it changes nothing pinned.
#[test]
fn machine_lets_clts_pass() -> Result<()> {
    const TS: u64 = 1 << 3;
    let mut vtl0 = locked()?;
    let value = vtl0.processor().vcpu().state(VTL0).cr0;
    ensure!(flip(&mut vtl0, TS, CR0.flip, CR0.read)? == value ^ TS, "CR0.TS");
    vtl0.must_run(&SharedState::default(), CodeAssembler::clts)?;
    ensure!(vtl0.processor().vcpu().state(VTL0).cr0 == value & !TS, "CLTS has no effect");
    Ok(())
}

#[test]
fn machine_refuses_new_descriptor_tables() -> Result<()> {
    let instructions: [(&str, Body); 3] =
        [("LGDT", |asm| asm.lgdt(ptr(rbx))), ("LIDT", |asm| asm.lidt(ptr(rbx))), ("LTR", |asm| asm.ltr(ax))];
    let mut vtl0 = locked()?;
    let before = vtl0.processor().vcpu().state(VTL0);
    let tables = |state: &PrivateState| (state.gdtr, state.idtr, state.ldtr, state.tr);
    // The very values that are loaded already: there is no good reason to load them after boot.
    for (offset, table) in [(0, before.gdtr), (16, before.idtr)] {
        bytes::write(vtl0.machine().ram(), SCRATCH_START + offset, &table.limit.to_le_bytes())?;
        bytes::write(vtl0.machine().ram(), SCRATCH_START + offset + 2, &table.base.to_le_bytes())?;
    }
    for (name, body) in instructions {
        let operand = SCRATCH_START + if name == "LIDT" { 16 } else { 0 };
        let selector = if name == "LTR" { 0x18 } else { 0 };
        let registers = SharedState { rbx: operand, rax: selector, ..SharedState::default() };
        must_fault(&mut vtl0, name, &registers, body)?;
        let now = vtl0.processor().vcpu().state(VTL0);
        ensure!(tables(&now) == tables(&before), "{name} has changed a table");
    }
    Ok(())
}

/// What Linux does when it switches to a process that has used modify_ldt, and when it runs down its LDT.
#[test]
fn machine_lets_vtl0_load_its_ldt() -> Result<()> {
    // The TSS's place, which the processor does not look at again.
    const SELECTOR: u16 = 0x18;
    let mut vtl0 = locked()?;
    let gdt = vtl0.processor().vcpu().state(VTL0).gdtr;
    // Present, LDT, a byte short of a page, at the scratch memory (Intel SDM vol. 3 §3.5).
    let descriptor = 0x0fff_u64 | (SCRATCH_START & 0xff_ffff) << 16 | 0x82 << 40 | (SCRATCH_START >> 24 & 0xff) << 56;
    bytes::write(vtl0.machine().ram(), gdt.base + u64::from(SELECTOR), &descriptor.to_le_bytes())?;
    bytes::write(vtl0.machine().ram(), gdt.base + u64::from(SELECTOR) + 8, &[0; 8])?;
    for selector in [SELECTOR, 0] {
        vtl0.must_run(&with_value(selector.into()), |asm| asm.lldt(ax))?;
        let now = vtl0.processor().vcpu().state(VTL0).ldtr.selector;
        ensure!(now == selector, "LDTR holds {now:#x}, not {selector:#x}");
    }
    Ok(())
}

/// Before LockRegs all of this is VTL0's business, and another processor's lock is not this one's.
#[test]
fn machine_locks_one_processor_at_a_time() -> Result<()> {
    let mut vtl0 = booted(2)?;
    let mut others = crate::setup::start_others(&mut vtl0)?;
    let other = &mut others[0];
    ensure!(call(&mut vtl0, F::LockRegs, [0; 3])? == 0, "LockRegs");
    let registers = msr_registers(msr::LSTAR, 0xffff_ffff_8300_0000);
    ensure!(other.run(&registers, CodeAssembler::wrmsr)? == Stop::Done, "LSTAR of a processor that is not locked");
    must_fault(&mut vtl0, "LSTAR of the locked one", &registers, CodeAssembler::wrmsr)?;
    ensure!(call(other, F::LockRegs, [0; 3])? == 0, "LockRegs on VP 1");
    ensure!(other.run(&registers, CodeAssembler::wrmsr)? == Stop::Done, "the value that was locked in");
    let registers = msr_registers(msr::LSTAR, 0xffff_ffff_8200_0000);
    must_fault(other, "LSTAR after the lock", &registers, CodeAssembler::wrmsr)?;
    Ok(())
}
