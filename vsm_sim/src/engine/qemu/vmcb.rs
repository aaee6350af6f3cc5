//! The VMCB in engine memory: offsets, and conversion from and to the engine's register state. Source of all offsets and bits: AMD64 manual volume 2,
//! appendix B "VMCB layout" and appendix C "SVM intercept exit codes"; what QEMU 7.2 does with them was tried.

use super::config::Mode;
use super::devices::STOPPING_MSRS;
use super::layout;
use crate::engine::exit::{Event, EventKind, Intercepts};
use crate::engine::ram::Mapping;
use crate::engine::state::{PrivateState, Segment, TableRegister, msr};
use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

const CR_WRITES: u64 = 0x002;
const EXCEPTIONS: u64 = 0x008;
const MISC1: u64 = 0x00c;
const MISC2: u64 = 0x010;
const IOPM_BASE: u64 = 0x040;
const MSRPM_BASE: u64 = 0x048;
const ASID: u64 = 0x058;
const TLB_CONTROL: u64 = 0x05c;
const INT_CTL: u64 = 0x060;
const INT_VECTOR: u64 = 0x064;
const INT_STATE: u64 = 0x068;
pub const EXIT_CODE: u64 = 0x070;
pub const EXIT_INFO1: u64 = 0x078;
pub const EXIT_INFO2: u64 = 0x080;
const EXIT_INT_INFO: u64 = 0x088;
const NESTED_CTL: u64 = 0x090;
const EVENT_INJ: u64 = 0x0a8;
const NESTED_CR3: u64 = 0x0b0;

const SAVE: u64 = 0x400;
const GDTR: u64 = SAVE + 0x60;
const IDTR: u64 = SAVE + 0x80;
const CPL: u64 = SAVE + 0xcb;
const EFER: u64 = SAVE + 0xd0;
const RIP: u64 = SAVE + 0x178;
const RFLAGS: u64 = SAVE + 0x170;
pub const RAX: u64 = SAVE + 0x1f8;
pub const CR2: u64 = SAVE + 0x240;
pub const DR6: u64 = SAVE + 0x168;

/// Offsets of the segment registers, in the order of [`segments`].
const SEGMENTS: [u64; 8] = [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x70, 0x90];
/// Offsets in the save area of the plain 64-bit registers, in the order of [`plain`].
const PLAIN: [u64; 16] =
    [0x178, 0x1d8, 0x170, 0x158, 0x150, 0x148, 0x160, 0x268, 0x220, 0x200, 0x208, 0x210, 0x218, 0x228, 0x230, 0x238];

const EFER_SVME: u64 = 1 << 12;
const EVENT_VALID: u64 = 1 << 31;
const EVENT_HAS_ERROR: u64 = 1 << 11;
const V_TPR: u32 = 0xf;
const V_IRQ: u32 = 1 << 8;
const V_PRIORITY_15: u32 = 0xf << 16;
const V_IGNORE_TPR: u32 = 1 << 20;
const V_INTR_MASKING: u32 = 1 << 24;

fn plain(state: &mut PrivateState) -> [&mut u64; 16] {
    [
        &mut state.rip,
        &mut state.rsp,
        &mut state.rflags,
        &mut state.cr0,
        &mut state.cr3,
        &mut state.cr4,
        &mut state.dr7,
        &mut state.pat,
        &mut state.kernel_gs_base,
        &mut state.star,
        &mut state.lstar,
        &mut state.cstar,
        &mut state.sfmask,
        &mut state.sysenter_cs,
        &mut state.sysenter_esp,
        &mut state.sysenter_eip,
    ]
}

fn segments(state: &mut PrivateState) -> [&mut Segment; 8] {
    let PrivateState { es, cs, ss, ds, fs, gs, ldtr, tr, .. } = state;
    [es, cs, ss, ds, fs, gs, ldtr, tr]
}

/// One VMCB.
pub struct Vmcb {
    memory: Arc<Mapping>,
    /// Physical address in the emulated machine, which for engine memory is the offset in the memory file.
    pub address: u64,
    msr_map: u64,
    mode: Mode,
}

impl Vmcb {
    /// Prepares the VMCB of a context of a CPU: everything that must stop does, nested paging with the tables at `nested_cr3`.
    pub fn new(memory: Arc<Mapping>, cpu: u32, context: usize, nested_cr3: u64, mode: Mode) -> Self {
        let index = u64::from(cpu) * 2 + context as u64;
        let msr_map = layout::MSR_MAPS + index * 0x2000;
        let vmcb = Self { msr_map, mode, ..Self::at(memory, layout::vmcb(cpu, context)) };
        vmcb.set64(IOPM_BASE, if mode == Mode::Guest { layout::IO_MAP_OF_DEVICES } else { layout::IO_MAP });
        vmcb.set64(MSRPM_BASE, vmcb.msr_map);
        vmcb.set32(ASID, 1);
        vmcb.set64(NESTED_CTL, 1);
        vmcb.set64(NESTED_CR3, nested_cr3);
        vmcb.set32(INT_CTL, vmcb.masking());
        vmcb.set_intercepts(&Intercepts::default(), false);
        vmcb
    }

