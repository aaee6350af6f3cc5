//! Whether VTL1 has failed: one flag, set once, which every lock and every way back to VTL0 looks at.
//!
//! What follows from a failure is `arch/panic.rs`.

use core::sync::atomic::{AtomicBool, Ordering};

static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether VTL1 has panicked; no call is served any more.
#[must_use]
pub fn has_failed() -> bool {
    FAILED.load(Ordering::Acquire)
}

/// Records that VTL1 has panicked. There is no way back.
#[cfg(target_os = "none")]
pub(crate) fn set_failed() {
    FAILED.store(true, Ordering::Release);
}
