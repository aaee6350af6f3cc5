//! The one irrevocable step of a VTL0 life: the end of boot.
//!
//! Boot-phase calls are counted while they run, so that when SignalEndOfBoot returns, none of them is still running
//! on another processor. One atomic word holds both the flag and the count.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::error::VsmError;
use crate::sync::wait;

/// The phases of a VTL0 life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the end of boot: VTL0 is still what the firmware measured.
    Boot,
    /// After the end of boot: VTL0 may be hostile.
    Runtime,
}

/// Set once the boot has ended; the bits below count boot-phase calls in flight.
const ENDED: u32 = 1 << 31;

/// The phase, shared by all processors.
#[derive(Debug, Default)]
pub struct BootPhase(AtomicU32);

impl BootPhase {
    /// The current phase.
    #[must_use]
    pub fn get(&self) -> Phase {
        if self.0.load(Ordering::Acquire) & ENDED == 0 { Phase::Boot } else { Phase::Runtime }
    }

    /// Registers a boot-phase call; the boot cannot end while the returned guard lives.
    ///
    /// # Errors
    /// [`VsmError::AfterEndOfBoot`].
    pub fn enter_boot_call(&self) -> Result<BootCall<'_>, VsmError> {
        // One call per processor at most, so the count stays far below the flag.
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| (word & ENDED == 0).then(|| word + 1))
            .map(|_| BootCall(self))
            .map_err(|_| VsmError::AfterEndOfBoot)
    }
}

/// Proof that a boot-phase call is running.
#[derive(Debug)]
pub struct BootCall<'a>(&'a BootPhase);

impl BootCall<'_> {
    /// Ends the boot, then waits until this is the last boot-phase call in flight. Only the first of several
    /// processors succeeds.
    ///
    /// The wait is bounded by the longest boot-phase call: new ones are refused from here on, and none of those in
    /// flight waits for this one.
    ///
    /// # Errors
    /// [`VsmError::AfterEndOfBoot`] when another processor has ended the boot meanwhile.
    pub fn end_boot(&self) -> Result<(), VsmError> {
        let before = self.0.0.fetch_or(ENDED, Ordering::AcqRel);
        if before & ENDED != 0 {
            return Err(VsmError::AfterEndOfBoot);
        }
        while self.0.0.load(Ordering::Acquire) != ENDED | 1 {
            wait();
        }
        Ok(())
    }
}

impl Drop for BootCall<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn boot_ends_once_and_refuses_boot_calls_afterwards() {
        let phase = BootPhase::default();
        assert_eq!(phase.get(), Phase::Boot);
        let call = phase.enter_boot_call().unwrap();
        call.end_boot().unwrap();
        assert_eq!(call.end_boot(), Err(VsmError::AfterEndOfBoot));
        drop(call);
        assert_eq!(phase.get(), Phase::Runtime);
        assert!(phase.enter_boot_call().is_err());
    }

    #[test]
    fn end_of_boot_waits_for_calls_in_flight() {
        let phase = BootPhase::default();
        let in_flight = phase.enter_boot_call().unwrap();
        let finished = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let ender = scope.spawn(|| {
                phase.enter_boot_call().unwrap().end_boot().unwrap();
                finished.load(Ordering::SeqCst)
            });
            while phase.get() == Phase::Boot {
                std::thread::yield_now();
            }
            finished.store(1, Ordering::SeqCst);
            drop(in_flight);
            assert_eq!(ender.join().unwrap(), 1, "the boot ended while a boot-phase call was in flight");
        });
    }

    #[test]
    fn two_processors_ending_the_boot_do_not_wait_for_each_other() {
        let phase = BootPhase::default();
        let barrier = Barrier::new(2);
        let end = || {
            let call = phase.enter_boot_call().unwrap();
            barrier.wait();
            call.end_boot()
        };
        let results = std::thread::scope(|scope| {
            let other = scope.spawn(end);
            [end(), other.join().unwrap()]
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }
}
