//! Memory for VTL1's log.
//!
//! The one call of this family is declared and not implemented; nothing else is in this file.

use vsm_macros::vsm_handler;

/// Takes memory that VTL1 writes its log into and VTL0 may only read.
#[vsm_handler(VsmFunction::AllocateRingbufferMemory, phase = boot, caller = any, not_implemented)]
fn allocate_ringbuffer_memory() {}