    /// The VMCB at an address, with nothing in it yet.
    pub fn at(memory: Arc<Mapping>, address: u64) -> Self {
        Self { memory, address, msr_map: 0, mode: Mode::Guest }
    }

    /// Makes it the VMCB of a guest that only waits: an interrupt ends it and is not taken.
    pub fn wait(&self, nested_cr3: u64) {
        self.set32(ASID, 1);
        self.set64(NESTED_CTL, 1);
        self.set64(NESTED_CR3, nested_cr3);
        // INTR, NMI, shutdown; VMRUN, without which the CPU refuses the VMCB.
        self.set32(MISC1, 1 | 1 << 1 | 1 << 31);
        self.set32(MISC2, 1);
    }

    /// V_INTR_MASKING, which keeps interrupts from a guest that has no devices.
    fn masking(&self) -> u32 {
        if self.mode == Mode::Guest { 0 } else { V_INTR_MASKING }
    }

    /// Chooses the nested tables.
    pub fn set_root(&self, nested_cr3: u64) {
        self.set64(NESTED_CR3, nested_cr3);
    }

    pub fn get64(&self, offset: u64) -> u64 {
        self.memory.u64(self.address + offset).load(Relaxed)
    }

    pub fn set64(&self, offset: u64, value: u64) {
        self.memory.u64(self.address + offset).store(value, Relaxed);
    }

    fn get32(&self, offset: u64) -> u32 {
        self.memory.u32(self.address + offset).load(Relaxed)
    }

    fn set32(&self, offset: u64, value: u32) {
        self.memory.u32(self.address + offset).store(value, Relaxed);
    }

    /// Reads the private state.
    pub fn state(&self) -> PrivateState {
        let mut state = PrivateState::default();
        for (field, offset) in plain(&mut state).into_iter().zip(PLAIN) {
            *field = self.get64(SAVE + offset);
        }
        for (segment, offset) in segments(&mut state).into_iter().zip(SEGMENTS) {
            let word = self.get64(SAVE + offset);
            let [s0, s1, a0, a1, l0, l1, l2, l3] = word.to_le_bytes();
            let packed = u16::from_le_bytes([a0, a1]);
            *segment = Segment {
                base: self.get64(SAVE + offset + 8),
                limit: u32::from_le_bytes([l0, l1, l2, l3]),
                selector: u16::from_le_bytes([s0, s1]),
                attributes: packed & 0xff | (packed & 0xf00) << 4,
            };
        }
        // QEMU's LTR marks the descriptor in memory busy, but not the register: a task register in use is a busy one.
        if state.tr.attributes & 0x9f == 0x89 {
            state.tr.attributes |= 2;
        }
        let table = |offset| {
            let [_, _, _, _, l0, l1, _, _] = self.get64(offset).to_le_bytes();
            TableRegister { base: self.get64(offset + 8), limit: u16::from_le_bytes([l0, l1]) }
        };
        state.gdtr = table(GDTR);
        state.idtr = table(IDTR);
        state.efer = self.get64(EFER) & !EFER_SVME;
        state.cr8 = u64::from(self.get32(INT_CTL) & V_TPR);
        state
    }

    /// Writes the private state.
    pub fn set_state(&self, state: &PrivateState) {
        let mut state = *state;
        for (field, offset) in plain(&mut state).into_iter().zip(PLAIN) {
            self.set64(SAVE + offset, *field);
        }
        for (segment, offset) in segments(&mut state).into_iter().zip(SEGMENTS) {
            let packed = segment.attributes & 0xff | segment.attributes >> 4 & 0xf00;
            let word = u64::from(segment.selector) | u64::from(packed) << 16 | u64::from(segment.limit) << 32;
            self.set64(SAVE + offset, word);
            self.set64(SAVE + offset + 8, segment.base);
        }
        for (table, offset) in [(state.gdtr, GDTR), (state.idtr, IDTR)] {
            self.set64(offset, u64::from(table.limit) << 32);
            self.set64(offset + 8, table.base);
        }
        self.set64(EFER, state.efer | EFER_SVME);
        let task_priority = u32::try_from(state.cr8 & 0xf).unwrap_or(0);
        self.set32(INT_CTL, self.get32(INT_CTL) & !V_TPR | task_priority);
        self.memory.u8(self.address + CPL).store(state.cpl(), Relaxed);
    }

    /// Current privilege level.
    pub fn cpl(&self) -> u8 {
        self.memory.u8(self.address + CPL).load(Relaxed)
    }

    /// RIP.
    pub fn rip(&self) -> u64 {
        self.get64(RIP)
    }

    /// Moves RIP past an instruction and ends the interrupt shadow.
    pub fn advance(&self, len: u8) {
        self.set64(RIP, self.rip().wrapping_add(u64::from(len)));
        self.set64(INT_STATE, 0);
    }

