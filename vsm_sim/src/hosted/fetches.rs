//! The witness against double fetches: in every call of every hosted test, VTL1 fetches a byte once at most while VTL0
//! can change it. A second look at such a byte may see another value, which nothing has checked.
//!
//! Bytes that VTL0 cannot write when they are first fetched may be read as often as VTL1 likes.
//!
//! And the witness for `access`: no call takes VTL1's own memory for VTL0's, whatever address VTL0 has passed.

use std::cell::RefCell;
use std::collections::HashMap;

use litebox_platform_lvbs::address::FrameRange;

/// The bytes of a page that have been fetched, a bit each.
type Bytes = [u64; 64];

thread_local! {
    /// What the call that this thread serves has fetched; `None` outside of a call.
    static FETCHED: RefCell<Option<HashMap<u64, Box<Bytes>>>> = const { RefCell::new(None) };
}

/// Serves a call, watched.
///
/// # Panics
/// Later, in [`note`].
pub(super) fn watch<R>(serve: impl FnOnce() -> R) -> R {
    let outer = FETCHED.replace(Some(HashMap::new()));
    let result = serve();
    FETCHED.set(outer);
    result
}

/// VTL1 reads or writes VTL0's memory at `gpa`, or what it takes for it; `region` is its own.
///
/// # Panics
/// When a call does so with a frame of `region`, which `refuse_vtl1` should have refused.
pub(super) fn check_is_vtl0s(gpa: u64, region: FrameRange) {
    let is_vtl1s = (region.start()..region.end()).contains(&(gpa >> 12));
    let is_in_call = FETCHED.with_borrow(Option::is_some);
    assert!(!(is_vtl1s && is_in_call), "VTL1 takes its own memory at {gpa:#x} for VTL0's");
}

/// VTL1 fetches `len` bytes at `gpa`, all in one page; `writable` is whether VTL0 can change them.
///
/// # Panics
/// When the call has fetched one of them before, while VTL0 could change it.
pub(super) fn note(gpa: u64, len: usize, writable: bool) {
    FETCHED.with_borrow_mut(|calls| {
        let Some(pages) = calls else { return };
        if !writable && !pages.contains_key(&(gpa >> 12)) {
            return;
        }
        let bytes = pages.entry(gpa >> 12).or_insert_with(|| Box::new([0; 64]));
        for byte in (gpa..).take(len) {
            let place = usize::try_from(byte % 4096).expect("below a page");
            let (word, bit) = (&mut bytes[place / 64], 1 << (place % 64));
            assert!(*word & bit == 0, "double fetch: VTL1 reads the byte at {byte:#x} a second time in one call");
            if writable {
                *word |= bit;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use litebox_platform_lvbs::address::PhysAddr;
    use litebox_platform_lvbs::hardware::MemoryFault;

    use super::*;
    use crate::hosted::{HostedConfig, HostedMachine};

    fn fetches(list: &[(u64, usize, bool)]) -> bool {
        let list = list.to_vec();
        let played = std::panic::catch_unwind(move || {
            watch(|| list.iter().for_each(|(gpa, len, writable)| note(*gpa, *len, *writable)));
        });
        played.is_ok()
    }

    #[test]
    fn a_byte_that_can_change_is_fetched_once() {
        assert!(fetches(&[(0x1000, 8, true), (0x1008, 8, true), (0xff8, 8, true)]));
        assert!(!fetches(&[(0x1000, 8, true), (0x1007, 1, true)]));
        assert!(!fetches(&[(0x1fff, 1, true), (0x1000, 4096, true)]));
        // Frozen in between: what was read before it was frozen is still not what is read now.
        assert!(!fetches(&[(0x1000, 8, true), (0x1000, 8, false)]));
    }

    #[test]
    fn a_call_that_takes_vtl1s_memory_for_vtl0s_is_caught() {
        let machine = HostedMachine::new(HostedConfig::default());
        let hardware = machine.platform().hardware();
        let own = machine.platform().config().vtl1_region;
        let caught = |work: &dyn Fn() -> Result<(), MemoryFault>| {
            std::panic::catch_unwind(AssertUnwindSafe(|| watch(work))).is_err()
        };
        for (gfn, expected) in [(own.start(), true), (own.end() - 1, true), (own.start() - 1, false)] {
            let at = PhysAddr::new(gfn << 12).unwrap();
            assert_eq!(caught(&|| hardware.read_vtl0(at, &mut [0; 8])), expected, "read of {at}");
            assert_eq!(caught(&|| hardware.write_vtl0(at, &[0; 8])), expected, "write to {at}");
        }
    }

    #[test]
    fn what_vtl0_cannot_change_may_be_read_again_and_calls_are_apart() {
        assert!(fetches(&[(0x1000, 8, false), (0x1000, 8, false)]));
        assert!(fetches(&[(0x1000, 8, true)]) && fetches(&[(0x1000, 8, true)]));
        note(0x1000, 8, true);
        note(0x1000, 8, true);
    }
}
