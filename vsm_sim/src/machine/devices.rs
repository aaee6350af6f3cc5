//! VTL0 as a guest with the machine's devices ([`Mode::Guest`](crate::engine::qemu::Mode)): what still stops of it, and
//! what CPUID shows to it.
//!
//! Power-off, reset and the start of processors come to who runs the processors, as [`Stop`]s; everything else at the
//! stopping ports is carried out on the real device. VTL1 has no devices but its console, in both modes.

use anyhow::{Result, bail};
use litebox_platform_lvbs::hv::Vtl;

use super::console::Console;
use super::processor::{Processor, Stop};
use super::{VTL0, VTL1};
use crate::engine::qemu::{Mode, devices};
use crate::engine::{DeviceAccess, Exit, MemoryFault, PrivateState, SharedState};

/// Keyboard controller: a pulse on the lines whose bits are clear; bit 0 is the reset line (IBM PC/AT technical reference).
const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE: u32 = 0xf0;
/// System control port A, bit 0: reset.
const SYSTEM_CONTROL: u16 = 0x92;
/// Reset control register, bit 2: reset (Intel 82371AB).
const RESET_CONTROL: u16 = 0xcf9;
/// PM1a control register: SLP_EN, and SLP_TYP, which is 0 for soft-off on this machine (ACPI "PM1 Control Registers").
const PM1A_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u32 = 1 << 13;
const SLEEP_TYPE: u32 = 7 << 10;

/// The local APIC's page, and its interrupt command register (Intel SDM vol. 3, "Interrupt Command Register").
const LOCAL_APIC: u64 = 0xfee0_0000;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const INIT: u32 = 5;
const START_UP: u32 = 6;
const LEVEL_ASSERT: u32 = 1 << 14;
const ALL_OTHERS: u32 = 3;

const CR4_OSXSAVE: u64 = 1 << 18;
/// CPUID leaf 1, ECX: OSXSAVE; x2APIC, whose registers would not stop.
const LEAF1_OSXSAVE: u32 = 1 << 27;
const LEAF1_X2APIC: u32 = 1 << 21;
/// CPUID leaf 7, ECX: five levels of page tables, which the engine's walks don't expect to be switched on.
const LEAF7_LA57: u32 = 1 << 16;
/// CPUID leaf 8000_0007h, EDX: invariant TSC.
const INVARIANT_TSC: u32 = 1 << 8;

impl Processor {
    /// Whether `vtl` is a guest that has the machine's devices.
    pub(super) fn has_devices(&self, vtl: Vtl) -> bool {
        vtl == Vtl::Vtl0 && self.machine.config.mode == Mode::Guest
    }

    /// Puts VTL0 of this processor where start-up at a page of low memory puts it. VTL1 keeps what it has (TLFS "Virtual
    /// Processor State Isolation": INIT is VTL0's own).
    pub fn start_up(&mut self, page: u8) {
        self.vcpu.set_state(VTL0, &PrivateState::started_at(page));
        // EDX: family and model, of which nobody makes anything.
        let dr6 = self.vcpu.shared().dr6;
        self.vcpu.set_shared(&SharedState { dr6, ..SharedState::default() });
    }

    /// What VTL0 does at a stopping port.
    pub(super) fn device_port(&mut self, exit: &Exit, port: u16, size: u8, value: Option<u32>) -> Result<Option<Stop>> {
        let doorbells = devices::STOPPING_PORTS.iter().any(|ports| ports.contains(&port) && ports.start == 0x300);
        match (port, value) {
            (PM1A_CONTROL, Some(value)) if value & SLEEP_ENABLE != 0 => {
                if value & SLEEP_TYPE != 0 {
                    bail!("{}: sleep type {} is not modelled", self.place(Vtl::Vtl0, exit), (value & SLEEP_TYPE) >> 10);
                }
                return Ok(Some(Stop::PowerOff));
            }
            (RESET_CONTROL, Some(value)) if value & 4 != 0 => return Ok(Some(Stop::Reset)),
            (SYSTEM_CONTROL, Some(value)) if value & 1 != 0 => return Ok(Some(Stop::Reset)),
            (KEYBOARD_COMMAND, Some(value)) if value & PULSE == PULSE && value & 1 == 0 => {
                return Ok(Some(Stop::Reset));
            }
            // Nothing is there: COM2 is VTL1's, the doorbells are the engine's.
            (_, None) if doorbells || Console::owns(port) => self.port_value(size, u32::MAX),
            (_, Some(_)) if doorbells || Console::owns(port) => {}
            (_, Some(value)) => {
                self.vcpu.device(DeviceAccess::Out { port, size, value })?;
            }
            (_, None) => {
                let value = self.vcpu.device(DeviceAccess::In { port, size })?;
                self.port_value(size, value);
            }
        }
        self.vcpu.advance(VTL0, exit.instruction_len);
        Ok(None)
    }

    /// A write of VTL0 to the local APIC while its start-ups are watched; `None`: it is something else.
    pub(super) fn local_apic(&mut self, exit: &Exit, fault: &MemoryFault) -> Result<Option<Option<Stop>>> {
        if fault.gpa & !0xfff != LOCAL_APIC || !fault.write {
            return Ok(None);
        }
        let Some(value) = self.vcpu.stored_value(VTL0) else {
            bail!("{}: a write to the local APIC by an unusual instruction", self.place(Vtl::Vtl0, exit));
        };
        let [value, offset] = [value, fault.gpa & 0xfff].map(|word| u32::try_from(word & 0xffff_ffff).unwrap_or(0));
        if u64::from(offset) == COMMAND_HIGH {
            self.command_target = value >> 24;
        }
        self.vcpu.advance(VTL0, exit.instruction_len);
        let command = value >> 8 & 7;
        if u64::from(offset) == COMMAND_LOW && matches!(command, INIT | START_UP) {
            let target = (value >> 18 & 3 != ALL_OTHERS).then_some(self.command_target);
            return Ok(Some(match command {
                START_UP => Some(Stop::StartUp { target, page: value.to_le_bytes()[0] }),
                // The level de-assert is for processors of long ago.
                _ => (value & LEVEL_ASSERT != 0).then_some(Stop::Init { target }),
            }));
        }
        let address = u32::try_from(LOCAL_APIC).unwrap_or(0) + offset;
        self.vcpu.device(DeviceAccess::Store { address, value })?;
        Ok(Some(None))
    }

    /// CPUID as this processor has it now, where that is the guest's to see.
    pub(super) fn own_cpuid(&mut self, vtl: Vtl, leaf: u32, subleaf: u32, answer: &mut [u32; 4]) -> Result<()> {
        let context = if vtl == Vtl::Vtl0 { VTL0 } else { VTL1 };
        match leaf {
            1 => {
                answer[1] = answer[1] & 0x00ff_ffff | self.vp << 24;
                let on = self.vcpu.state(context).cr4 & CR4_OSXSAVE != 0;
                answer[2] = answer[2] & !(LEAF1_OSXSAVE | LEAF1_X2APIC) | if on { LEAF1_OSXSAVE } else { 0 };
            }
            7 if subleaf == 0 => answer[2] &= !LEAF7_LA57,
            // What depends on XCR0, and the processor's own number.
            0xb | 0xd | 0x1f | 0x8000_001e => *answer = self.vcpu.cpuid(leaf, subleaf)?,
            0x8000_0007 => {
                let shown = self.machine.partition.shows_invariant_tsc(vtl);
                answer[3] = answer[3] & !INVARIANT_TSC | if shown { INVARIANT_TSC } else { 0 };
            }
            _ => {}
        }
        Ok(())
    }
}
