//! The one error type of VTL1 and its single conversion to a Linux errno.
//!
//! Everything inside VTL1 that can fail because of what VTL0 asked returns [`VsmError`]. It becomes a number in
//! exactly one place, [`VsmError::errno`]; VTL0's driver sees that number, so the values are ABI (LVBS contract).

use thiserror::Error;
use vsm_integrity::heap::OutOfMemory;
use vsm_integrity::module::ModuleError;
use vsm_integrity::signature::{ErrorClass, SignatureError};

use crate::address::{AddressError, PhysAddr};
use crate::hv::HvStatus;
use crate::owner::Owner;
use crate::token::Token;

/// Makes [`Errno`] of a row for each errno: its variant, its name as Linux spells it, its number.
macro_rules! errnos {
    ($($(#[$doc:meta])* $variant:ident, $name:ident = $number:literal;)*) => {
        /// A Linux errno (`include/uapi/asm-generic/errno*.h`), as a positive number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum Errno {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Errno {
            /// All of them, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            $(
                #[doc = concat!("[`Self::", stringify!($variant), "`] as Linux spells it, for `errors(…)`.")]
                pub const $name: Self = Self::$variant;
            )*

            /// The name as Linux spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }
        }
    };
}

errnos! {
    /// Operation not permitted (here: not in this phase of the boot, or not from this processor).
    Eperm, EPERM = 1;
    /// No such entry.
    Enoent, ENOENT = 2;
    /// The hypervisor refused.
    Eio, EIO = 5;
    /// VTL1's memory is used up.
    Enomem, ENOMEM = 12;
    /// Permission denied.
    Eacces, EACCES = 13;
    /// Bad address.
    Efault, EFAULT = 14;
    /// Busy.
    Ebusy, EBUSY = 16;
    /// Invalid argument.
    Einval, EINVAL = 22;
    /// No space left: a bounded table is full.
    Enospc, ENOSPC = 28;
    /// Out of range.
    Erange, ERANGE = 34;
    /// No data: a module without a signature.
    Enodata, ENODATA = 61;
    /// A package is not installed: an algorithm that is not supported.
    Enopkg, ENOPKG = 65;
    /// Not a message: a broken signature container.
    Ebadmsg, EBADMSG = 74;
    /// Operation not supported (`EOPNOTSUPP`).
    Enotsup, ENOTSUP = 95;
    /// The time is over.
    Etimedout, ETIMEDOUT = 110;
    /// The key is not available: the signer is unknown.
    Enokey, ENOKEY = 126;
    /// The key was rejected: a signature that is wrong or forbidden.
    Ekeyrejected, EKEYREJECTED = 129;
}

impl Errno {
    /// The positive number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The result register's value for this errno: the negative number, sign-extended to 64 bits.
    #[must_use]
    pub const fn to_result(self) -> i64 {
        -(self as i64)
    }

    /// The errno of a call's result; `None` for a success, and for a number that is no errno of VTL1's.
    #[must_use]
    pub fn from_result(result: i64) -> Option<Self> {
        Self::ALL.iter().copied().find(|errno| errno.to_result() == result)
    }
}

