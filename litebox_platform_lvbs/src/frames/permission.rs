//! What VTL0 may do with a frame: as HEKI names it, and as Hyper-V enforces it.
//!
//! What is trusted: nothing; attributes that come from VTL0 are checked by [`MemAttr::from_raw`].

use core::fmt;

use bitflags::bitflags;

use crate::error::VsmError;
use crate::hv::MapFlags;

bitflags! {
    /// Memory attributes of a HEKI range (Linux `include/linux/mem_attr.h`, `MEM_ATTR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MemAttr: u64 {
        /// `MEM_ATTR_READ`.
        const READ = 1;
        /// `MEM_ATTR_WRITE`.
        const WRITE = 2;
        /// `MEM_ATTR_EXEC`.
        const EXEC = 4;
        /// `MEM_ATTR_IMMUTABLE`: VTL0 does not mean to change the range again. A wish, not a permission.
        const IMMUTABLE = 8;
    }
}

impl MemAttr {
    /// Checks a range's attribute word.
    ///
    /// # Errors
    /// [`VsmError::InvalidAttributes`] when an undefined bit is set, or no permission is named (LVBS contract,
    /// PROTECT_MEMORY), or one without READ: the TLFS defines no writable or executable frame that is not readable.
    pub fn from_raw(raw: u64) -> Result<Self, VsmError> {
        Self::from_bits(raw)
            .filter(|attributes| attributes.contains(Self::READ))
            .ok_or(VsmError::InvalidAttributes(raw))
    }

    /// The permission these attributes stand for.
    #[must_use]
    pub fn permission(self) -> Permission {
        let pairs = [(Self::READ, Permission::READ), (Self::WRITE, Permission::WRITE), (Self::EXEC, Permission::EXEC)];
        pairs.into_iter().filter(|(attribute, _)| self.contains(*attribute)).map(|(_, permission)| permission).collect()
    }
}

bitflags! {
    /// What VTL0 may do with a frame.
    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Permission: u8 {
        /// VTL0 may read, and its user space may execute.
        const READ = 1;
        /// VTL0 may write.
        const WRITE = 2;
        /// VTL0's kernel may execute.
        const EXEC = 4;
    }
}

impl Permission {
    /// VTL0 cannot touch the frame.
    pub const NONE: Self = Self::empty();
    /// Read only.
    pub const R: Self = Self::READ;
    /// Data.
    pub const RW: Self = Self::READ.union(Self::WRITE);
    /// Kernel text.
    pub const RX: Self = Self::READ.union(Self::EXEC);
    /// Everything: what a frame has before VTL1 takes anything away.
    pub const ALL: Self = Self::READ.union(Self::WRITE).union(Self::EXEC);

    /// How Hyper-V is told: READ is R|UX, WRITE is W, EXEC is KX|UX (LVBS contract §5.1).
    ///
    /// User execute goes along with read because VTL0's own page tables decide what its user space may run, and
    /// because the TLFS leaves KX without UX undefined.
    #[must_use]
    pub fn map_flags(self) -> MapFlags {
        let mut flags = MapFlags::empty();
        if self.contains(Self::READ) {
            flags |= MapFlags::READ | MapFlags::USER_EXECUTE;
        }
        if self.contains(Self::WRITE) {
            flags |= MapFlags::WRITE;
        }
        if self.contains(Self::EXEC) {
            flags |= MapFlags::KERNEL_EXECUTE | MapFlags::USER_EXECUTE;
        }
        flags
    }

    /// Whether VTL0's kernel could write code and run it.
    #[must_use]
    pub const fn is_write_and_execute(self) -> bool {
        self.contains(Self::WRITE.union(Self::EXEC))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::EXEC, "x")] {
            f.write_str(if self.contains(flag) { letter } else { "-" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_flags_are_those_of_the_contract() {
        let flags = |permission: Permission| permission.map_flags().bits();
        assert_eq!(flags(Permission::NONE), 0);
        assert_eq!(flags(Permission::R), 0x9);
        assert_eq!(flags(Permission::RW), 0xb);
        assert_eq!(flags(Permission::RX), 0xd);
        assert_eq!(flags(Permission::ALL), 0xf);
    }

    #[test]
    fn every_permission_that_attributes_can_name_is_one_the_tlfs_defines() {
        for attributes in (0..16).filter_map(|raw| MemAttr::from_raw(raw).ok()) {
            assert!(attributes.permission().map_flags().is_defined(), "{attributes:?}");
        }
    }

    #[test]
    fn attributes_must_name_a_permission_and_nothing_undefined() {
        for raw in [0, 2, 4, 6, 8, 0xe, 0x10, 0x11, 1 << 63, u64::MAX] {
            assert_eq!(MemAttr::from_raw(raw), Err(VsmError::InvalidAttributes(raw)));
        }
        assert_eq!(MemAttr::from_raw(0xf).unwrap().permission(), Permission::ALL);
        assert_eq!(MemAttr::from_raw(0x9).unwrap().permission(), Permission::R);
        assert_eq!(MemAttr::from_raw(0x7).unwrap().permission(), Permission::ALL);
        assert_eq!(MemAttr::from_raw(0x5).unwrap().permission(), Permission::RX);
    }
}
