//! The start of VTL0's other processors: during boot with VTL1's help, and never after it.

mod boot_aps;
mod startup;
