//! Somebody who is told what a processor does: why it stopped, and when its VTLs change. For figures and reports; it
//! changes nothing.

use litebox_platform_lvbs::hv::{EntryReason, Vtl};

use crate::engine::{Exit, SharedState};

/// A change of VTLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// VTL1 is entered.
    Enter(EntryReason),
    /// VTL0 runs again.
    Return,
}

/// Who watches one processor.
pub trait Watch: Send {
    /// `vtl` stopped; the registers are those it stopped with.
    fn stopped(&mut self, vtl: Vtl, exit: &Exit, shared: &SharedState);

    /// The VTLs change; the registers are those that the other VTL finds, and `instructions` how many VTL1 has carried out.
    fn changed(&mut self, change: Change, shared: &SharedState, instructions: u64);
}
