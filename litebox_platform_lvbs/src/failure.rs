//! Whether VTL1 has failed: one flag, set once. Every lock and every return to VTL0 checks it.
//!
//! What follows from a failure: `arch/panic.rs`.

use core::sync::atomic::{AtomicBool, Ordering};

static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether VTL1 has panicked; no call is served any more.
#[must_use]
pub fn has_failed() -> bool {
    FAILED.load(Ordering::Acquire)
}

/// Records that VTL1 has panicked, for good.
#[cfg(target_os = "none")]
pub(crate) fn set_failed() {
    FAILED.store(true, Ordering::Release);
}
