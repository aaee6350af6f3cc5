//! OP-TEE's message interface as VTL0's driver speaks it: registers, function numbers, return codes.
//!
//! On Arm these are the registers of an SMC; over a VTL call they lie in a page (LVBS contract §5.13). The numbers are
//! those of Linux `drivers/tee/optee/optee_smc.h` and `optee_msg.h`. Any bytes are valid registers: the trusted operating
//! system judges what they ask for.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The registers a0 to a8, 72 bytes at the start of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SmcRegisters(pub [u64; 9]);

const _: () = assert!(size_of::<SmcRegisters>() == 72);

impl SmcRegisters {
    /// The function asked for: the low 16 bits of a0; the others are ignored (LVBS contract §5.13).
    #[must_use]
    pub fn function(&self) -> SmcFunction {
        let [a0, ..] = self.0;
        SmcFunction(u16::try_from(a0 & 0xffff).unwrap_or(u16::MAX))
    }

    /// The registers after an answer: a0 to a3 are the answer's, the others stay as they were.
    #[must_use]
    pub fn answered(self, answer: SmcAnswer) -> Self {
        let [.., a4, a5, a6, a7, a8] = self.0;
        let [a0, a1, a2, a3] = answer.0;
        Self([a0, a1, a2, a3, a4, a5, a6, a7, a8])
    }
}

/// The number of a function, without the bits that say, on Arm, how it is called and who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SmcFunction(pub u16);

impl SmcFunction {
    /// The UUID of the trusted operating system.
    pub const GET_OS_UUID: Self = Self(0);
    /// Its revision.
    pub const GET_OS_REVISION: Self = Self(1);
    /// A message whose parameters lie in memory.
    pub const CALL_WITH_ARG: Self = Self(4);
    /// Each side announces its capabilities.
    pub const EXCHANGE_CAPABILITIES: Self = Self(9);
    /// Gives back one piece of shared memory that the other side keeps; not available when there is none.
    pub const DISABLE_SHM_CACHE: Self = Self(10);
    /// As [`Self::CALL_WITH_ARG`], with room for requests the other way.
    pub const CALL_WITH_RPC_ARG: Self = Self(0x12);
    /// As [`Self::CALL_WITH_RPC_ARG`], in registered memory.
    pub const CALL_WITH_REGD_ARG: Self = Self(0x13);
    /// The UUID of the interface.
    pub const CALLS_UID: Self = Self(0xff01);
    /// Its revision.
    pub const CALLS_REVISION: Self = Self(0xff03);
}

/// What comes back in a0 to a3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmcAnswer([u64; 4]);

impl SmcAnswer {
    /// `OPTEE_SMC_RETURN_ENOTAVAIL`: not available.
    pub const NOT_AVAILABLE: Self = Self([7, 0, 0, 0]);

    /// `OPTEE_SMC_RETURN_OK`, with three results.
    #[must_use]
    pub const fn ok(results: [u64; 3]) -> Self {
        let [a1, a2, a3] = results;
        Self([0, a1, a2, a3])
    }

    /// A revision: it has no return code, and is never refused.
    #[must_use]
    pub fn revision(major: u32, minor: u32) -> Self {
        Self([major.into(), minor.into(), 0, 0])
    }

    /// A UUID, as four words of 32 bits; it has no return code either.
    #[must_use]
    pub fn uuid(words: [u32; 4]) -> Self {
        Self(words.map(u64::from))
    }

    /// The registers.
    #[must_use]
    pub const fn registers(self) -> [u64; 4] {
        self.0
    }
}

/// UUID of the interface, 384fb3e0-e7f8-11e3-af63-0002a5d5c51b (`OPTEE_MSG_UID_*`).
pub const INTERFACE_UUID: [u32; 4] = [0x384f_b3e0, 0xe7f8_11e3, 0xaf63_0002, 0xa5d5_c51b];

/// Revision of the interface, major and minor (`OPTEE_MSG_REVISION_*`).
pub const INTERFACE_REVISION: (u32, u32) = (2, 0);

/// What VTL0 may say about itself in EXCHANGE_CAPABILITIES: that it has one processor (`OPTEE_SMC_NSEC_CAP_UNIPROCESSOR`).
pub const VTL0_UNIPROCESSOR: u64 = 1 << 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_the_low_sixteen_bits() {
        for (a0, function) in [
            (0, SmcFunction::GET_OS_UUID),
            (0x3200_0004, SmcFunction::CALL_WITH_ARG),
            (0xbf00_ff01, SmcFunction::CALLS_UID),
            (0xffff_ffff_ffff_0009, SmcFunction::EXCHANGE_CAPABILITIES),
        ] {
            let registers = SmcRegisters([a0, 1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(registers.function(), function);
            assert_eq!(registers.answered(SmcAnswer::ok([0xa, 0xb, 0xc])).0, [0, 0xa, 0xb, 0xc, 4, 5, 6, 7, 8]);
        }
    }
}
