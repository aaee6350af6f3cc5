//! LockRegs over the hypervisor model, and what becomes of VTL0's writes afterwards.

mod intercept;
mod regs;
mod restart;
