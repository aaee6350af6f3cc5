//! Hypercall status codes (TLFS appendix "Hypercall Status Codes").
//!
//! An open number: a hypervisor may answer with a code this list doesn't have, and that is a failure like any other.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A hypercall's status code. Only [`HvStatus::SUCCESS`] is a success.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct HvStatus(pub u16);

macro_rules! statuses {
    ($($name:ident = $value:literal: $text:literal;)*) => {
        impl HvStatus {
            $(
                #[doc = $text]
                pub const $name: Self = Self($value);
            )*

            /// The name without TLFS's `HV_STATUS_` prefix, if the code is a known one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0x0000: "The hypercall did what was asked.";
    INVALID_HYPERCALL_CODE = 0x0002: "The call code is not a hypercall.";
    INVALID_HYPERCALL_INPUT = 0x0003: "The control word breaks a rule (rep counts, reserved bits, variable header).";
    INVALID_ALIGNMENT = 0x0004: "An input or output address is not 8-byte aligned, or the block crosses a page.";
    INVALID_PARAMETER = 0x0005: "A parameter has a value that is not defined.";
    ACCESS_DENIED = 0x0006: "The caller lacks the privilege.";
    INVALID_PARTITION_STATE = 0x0007: "The partition is in a state that does not allow the operation.";
    OPERATION_DENIED = 0x0008: "The operation is not allowed.";
    UNKNOWN_PROPERTY = 0x0009: "No such property.";
    PROPERTY_VALUE_OUT_OF_RANGE = 0x000a: "The property's value is out of range.";
    INSUFFICIENT_MEMORY = 0x000b: "The hypervisor's memory pool is used up.";
    INVALID_PARTITION_ID = 0x000d: "No such partition.";
    INVALID_VP_INDEX = 0x000e: "No such virtual processor.";
    NOT_FOUND = 0x0010: "No such object.";
    INVALID_PORT_ID = 0x0011: "No such port.";
    INVALID_CONNECTION_ID = 0x0012: "No such connection.";
    INSUFFICIENT_BUFFERS = 0x0013: "No buffer is free.";
    NOT_ACKNOWLEDGED = 0x0014: "The previous request has not been acknowledged.";
    INVALID_VP_STATE = 0x0015: "The virtual processor is in a state that does not allow the operation.";
    INVALID_SYNIC_STATE = 0x0018: "The SynIC is not in a state that allows the operation.";
    OBJECT_IN_USE = 0x0019: "The object is in use.";
    NO_RESOURCES = 0x001d: "Something needed is not available.";
    FEATURE_UNAVAILABLE = 0x001e: "The processor lacks the feature.";
    INVALID_REGISTER_VALUE = 0x0050: "The value is not one the register can take.";
    INVALID_VTL_STATE = 0x0051: "The VTL is not in a state that allows the operation.";
    TIMEOUT = 0x0078: "The operation took too long.";
    VTL_ALREADY_ENABLED = 0x0086: "The VTL is enabled already.";
}

impl HvStatus {
    /// Whether the hypercall succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == Self::SUCCESS.0
    }

    /// Whether the hypervisor lacked something to do what was asked, which says nothing about the request.
    #[must_use]
    pub const fn is_lack(self) -> bool {
        matches!(self, Self::INSUFFICIENT_MEMORY | Self::INSUFFICIENT_BUFFERS | Self::NO_RESOURCES | Self::TIMEOUT)
    }

    /// `Ok` for a success, the status itself otherwise.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for HvStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.name().unwrap_or("unknown status"), self.0)
    }
}

impl fmt::Debug for HvStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for HvStatus {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_by_name_and_number() {
        assert_eq!(HvStatus::ACCESS_DENIED.to_string(), "ACCESS_DENIED (0x6)");
        assert_eq!(HvStatus(0x1234).to_string(), "unknown status (0x1234)");
        assert_eq!(HvStatus(0).ok(), Ok(()));
        assert_eq!(HvStatus(5).ok(), Err(HvStatus::INVALID_PARAMETER));
    }
}
