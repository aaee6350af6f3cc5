//! The processors' clock as the guest may know it (TLFS "Partition Reference Time Enlightenment", "Hypervisor Synthetic
//! MSRs"): how fast the time-stamp counter and the local APIC's timer run, and the page with which a guest makes the
//! partition's reference time of the counter: time = ((counter * scale) >> 64) + offset, in units of 100 ns.

use std::time::Instant;

use super::partition::Partition;

const UNITS_PER_SECOND: u128 = 10_000_000;
/// Bytes of the page that are not reserved: sequence (4 bytes and 4 reserved), scale, offset.
pub const REFERENCE_TSC_SIZE: usize = 24;

/// The clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Frequency of the time-stamp counter in Hz.
    pub tsc: u64,
    /// Frequency of the local APIC's timer in Hz.
    pub apic: u64,
    /// What the counter read at a time.
    pub reading: (Instant, u64),
}

impl Clock {
    /// The factor of the reference TSC page.
    fn scale(&self) -> u64 {
        u64::try_from((UNITS_PER_SECOND << 64) / u128::from(self.tsc)).unwrap_or(u64::MAX)
    }

    /// The page's offset, for a reference time that began at `start`.
    fn offset(&self, start: Instant) -> i64 {
        let (at, counter) = self.reading;
        let units = |duration: std::time::Duration| i128::try_from(duration.as_nanos() / 100).unwrap_or(i128::MAX);
        let time = units(at.saturating_duration_since(start)) - units(start.saturating_duration_since(at));
        let counted = (u128::from(counter) * u128::from(self.scale())) >> 64;
        i64::try_from(time - i128::try_from(counted).unwrap_or(i128::MAX)).unwrap_or(0)
    }
}

impl Partition {
    /// What the reference TSC page begins with; the rest is zero. `None`: there is no clock.
    pub fn reference_tsc_page(&self) -> Option<[u8; REFERENCE_TSC_SIZE]> {
        let clock = self.config.clock?;
        let mut page = [0; REFERENCE_TSC_SIZE];
        // A sequence that is not 0: the page is valid. It never changes, for the clock does not.
        page[0] = 1;
        page[8..16].copy_from_slice(&clock.scale().to_le_bytes());
        page[16..].copy_from_slice(&clock.offset(self.started).to_le_bytes());
        Some(page)
    }
}
