//! VTL0's rights to every frame, as intervals.
//!
//! Neighbouring frames with the same rights are one interval, so that the map stays small whatever the number of
//! hypercalls that built it.

use std::collections::BTreeMap;

use litebox_platform_lvbs::hv::MapFlags;

/// Rights by frame number. A frame that was never set has the default.
#[derive(Clone, Debug)]
pub struct ProtectionMap {
    default: MapFlags,
    /// First frame to (first frame after, rights); disjoint, and merged where they touch with equal rights.
    intervals: BTreeMap<u64, (u64, MapFlags)>,
}

impl Default for ProtectionMap {
    /// Everything is allowed everywhere: what a partition starts with (TLFS "Default Protection Mask").
    fn default() -> Self {
        Self { default: MapFlags::ALL, intervals: BTreeMap::new() }
    }
}

impl ProtectionMap {
    /// The rights to frames that were never set.
    pub fn default_protection(&self) -> MapFlags {
        self.default
    }

    /// Changes the rights to frames that were never set.
    pub fn set_default(&mut self, default: MapFlags) {
        self.default = default;
    }

    /// The rights to frame `gfn`.
    pub fn get(&self, gfn: u64) -> MapFlags {
        self.explicit(gfn).unwrap_or(self.default)
    }

    fn explicit(&self, gfn: u64) -> Option<MapFlags> {
        let (_, (end, flags)) = self.intervals.range(..=gfn).next_back()?;
        (gfn < *end).then_some(*flags)
    }

    /// Sets the rights to the frames `start..end`.
    pub fn set(&mut self, start: u64, end: u64, flags: MapFlags) {
        if start >= end {
            return;
        }
        self.split(start);
        self.split(end);
        let inside: Vec<u64> = self.intervals.range(start..end).map(|(at, _)| *at).collect();
        for at in inside {
            self.intervals.remove(&at);
        }
        let (mut start, mut end) = (start, end);
        if let Some((before, (before_end, before_flags))) = self.intervals.range(..start).next_back()
            && *before_end == start
            && *before_flags == flags
        {
            start = *before;
        }
        if let Some((after_end, after_flags)) = self.intervals.get(&end).copied()
            && after_flags == flags
        {
            self.intervals.remove(&end);
            end = after_end;
        }
        self.intervals.insert(start, (end, flags));
    }

    /// Makes `at` the boundary of an interval if it lies within one.
    fn split(&mut self, at: u64) {
        if let Some((_, (end, flags))) = self.intervals.range_mut(..at).next_back()
            && at < *end
        {
            let rest = (*end, *flags);
            *end = at;
            self.intervals.insert(at, rest);
        }
    }

    /// The rights to all frames of `start..end`, as the fewest intervals: first frame, first frame after, rights.
    ///
    /// Equal for two maps exactly when they allow the same, whichever frames were set.
    pub fn effective(&self, start: u64, end: u64) -> Vec<(u64, u64, MapFlags)> {
        let mut found: Vec<(u64, u64, MapFlags)> = Vec::new();
        let mut add = |from: u64, to: u64, flags: MapFlags| match found.last_mut() {
            _ if from >= to => {}
            Some((_, last, same)) if *last == from && *same == flags => *last = to,
            _ => found.push((from, to, flags)),
        };
        let mut at = start;
        for (from, to, flags) in self.intervals().filter(|(from, to, _)| *from < end && *to > start) {
            add(at, from, self.default);
            add(from.max(start), to.min(end), flags);
            at = to;
        }
        add(at.max(start), end, self.default);
        found
    }

    /// The intervals with explicit rights: first frame, first frame after, rights; ascending.
    pub fn intervals(&self) -> impl Iterator<Item = (u64, u64, MapFlags)> + '_ {
        self.intervals.iter().map(|(start, (end, flags))| (*start, *end, *flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    #[test]
    fn agrees_with_a_flat_array() {
        const FRAMES: u64 = 64;
        let mut flat = [MapFlags::ALL; 64];
        let mut map = ProtectionMap::default();
        let mut random = SplitMix(1);
        let kinds = [MapFlags::NONE, MapFlags::READ_ONLY, MapFlags::READ_WRITE, MapFlags::ALL];
        for _ in 0..2000 {
            let (a, b) = (random.next() % FRAMES, random.next() % FRAMES);
            let flags = kinds[usize::try_from(random.next() >> 62).unwrap()];
            map.set(a.min(b), a.max(b), flags);
            for gfn in a.min(b)..a.max(b) {
                flat[usize::try_from(gfn).unwrap()] = flags;
            }
            for (gfn, expected) in (0..).zip(flat) {
                assert_eq!(map.get(gfn), expected, "frame {gfn}");
            }
            let (first, last) = (a.min(b), a.max(b) + 1);
            let rights = map.effective(first, last);
            assert!(rights.iter().all(|(from, to, flags)| (*from..*to).all(|gfn| map.get(gfn) == *flags)));
            assert_eq!((rights[0].0, rights[rights.len() - 1].1), (first, last));
            assert!(rights.windows(2).all(|pair| pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2), "{rights:?}");
            let intervals: Vec<_> = map.intervals().collect();
            for pair in intervals.windows(2) {
                assert!(pair[0].1 < pair[1].0 || pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2, "{pair:?}");
            }
        }
    }
}
