//! Making hypercalls fail on purpose, to see what a kernel does about it.

use litebox_platform_lvbs::hv::{HvStatus, HypercallCode, MapFlags};

use super::partition::Partition;

/// A failure that waits for its hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Only hypercalls with this code count; `None` counts all.
    pub code: Option<HypercallCode>,
    /// How many counted hypercalls pass before; 0 means that the next one fails.
    pub after: u64,
    /// How many elements of a rep hypercall are done before it fails. When the list is not longer than this, the
    /// hypercall does all of it and the injection is used up.
    pub element: u16,
    /// How many hypercalls in a row fail; 0 is the same as 1.
    pub times: u64,
    /// The status the hypercall fails with. SUCCESS makes an answer that claims success for a part of the list.
    pub status: HvStatus,
}

impl Injection {
    /// The `after`-th next hypercall fails before it does anything.
    pub fn new(after: u64, status: HvStatus) -> Self {
        Self { code: None, after, element: 0, times: 1, status }
    }

    /// Counting only hypercalls with this code.
    #[must_use]
    pub fn of(self, code: HypercallCode) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Failing only after `element` elements are done.
    #[must_use]
    pub fn at_element(self, element: u16) -> Self {
        Self { element, ..self }
    }

    /// Failing `times` hypercalls in a row.
    #[must_use]
    pub fn repeated(self, times: u64) -> Self {
        Self { times, ..self }
    }
}

/// Where in a hypercall a failure strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) element: u16,
    pub(super) status: HvStatus,
}

/// The failures that wait.
#[derive(Debug, Default)]
pub(super) struct Injections(Vec<Injection>);

impl Injections {
    pub(super) fn add(&mut self, injection: Injection) {
        self.0.push(injection);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts a hypercall and says whether it is to fail. When several would strike, the one added first does.
    pub(super) fn strike(&mut self, code: HypercallCode) -> Option<Strike> {
        let mut strike = None;
        self.0.retain_mut(|injection| {
            if injection.code.is_some_and(|only| only != code) {
                return true;
            }
            if injection.after > 0 {
                injection.after -= 1;
                return true;
            }
            strike.get_or_insert(Strike { element: injection.element, status: injection.status });
            injection.times = injection.times.saturating_sub(1);
            injection.times > 0
        });
        strike
    }
}

impl Partition {
    /// Gives VTL0 these rights to the frames `start..end` behind VTL1's back, which a hypervisor never does: to see whether
    /// a check notices.
    pub fn force_protection(&self, start: u64, end: u64, flags: MapFlags) {
        self.lock().protect(start, end, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_when_its_turn_comes_and_no_longer() {
        let mut injections = Injections::default();
        let code = HypercallCode::SET_VP_REGISTERS;
        injections.add(Injection::new(1, HvStatus::TIMEOUT).of(code).repeated(2).at_element(3));
        assert_eq!(injections.strike(code), None);
        assert_eq!(injections.strike(HypercallCode::GET_VP_REGISTERS), None);
        let strike = Some(Strike { element: 3, status: HvStatus::TIMEOUT });
        assert_eq!(injections.strike(code), strike);
        assert_eq!(injections.strike(code), strike);
        assert_eq!(injections.strike(code), None);
    }
}
