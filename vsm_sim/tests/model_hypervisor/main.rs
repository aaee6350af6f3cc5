//! The hypervisor model against the words of the LVBS contract and the TLFS, not against what our kernel does.

mod clock;
mod constants;
mod flush;
mod hosted;
mod hypercalls;
mod intercepts;
mod msrs;
mod registers;
mod support;
mod switch;
