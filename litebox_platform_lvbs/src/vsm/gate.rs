//! Who may make which call when, as data tested before a handler runs.
//!
//! The masks are computed at compile time from what each handler's attribute says. No row sets the bits of the table's
//! reserved places, so those are closed in every phase.

use super::context::CallContext;
use super::row::{CallRow, CallerRule, PhaseRule};
use super::table::TableIndex;
use crate::error::VsmError;
use crate::phase::Phase;
use crate::platform::Platform;

/// The rules of all calls; bit n of a mask is for the call at index n of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// May run before the end of boot.
    boot: u64,
    /// May run after the end of boot.
    runtime: u64,
    /// May come from a processor other than the boot processor.
    any_vp: u64,
}

impl Gate {
    /// The gate of the rows.
    #[must_use]
    pub const fn new(rows: &[CallRow]) -> Self {
        let mut gate = Self { boot: 0, runtime: 0, any_vp: 0 };
        let mut rest = rows;
        while let [row, tail @ ..] = rest {
            let bit = 1 << row.function.index();
            match row.meta.phase {
                PhaseRule::Boot => gate.boot |= bit,
                PhaseRule::Runtime => gate.runtime |= bit,
                PhaseRule::Any => {
                    gate.boot |= bit;
                    gate.runtime |= bit;
                }
            }
            match row.meta.caller {
                CallerRule::Bsp => {}
                CallerRule::Any => gate.any_vp |= bit,
            }
            rest = tail;
        }
        gate
    }

    /// Admits the call at `index`, made by processor `vp`. The end of boot waits as long as the context of a call lives that
    /// may run in the boot phase only.
    ///
    /// # Errors
    /// [`VsmError::AfterEndOfBoot`], [`VsmError::BeforeEndOfBoot`], [`VsmError::NotBootProcessor`];
    /// [`VsmError::UnknownFunction`] at an index that no call has.
    #[inline]
    pub fn admit<'a>(&self, platform: &'a Platform, vp: u32, index: TableIndex) -> Result<CallContext<'a>, VsmError> {
        let bit = index.bit();
        let phase = &platform.vtl0().phase;
        let boot_call = match (self.boot & bit != 0, self.runtime & bit != 0) {
            (false, false) => return Err(VsmError::UnknownFunction(index.id())),
            (true, false) => Some(phase.enter_boot_call()?),
            (false, true) if phase.get() == Phase::Boot => return Err(VsmError::BeforeEndOfBoot),
            (_, true) => None,
        };
        if self.any_vp & bit == 0 && vp != platform.config().boot_vp {
            return Err(VsmError::NotBootProcessor(vp));
        }
        Ok(CallContext { platform, vp, boot_call })
    }
}
