//! What is locked of VTL0's registers: which writes are intercepted, which bits are pinned, what processors have in common.
//!
//! A table of all of it, with who in Linux writes what: docs/src/processors.md.

use litebox_platform_lvbs::hv::{CrInterceptControl, HvRegisterName};
use litebox_platform_lvbs::vtl0::control_regs::{ALWAYS_LOCKED_COUNT, LOCKED_REGISTER_COUNT};

/// The accesses VTL1 hears of on every hypervisor: all writes of the registers that are recorded, and of three of the four
/// descriptor table registers (LVBS contract, LOCK_REGS: 0x7FD543, which has LDTR too).
///
/// LDTR is VTL0's. Linux loads it whenever it switches to or from a process that has used modify_ldt, which needs no
/// privilege: a #GP there would let any user kill the guest. And it would protect nothing. LDTs and the GDT lie in memory
/// that VTL0 writes, so that an entry can change without a load; the most that one can do, a call gate, is to lead to ring 0,
/// where the code that writes the table runs already, and VTL1's permissions hold there.
const INTERCEPTS: CrInterceptControl = CrInterceptControl::CR0_WRITE
    .union(CrInterceptControl::CR4_WRITE)
    .union(CrInterceptControl::LSTAR_WRITE)
    .union(CrInterceptControl::STAR_WRITE)
    .union(CrInterceptControl::CSTAR_WRITE)
    .union(CrInterceptControl::APIC_BASE_WRITE)
    .union(CrInterceptControl::EFER_WRITE)
    .union(CrInterceptControl::GDTR_WRITE)
    .union(CrInterceptControl::IDTR_WRITE)
    .union(CrInterceptControl::TR_WRITE)
    .union(CrInterceptControl::SYSENTER_CS_WRITE)
    .union(CrInterceptControl::SYSENTER_EIP_WRITE)
    .union(CrInterceptControl::SYSENTER_ESP_WRITE)
    .union(CrInterceptControl::SFMASK_WRITE);

/// The descriptor table registers among them, of which every load is a violation.
pub(super) const TABLES: [HvRegisterName; 3] = [HvRegisterName::GDTR, HvRegisterName::IDTR, HvRegisterName::TR];

/// What is locked beyond the contract's registers, where the hypervisor lets VTL1 (LVBS contract §7, CrInterceptControl).
/// Linux leaves them alone once a processor is up: XCR0 and TSC_AUX get the same value again when a processor comes back,
/// and of IA32_MISC_ENABLE one bit is pinned. S_CET is not among them, because Linux turns its endbranch tracking off and
/// on around calls to firmware.
const OPTIONAL: [(HvRegisterName, CrInterceptControl); 3] = [
    (HvRegisterName::XFEM, CrInterceptControl::XCR0_WRITE),
    (HvRegisterName::TSC_AUX, CrInterceptControl::TSC_AUX_WRITE),
    (HvRegisterName::MISC_ENABLE, CrInterceptControl::IA32_MISC_ENABLE_WRITE),
];

/// Those of [`OPTIONAL`] that Linux switches between itself and virtual machines of its own: KVM has no way to bear a #GP
/// there. Left to VTL0 where the processors offer virtualization.
pub(super) const SWITCHED_FOR_GUESTS: u8 = 0b011;

/// Which of [`OPTIONAL`] to try to lock, bit by bit, one attempt after the other: nothing tells beforehand what a
/// hypervisor can intercept (HvRegisterVsmCapabilities does not), or has at all. What one processor was granted is tried
/// first on the others.
pub(super) const ATTEMPTS: [u8; 8] = [0b111, 0b110, 0b011, 0b101, 0b010, 0b001, 0b100, 0b000];

/// Pinned bits of CR0: PE, WP, PG (Intel SDM vol. 3 §2.5; LVBS contract).
const CR0_PINNED: u64 = 1 | 1 << 16 | 1 << 31;

/// Pinned bits of CR4: all but TSD, MCE, PGE, PCE and VMXE (Intel SDM vol. 3 §2.5; LVBS contract). Linux switches TSD from
/// process to process, for prctl(PR_SET_TSC) and strict seccomp; it says who may read the time stamp counter, no more.
const CR4_PINNED: u64 = !(1 << 2 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 13);

/// Pinned bit of IA32_MISC_ENABLE: XD disable, which would make every page executable (Intel SDM vol. 4, MSR 1A0h).
const MISC_ENABLE_PINNED: u64 = 1 << 34;

/// The bits of a locked register that VTL0 cannot change.
pub(crate) const fn pinned(register: HvRegisterName) -> u64 {
    match register {
        HvRegisterName::CR0 => CR0_PINNED,
        HvRegisterName::CR4 => CR4_PINNED,
        HvRegisterName::MISC_ENABLE => MISC_ENABLE_PINNED,
        _ => u64::MAX,
    }
}

const _: () = assert!(INTERCEPTS.bits() == 0x7d_d543);
const _: () = assert!(CR0_PINNED == 0x8001_0001 && CR4_PINNED == 0xffff_ffff_ffff_de3b);
const _: () = assert!(ALWAYS_LOCKED_COUNT + OPTIONAL.len() == LOCKED_REGISTER_COUNT);

/// What one attempt locks.
#[derive(Clone, Copy)]
pub(super) struct Attempt(pub(super) u8);

impl Attempt {
    /// Those of [`OPTIONAL`] that it has.
    pub(super) fn optional(self) -> impl Iterator<Item = (HvRegisterName, CrInterceptControl)> {
        (0..).zip(OPTIONAL).filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, optional)| optional)
    }

    /// Whether it locks `register`, one of [`LOCKED_REGISTERS`].
    pub(super) fn has(self, register: HvRegisterName) -> bool {
        let is = |(name, _): &(HvRegisterName, CrInterceptControl)| *name == register;
        !OPTIONAL.iter().any(is) || self.optional().any(|optional| is(&optional))
    }

    /// What makes the hypervisor intercept: names, values, and how many they are. The control word comes last: until it is
    /// written the masks mean nothing.
    pub(super) fn controls(self) -> ([(HvRegisterName, u64); 4], usize) {
        let intercepts = self.optional().fold(INTERCEPTS, |all, (_, intercept)| all.union(intercept));
        let control = (HvRegisterName::CR_INTERCEPT_CONTROL, intercepts.bits());
        let [cr0, cr4] =
            [(HvRegisterName::CR_INTERCEPT_CR0_MASK, CR0_PINNED), (HvRegisterName::CR_INTERCEPT_CR4_MASK, CR4_PINNED)];
        if self.has(HvRegisterName::MISC_ENABLE) {
            ([cr0, cr4, (HvRegisterName::CR_INTERCEPT_IA32_MISC_ENABLE_MASK, MISC_ENABLE_PINNED), control], 4)
        } else {
            ([cr0, cr4, control, control], 3)
        }
    }
}

/// The bits of a register that all processors of a Linux machine have in common, of those that are pinned.
pub(super) const fn common(register: HvRegisterName) -> u64 {
    match register {
        // A processor's own: its stack, its number. XCR0 its VTLs share, and VTL1 does not depend on it.
        HvRegisterName::SYSENTER_ESP | HvRegisterName::TSC_AUX | HvRegisterName::XFEM => 0,
        // But that it is the boot processor (Intel SDM vol. 3 §12.4.4).
        HvRegisterName::APIC_BASE => !(1 << 8),
        _ => pinned(register),
    }
}

/// A register's value `now`, with the bits that all processors have in common as `expected`.
pub(super) const fn merged(register: HvRegisterName, now: u64, expected: u64) -> u64 {
    let common = common(register);
    now & !common | expected & common
}
