//! The control registers of a VTL0 processor that LockRegs pins, and the values they had when it did.
//!
//! The values come from the hypervisor, not from VTL0 memory; they are trusted as what VTL0 had before the end of
//! its boot.

use crate::hv::HvRegisterName;

/// Number of registers LockRegs records.
pub const LOCKED_REGISTER_COUNT: usize = 11;

/// The registers that LockRegs records, by name (LVBS contract §5.3, LOCK_REGS).
pub const LOCKED_REGISTERS: [HvRegisterName; LOCKED_REGISTER_COUNT] = [
    HvRegisterName::CR0,
    HvRegisterName::CR4,
    HvRegisterName::LSTAR,
    HvRegisterName::STAR,
    HvRegisterName::CSTAR,
    HvRegisterName::APIC_BASE,
    HvRegisterName::EFER,
    HvRegisterName::SYSENTER_CS,
    HvRegisterName::SYSENTER_ESP,
    HvRegisterName::SYSENTER_EIP,
    HvRegisterName::SFMASK,
];

/// The values of [`LOCKED_REGISTERS`] on one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegMap {
    values: [u64; LOCKED_REGISTER_COUNT],
}

impl ControlRegMap {
    /// The map with these values, in the order of [`LOCKED_REGISTERS`].
    #[must_use]
    pub const fn new(values: [u64; LOCKED_REGISTER_COUNT]) -> Self {
        Self { values }
    }

    /// The recorded value of `register`; `None` if it is not one of those recorded.
    #[must_use]
    pub fn get(&self, register: HvRegisterName) -> Option<u64> {
        self.iter().find(|(name, _)| *name == register).map(|(_, value)| value)
    }

    /// All registers with their values.
    pub fn iter(&self) -> impl Iterator<Item = (HvRegisterName, u64)> + '_ {
        LOCKED_REGISTERS.into_iter().zip(self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_register() {
        let map = ControlRegMap::new([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(map.get(HvRegisterName::CR0), Some(1));
        assert_eq!(map.get(HvRegisterName::SYSENTER_ESP), Some(9));
        assert_eq!(map.get(HvRegisterName::SFMASK), Some(11));
        assert_eq!(map.get(HvRegisterName::CR3), None);
    }
}