/// Why a VSM call was refused or failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VsmError {
    /// The id is not one of the declared calls.
    #[error("function id {0:#x} is not a VSM call")]
    UnknownFunction(u64),
    /// The call is declared, but this build has no implementation of it.
    #[error("the call is not implemented")]
    NotImplemented,
    /// A call of the boot phase came after SignalEndOfBoot.
    #[error("the call is allowed before the end of boot only")]
    AfterEndOfBoot,
    /// A call of the run-time phase came before SignalEndOfBoot.
    #[error("the call is allowed after the end of boot only")]
    BeforeEndOfBoot,
    /// A call that only the boot processor may make came from another one.
    #[error("the call is allowed on the boot processor only, this is VP {0}")]
    NotBootProcessor(u32),
    /// VTL1 has panicked; nothing is served any more.
    #[error("VTL1 has failed and serves no calls")]
    Vtl1Failed,
    /// An address has bits set beyond what a physical address can have.
    #[error("{0:#x} is not a physical address")]
    InvalidPhysicalAddress(u64),
    /// A virtual address is not canonical.
    #[error("{0:#x} is not a canonical virtual address")]
    InvalidVirtualAddress(u64),
    /// An address that must be page-aligned is not.
    #[error("address {0:#x} is not page-aligned")]
    NotPageAligned(u64),
    /// A parameter that must be non-zero, within bounds, or free of undefined bits is not.
    #[error("parameter {name} has the invalid value {value:#x}")]
    InvalidParameter {
        /// The parameter's name in the call's documentation.
        name: &'static str,
        /// What VTL0 passed.
        value: u64,
    },
    /// A HEKI list breaks the rule named.
    #[error("list page {page}: {rule}")]
    InvalidList {
        /// Where the page lies.
        page: PhysAddr,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// A range of a HEKI list breaks the rule named.
    #[error("range {start:#x}..{end:#x}: {rule}")]
    InvalidRange {
        /// First byte.
        start: u64,
        /// First byte after it.
        end: u64,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// What a list is about (kernel data, a part of a module) breaks the rule named.
    #[error("{object}, at {at:#x}: {rule}")]
    InvalidObject {
        /// What it is about.
        object: &'static str,
        /// A virtual address where the rule is about one, otherwise an offset within what VTL0 sent.
        at: u64,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// What can be set once only has been set.
    #[error("{0} have been set already")]
    AlreadySet(&'static str),
    /// A range's attributes name no permission, or have undefined bits.
    #[error("attributes {0:#x} are not a permission")]
    InvalidAttributes(u64),
    /// VTL0 memory could not be read or written.
    #[error("VTL0 memory at {0} is not accessible")]
    Vtl0MemoryFault(PhysAddr),
    /// The frames belong to another owner.
    #[error("frame at {0} belongs to {1}")]
    FrameOwned(PhysAddr, Owner),
    /// A frame that is to be looked at in place can be changed by VTL0.
    #[error("frame at {0} is not frozen")]
    NotFrozen(PhysAddr),
    /// A frame would be writable and kernel-executable after the end of boot.
    #[error("frame at {0} would be writable and executable")]
    WriteAndExecute(PhysAddr),
    /// A signature, a certificate or a key is not accepted.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A module's memory or file is not what it must be; the log has said where and why.
    #[error("{0}")]
    Module(&'static str),
    /// The address is in no memory that VTL1 protects: VTL0 can write there itself.
    #[error("{0} is in no protected memory")]
    NotProtected(PhysAddr),
    /// A text patch breaks the rule named.
    #[error("patch at {at}: {rule}")]
    InvalidPatch {
        /// Where VTL0 wants to write.
        at: PhysAddr,
        /// The rule that was broken.
        rule: &'static str,
    },
    /// The token is that of no module.
    #[error("there is no module with token {0}")]
    NoSuchModule(Token),
    /// The module has been initialised: FreeModuleInit has come.
    #[error("module {0} has been initialised already")]
    ModuleInitialised(Token),
    /// A module's memory would lie where another one's is, in virtual memory.
    #[error("the module's memory overlaps that of module {0} in virtual memory")]
    ModuleOverlaps(Token),
    /// The module cannot go while another one uses it.
    #[error("module {0} is used by module {1}")]
    ModuleInUse(Token, Token),
    /// VTL1's heap or a bounded table is full.
    #[error("VTL1 has no memory left for {0}")]
    OutOfMemory(&'static str),
    /// The processor is not one of the possible ones.
    #[error("VP {0} is not a possible processor")]
    NoSuchProcessor(u32),
    /// A processor that was called has not come to VTL1 in time.
    #[error("VP {0} has not come to VTL1 in time")]
    ProcessorMissing(u32),
    /// A hypercall failed.
    #[error("hypercall {call:#06x} failed: {status}")]
    Hypercall {
        /// The hypercall's code (TLFS).
        call: u16,
        /// What the hypervisor answered.
        status: HvStatus,
    },
}

impl VsmError {
    /// The errno VTL0 gets. The values are those the LVBS driver already meets (LVBS contract §3, §5).
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::UnknownFunction(_)
            | Self::InvalidParameter { .. }
            | Self::NotPageAligned(_)
            | Self::InvalidObject { .. }
            | Self::InvalidAttributes(_)
            | Self::InvalidPatch { .. }
            | Self::Module(_)
            | Self::ModuleOverlaps(_)
            | Self::NoSuchModule(_)
            | Self::NoSuchProcessor(_) => Errno::Einval,
            Self::NotImplemented => Errno::Enotsup,
            Self::AfterEndOfBoot | Self::BeforeEndOfBoot | Self::NotBootProcessor(_) => Errno::Eperm,
            Self::InvalidPhysicalAddress(_)
            | Self::InvalidVirtualAddress(_)
            | Self::InvalidList { .. }
            | Self::InvalidRange { .. }
            | Self::Vtl0MemoryFault(_) => Errno::Efault,
            Self::FrameOwned(..) | Self::NotFrozen(_) | Self::WriteAndExecute(_) => Errno::Eacces,
            Self::AlreadySet(_) | Self::ModuleInitialised(_) | Self::ModuleInUse(..) => Errno::Ebusy,
            Self::NotProtected(_) => Errno::Enoent,
            Self::OutOfMemory(_) => Errno::Enomem,
            Self::ProcessorMissing(_) => Errno::Etimedout,
            Self::Signature(error) => match error.class() {
                ErrorClass::NoSignature => Errno::Enodata,
                ErrorClass::Unsupported => Errno::Enopkg,
                ErrorClass::BadMessage => Errno::Ebadmsg,
                ErrorClass::NoKey => Errno::Enokey,
                ErrorClass::Rejected => Errno::Ekeyrejected,
                ErrorClass::NoSpace => Errno::Enospc,
                ErrorClass::NoMemory => Errno::Enomem,
            },
            Self::Hypercall { .. } | Self::Vtl1Failed => Errno::Eio,
        }
    }
}

impl From<AddressError> for VsmError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::NotPhysical(raw) => Self::InvalidPhysicalAddress(raw),
            AddressError::NotPageAligned(raw) => Self::NotPageAligned(raw),
            AddressError::InvalidRange { start, end, rule } => Self::InvalidRange { start, end, rule },
        }
    }
}

