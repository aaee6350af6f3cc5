//! What VTL1 says about itself to VTL0: the structure that Query writes.
//!
//! A VTL0 was built against some version of the ABI and meets another. The structure only grows, and says how long it is.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::function::VSM_BASE;
use super::row::{CallRow, PhaseRule};
use crate::phase::Phase;

/// `struct vsm_query`, 56 bytes. Bit n of a mask is for the call with id `base + n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QueryAnswer {
    /// Bytes of the structure as this VTL1 has it.
    pub size: u32,
    /// Version of the ABI: raised with every change that VTL0 can see.
    pub version: u32,
    /// A number for all that VTL0 can see of the table: the same as in a VTL0's header exactly if nothing differs.
    pub hash: u64,
    /// Id of the first call.
    pub base: u64,
    /// Calls that do not answer -ENOTSUP.
    pub supported: u64,
    /// Calls that may be made before the end of boot.
    pub boot: u64,
    /// Calls that may be made after it.
    pub runtime: u64,
    /// 0 before the end of boot, 1 after it.
    pub phase: u32,
    /// 0.
    pub pad: u32,
}

/// Bytes of the structure.
const SIZE: u32 = 56;

const _: () = assert!(size_of::<QueryAnswer>() == SIZE as usize && offset_of!(QueryAnswer, phase) == 48);

impl QueryAnswer {
    /// What there is to say of `rows`, whose version and hash these are, in `phase`.
    #[must_use]
    pub fn new(rows: &[CallRow], version: u32, hash: u64, phase: Phase) -> Self {
        let mut answer = Self {
            size: SIZE,
            version,
            hash,
            base: VSM_BASE,
            phase: u32::from(phase == Phase::Runtime),
            ..Self::default()
        };
        for row in rows {
            let bit = 1 << row.function.index();
            if row.meta.implemented {
                answer.supported |= bit;
            }
            if matches!(row.meta.phase, PhaseRule::Boot | PhaseRule::Any) {
                answer.boot |= bit;
            }
            if matches!(row.meta.phase, PhaseRule::Runtime | PhaseRule::Any) {
                answer.runtime |= bit;
            }
        }
        answer
    }
}
