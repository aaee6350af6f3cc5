//! Who may make which call when, as data tested before a handler runs.
//!
//! The masks are computed at compile time from what each handler's attribute says. A bit that nobody set refuses:
//! the reserved places of the table are closed in every phase.

use super::function::{VSM_TABLE_LEN, VsmFunction};
use super::handler::CallRow;
use crate::error::VsmError;
use crate::phase::Phase;

/// When a call may be made. There is no default: each handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PhaseRule {
    /// Before the end of boot only.
    Boot,
    /// After the end of boot only.
    Runtime,
    /// In both phases.
    Any,
}

impl PhaseRule {
    /// The name as the attribute spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Runtime => "runtime",
            Self::Any => "any",
        }
    }
}

/// Which processors may make a call. There is no default: each handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerRule {
    /// The processor that booted VTL1 only.
    Bsp,
    /// Every processor.
    Any,
}

impl CallerRule {
    /// The name as the attribute spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bsp => "bsp",
            Self::Any => "any",
        }
    }
}

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

const _: () = assert!(VSM_TABLE_LEN <= 64, "a gate mask has 64 bits");

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

    /// Whether the call at `index` may run in `phase`, made by `vp` where the boot processor is `boot_vp`.
    ///
    /// # Errors
    /// [`VsmError::AfterEndOfBoot`], [`VsmError::BeforeEndOfBoot`], [`VsmError::NotBootProcessor`];
    /// [`VsmError::UnknownFunction`] at an index that no call has.
    #[inline]
    pub const fn admit(&self, index: usize, phase: Phase, vp: u32, boot_vp: u32) -> Result<(), VsmError> {
        let bit = Self::bit(index);
        if (self.boot | self.runtime) & bit == 0 {
            return Err(VsmError::UnknownFunction(VsmFunction::id_at(index)));
        }
        match phase {
            Phase::Boot if self.boot & bit == 0 => return Err(VsmError::BeforeEndOfBoot),
            Phase::Runtime if self.runtime & bit == 0 => return Err(VsmError::AfterEndOfBoot),
            Phase::Boot | Phase::Runtime => {}
        }
        if self.any_vp & bit == 0 && vp != boot_vp {
            return Err(VsmError::NotBootProcessor(vp));
        }
        Ok(())
    }

    /// Whether the call at `index` may run in the boot phase only, so that the boot must not end under it.
    #[inline]
    #[must_use]
    pub const fn needs_boot_call(&self, index: usize) -> bool {
        self.boot & !self.runtime & Self::bit(index) != 0
    }

    /// The mask bit of `index`; no bit at all beyond the masks.
    const fn bit(index: usize) -> u64 {
        if index < VSM_TABLE_LEN { 1 << index } else { 0 }
    }
}
