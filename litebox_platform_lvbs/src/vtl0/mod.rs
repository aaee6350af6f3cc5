//! What VTL1 knows of VTL0, and typed pointers into its memory.
//!
//! VTL0 is the attacker. Nothing here trusts a byte that VTL0 can write: memory is reached only by copying, and
//! what has been copied is checked by whoever asked for it.

pub mod control_regs;
pub mod phase;
pub mod ptr;

pub use control_regs::ControlRegMap;
pub use phase::{BootPhase, Phase};
pub use ptr::{PhysConstPtr, PhysMutPtr};

/// VTL1's knowledge of VTL0's kernel.
#[derive(Debug, Default)]
pub struct Vtl0KernelInfo {
    /// Where VTL0 stands in its boot.
    pub phase: BootPhase,
}
