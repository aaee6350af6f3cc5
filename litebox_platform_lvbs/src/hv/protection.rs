//! What a VTL may do with a frame (TLFS "Memory Access Protections", `HV_MAP_GPA_FLAGS`).

use bitflags::bitflags;
use core::fmt;

bitflags! {
    /// Access rights a higher VTL leaves to a lower one for a frame; also the map flags of
    /// HvCallModifyVtlProtectionMask. The empty set means no access.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct MapFlags: u32 {
        /// Reading.
        const READ = 1;
        /// Writing.
        const WRITE = 2;
        /// Instruction fetches in kernel mode (KMX); without MBEC, in any mode.
        const KERNEL_EXECUTE = 4;
        /// Instruction fetches in user mode (UMX); ignored without MBEC.
        const USER_EXECUTE = 8;
    }
}

impl MapFlags {
    /// No access at all.
    pub const NONE: Self = Self::empty();
    /// Readable, executable by user mode only: 0x9 (LVBS contract: every readable page stays user-executable).
    pub const READ_ONLY: Self = Self::READ.union(Self::USER_EXECUTE);
    /// Readable and writable, executable by user mode only: 0xB.
    pub const READ_WRITE: Self = Self::READ_ONLY.union(Self::WRITE);
    /// Readable and executable: 0xD.
    pub const READ_EXECUTE: Self = Self::READ_ONLY.union(Self::KERNEL_EXECUTE);
    /// Everything: 0xF.
    pub const ALL: Self = Self::all();

    /// Whether TLFS says what the combination does.
    ///
    /// The types of protection it lists are: no access, or readable with any of writable and executable; and with MBEC
    /// every combination of KMX and UMX except KMX without UMX, which is undefined.
    #[must_use]
    pub const fn is_defined(self) -> bool {
        let executes = !self.contains(Self::KERNEL_EXECUTE) || self.contains(Self::USER_EXECUTE);
        self.is_empty() || executes && self.contains(Self::READ)
    }

    /// Whether kernel mode could change the frame's bytes and then execute them.
    #[must_use]
    pub const fn is_write_and_kernel_execute(self) -> bool {
        self.contains(Self::WRITE.union(Self::KERNEL_EXECUTE))
    }
}

impl fmt::Display for MapFlags {
    /// Four letters in the order R, W, K (kernel execute), U (user execute); `-` where the right is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, letter) in
            [(Self::READ, 'R'), (Self::WRITE, 'W'), (Self::KERNEL_EXECUTE, 'K'), (Self::USER_EXECUTE, 'U')]
        {
            write!(f, "{}", if self.contains(flag) { letter } else { '-' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_protections_have_the_contracts_numbers() {
        assert_eq!(MapFlags::READ_ONLY.bits(), 0x9);
        assert_eq!(MapFlags::READ_WRITE.bits(), 0xb);
        assert_eq!(MapFlags::READ_EXECUTE.bits(), 0xd);
        assert_eq!(MapFlags::ALL.bits(), 0xf);
        assert_eq!(MapFlags::READ_EXECUTE.to_string(), "R-KU");
    }

    #[test]
    fn seven_combinations_are_defined() {
        let defined: Vec<u32> = (0..16).filter(|bits| MapFlags::from_bits_retain(*bits).is_defined()).collect();
        assert_eq!(defined, [0x0, 0x1, 0x3, 0x9, 0xb, 0xd, 0xf]);
    }
}
