//! The control registers of a VTL0 processor that LockRegs pins, and the values they had when it did.
//!
//! The values come from the hypervisor, not from VTL0 memory; they are trusted as what VTL0 had before the end of
//! its boot.

use crate::hv::HvRegisterName;

/// Number of registers LockRegs records.
pub const LOCKED_REGISTER_COUNT: usize = 14;
/// Number of them that are locked on every hypervisor; the rest where it lets VTL1.
pub const ALWAYS_LOCKED_COUNT: usize = 11;

/// The registers that LockRegs records, by name: those of the LVBS contract (§5.3, LOCK_REGS), then those locked where that
/// is possible.
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
    HvRegisterName::XFEM,
    HvRegisterName::TSC_AUX,
    HvRegisterName::MISC_ENABLE,
];

/// The values of those [`LOCKED_REGISTERS`] that are locked on one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegMap {
    values: [Option<u64>; LOCKED_REGISTER_COUNT],
}

impl ControlRegMap {
    /// The map with these values, in the order of [`LOCKED_REGISTERS`].
    #[must_use]
    pub fn new(values: [u64; LOCKED_REGISTER_COUNT]) -> Self {
        Self { values: values.map(Some) }
    }

    /// The map with these registers only. What is not one of [`LOCKED_REGISTERS`] is left out.
    #[must_use]
    pub fn of(recorded: impl IntoIterator<Item = (HvRegisterName, u64)>) -> Self {
        let mut values = [None; LOCKED_REGISTER_COUNT];
        for (register, value) in recorded {
            let slot = LOCKED_REGISTERS.iter().zip(&mut values).find(|(name, _)| **name == register);
            if let Some((_, slot)) = slot {
                *slot = Some(value);
            }
        }
        Self { values }
    }

    /// The recorded value of `register`; `None` if it is not one of those recorded.
    #[must_use]
    pub fn get(&self, register: HvRegisterName) -> Option<u64> {
        self.iter().find(|(name, _)| *name == register).map(|(_, value)| value)
    }

    /// All registers that are recorded, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (HvRegisterName, u64)> + '_ {
        LOCKED_REGISTERS.into_iter().zip(self.values).filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_register() {
        let map = ControlRegMap::new([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(map.get(HvRegisterName::CR0), Some(1));
        assert_eq!(map.get(HvRegisterName::SYSENTER_ESP), Some(9));
        assert_eq!(map.get(HvRegisterName::SFMASK), Some(11));
        assert_eq!(map.get(HvRegisterName::MISC_ENABLE), Some(14));
        assert_eq!(map.get(HvRegisterName::CR3), None);
        assert_eq!(map.iter().count(), LOCKED_REGISTER_COUNT);
    }

    #[test]
    fn what_is_not_recorded_has_no_value() {
        let map = ControlRegMap::of([(HvRegisterName::TSC_AUX, 7), (HvRegisterName::CR3, 8)]);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(HvRegisterName::TSC_AUX, 7)]);
        assert_eq!(map.get(HvRegisterName::CR0), None);
    }
}
