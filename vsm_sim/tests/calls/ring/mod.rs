//! The log ring over the hypervisor model: who can give memory for it, what VTL0 reads in it, how much VTL1 logs.

mod allocate;
mod limits;
mod reader;