    /// Sets or clears RFLAGS.TF.
    pub fn set_trap_flag(&self, on: bool) {
        self.set64(RFLAGS, self.get64(RFLAGS) & !0x100 | u64::from(on) << 8);
    }

    /// Writes the intercept bits and the MSR permission map.
    pub fn set_intercepts(&self, wanted: &Intercepts, single_step: bool) {
        let bit = |on: bool, shift: u32| u32::from(on) << shift;
        let cr_writes = bit(wanted.cr0_write, 0) | bit(wanted.cr3_write, 3) | bit(wanted.cr4_write, 4);
        for byte in 0..2 {
            let bits = cr_writes.to_le_bytes()[byte];
            self.memory.u8(self.address + CR_WRITES + byte as u64).store(bits, Relaxed);
        }
        self.set32(EXCEPTIONS, wanted.exceptions | bit(single_step, 1));
        let tables = bit(wanted.idtr_write, 10)
            | bit(wanted.gdtr_write, 11)
            | bit(wanted.ldtr_write, 12)
            | bit(wanted.tr_write, 13);
        // NMI, CPUID, RSM, INVD, HLT, INVLPGA, ports, MSRs, task switch, shutdown.
        let always = 1 << 1 | 1 << 18 | 1 << 19 | 1 << 22 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31;
        self.set32(MISC1, tables | always);
        // VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, MONITOR, MWAIT.
        self.set32(MISC2, 0x7f | 1 << 10 | 1 << 11);
        for byte in (0..0x2000).step_by(8) {
            let all = if self.mode == Mode::Guest { 0 } else { u64::MAX };
            self.memory.u64(self.msr_map + byte).store(all, Relaxed);
        }
        if self.mode == Mode::Guest {
            for number in STOPPING_MSRS {
                self.stop_at_msr(number, 3);
            }
        }
        for number in msr::PRIVATE {
            // EFER would show SVME, and QEMU keeps no guest PAT: both are carried out by the engine.
            if matches!(number, msr::EFER | msr::PAT) {
                continue;
            }
            let stops =
                u8::from(wanted.msr_reads.contains(&number)) | u8::from(wanted.msr_writes.contains(&number)) << 1;
            self.stop_at_msr(number, stops);
        }
    }

    /// Sets the bits of an MSR in the permission map: 1 for reads, 2 for writes.
    fn stop_at_msr(&self, number: u32, stops: u8) {
        let (base, first) = match number {
            0..0x2000 => (0, 0),
            0xc000_0000..0xc000_2000 => (0x800, 0xc000_0000),
            _ => (0x1000, 0xc001_0000),
        };
        let bit = u64::from(number - first) * 2;
        let cell = self.memory.u8(self.msr_map + base + bit / 8);
        cell.store(cell.load(Relaxed) & !(3 << (bit % 8)) | stops << (bit % 8), Relaxed);
    }

    /// Sets everything that has to be set anew for each entry.
    pub fn prepare(&self, event: Option<u64>, error: u32, interrupt: Option<u8>) {
        self.memory.u8(self.address + TLB_CONTROL).store(1, Relaxed);
        self.set64(EVENT_INJ, event.map_or(0, |event| event | u64::from(error) << 32));
        let control = self.get32(INT_CTL) & V_TPR | self.masking();
        match interrupt {
            Some(vector) => {
                self.set32(INT_CTL, control | V_IRQ | V_PRIORITY_15 | V_IGNORE_TPR);
                self.set32(INT_VECTOR, u32::from(vector));
            }
            None => self.set32(INT_CTL, control),
        }
    }

    /// Whether the interrupt asked for by `prepare` is still waiting.
    pub fn interrupt_waits(&self) -> bool {
        self.get32(INT_CTL) & V_IRQ != 0
    }

    /// The event whose delivery the exit cut short, in VMCB form with its error code; software interrupts are left out, for they are executed again.
    /// QEMU calls an interrupt from a device an exception there.
    pub fn cut_short(&self) -> Option<(u64, u32)> {
        let info = self.get64(EXIT_INT_INFO);
        let vector = info & 0xff;
        let (kind, info) = match info >> 8 & 7 {
            3 if vector >= 32 => (0, info & !(7 << 8)),
            kind => (kind, info),
        };
        let again = info & EVENT_VALID != 0 && (matches!(kind, 0 | 2) || (kind == 3 && !matches!(vector, 3 | 4)));
        again.then(|| (info & 0xffff_ffff, u32::try_from(info >> 32).unwrap_or(0)))
    }
}

/// An event in VMCB form, and its error code.
pub fn encode_event(event: Event) -> (u64, u32) {
    let kind = match event.kind {
        EventKind::Interrupt => 0,
        EventKind::Nmi => 2,
        EventKind::Exception => 3,
    };
    let has_error = if event.error_code.is_some() { EVENT_HAS_ERROR } else { 0 };
    (EVENT_VALID | has_error | kind << 8 | u64::from(event.vector), event.error_code.unwrap_or(0))
}
