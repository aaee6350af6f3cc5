//! Locks, and waiting, that end when VTL1 fails.
//!
//! A processor that panics never releases what it holds. Another one that waits for it would hang, and VTL0 with it; so
//! every wait in VTL1 goes through [`wait`], which gives up when VTL1 has failed: the waiting processor then answers its
//! own call with an error, like every processor from then on.

use spin::RelaxStrategy;
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A spin lock. Never held across a return to VTL0.
pub type Mutex<T> = SpinMutex<T, Wait>;
/// What holds a [`Mutex`].
pub type MutexGuard<'a, T> = SpinMutexGuard<'a, T>;

/// Waits as [`wait`] does.
#[derive(Clone, Copy, Debug)]
pub enum Wait {}

impl RelaxStrategy for Wait {
    fn relax() {
        wait();
    }
}

/// One turn of a loop that waits for another processor.
///
/// # Panics
/// In the image, when VTL1 has failed on another processor: what is waited for may never come.
#[inline]
pub fn wait() {
    core::hint::spin_loop();
    assert!(!crate::failure::has_failed(), "VTL1 has failed while this processor waited for another one");
}