impl From<OutOfMemory> for VsmError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory("the call")
    }
}

impl From<ModuleError> for VsmError {
    /// Keeps no more of it than its kind: the line about it is logged where the module is refused.
    fn from(error: ModuleError) -> Self {
        match error {
            ModuleError::OutOfMemory => Self::OutOfMemory("a module"),
            ModuleError::File(_) | ModuleError::Section { .. } => Self::Module("the module's file is not accepted"),
            ModuleError::Symbol { .. } => Self::Module("a symbol of the module is not accepted"),
            ModuleError::Memory { .. } => Self::Module("the module's ranges are not accepted"),
            ModuleError::Unexplained(_) => Self::Module("the module's memory is not what its file explains"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_negative_and_sign_extended() {
        assert_eq!(Errno::Einval.to_result(), -22);
        assert_eq!(u64::from_ne_bytes(Errno::Enotsup.to_result().to_ne_bytes()), 0xffff_ffff_ffff_ffa1);
    }

    #[test]
    fn each_errno_has_its_own_number_and_name() {
        for errno in Errno::ALL {
            assert_eq!(Errno::from_result(errno.to_result()), Some(*errno), "{}", errno.name());
        }
        assert!(Errno::ALL.is_sorted());
        assert_eq!(Errno::from_result(0), None);
        assert_eq!(Errno::from_result(-3), None);
        assert_eq!((Errno::EKEYREJECTED.number(), Errno::EKEYREJECTED.name()), (129, "EKEYREJECTED"));
    }
}
