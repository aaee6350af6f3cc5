//! The records of patch sites that HEKI keeps for modules, and what it forgets to forget (LVBS contract §11.5).
//!
//! A record is found by the address of its `struct module`. That of a module which VTL1 has refused stays, so that the next
//! module whose `struct module` lies there hands it over too: sites of a module that is dead, or its own sites twice, in
//! memory that may long be in use for something else.

use anyhow::Result;

use super::kdata::{Site, patch_record};
use super::modules::{Frames, Module, PATCHES, Placed};
use crate::hv::GuestMemory;

/// The first record's place in VTL0's virtual memory, and how far each lies behind the one before: records are allocated one
/// by one, and vmalloc leaves a gap.
const FIRST_VA: u64 = 0xffff_c900_2000_0040;
const STEP: u64 = 0x10_0000;

/// One record.
#[derive(Clone, Debug)]
struct Record {
    /// Address of the `struct module`.
    module: u64,
    va: u64,
    sites: Vec<Site>,
}

/// All records.
#[derive(Clone, Debug, Default)]
pub struct Records {
    kept: Vec<Record>,
    made: u64,
}

impl Records {
    /// Places a module whose `struct module` is at `at`, as [`Module::place`] does, and puts every record that is found by
    /// that address on its list: those of modules that were refused there before, then its own.
    ///
    /// # Errors
    /// As [`Module::place`].
    pub fn place(
        &mut self,
        module: &Module,
        memory: &dyn GuestMemory,
        frames: &mut Frames,
        (at, file_start): (u64, u64),
    ) -> Result<Placed> {
        let mut placed = module.place_memory(memory, frames, file_start)?;
        let sites = placed.sites(module)?;
        if !sites.is_empty() {
            self.kept.push(Record { module: at, va: FIRST_VA + STEP * self.made, sites });
            self.made += 1;
        }
        for record in self.kept.iter().filter(|record| record.module == at) {
            placed.put(memory, frames, PATCHES, record.va, &patch_record(&record.sites))?;
        }
        Ok(placed)
    }

    /// The module with its `struct module` at `at` is unloaded. For one that was refused this is what HEKI leaves out.
    pub fn forget(&mut self, at: u64) {
        self.kept.retain(|record| record.module != at);
    }
}

#[cfg(test)]
mod tests {
    use litebox_platform_lvbs::address::FrameRange;

    use super::*;
    use crate::hosted::HostedMemory;
    use crate::vtl0::bytes;
    use crate::vtl0::signed::MADE_UP;

    /// The places of the sites that the list of `placed` names, record by record.
    fn listed(memory: &HostedMemory, placed: &Placed) -> Vec<Vec<u64>> {
        let ranges = placed.ranges.iter().filter(|range| range.attributes == PATCHES);
        let record = |range: &crate::vtl0::lists::Range| {
            let count = bytes::read_u64(memory, range.pa + 32).unwrap();
            (0..count).map(|index| bytes::read_u64(memory, range.pa + 48 + 24 * index).unwrap()).collect()
        };
        ranges.map(record).collect()
    }

    #[test]
    fn a_refused_module_leaves_its_record_to_the_next_one_there() {
        let memory = HostedMemory::new(vec![FrameRange::from_gfns(0, 0x400).unwrap()]);
        let mut frames = Frames::scattered(0x1_0000, 0x40_0000, 3);
        let mut records = Records::default();
        let [first, second] = [0, 1].map(|which: usize| &MADE_UP[which]);
        let at = first.parts[0].va;
        let refused = records.place(first, &memory, &mut frames, (at, 0)).unwrap();
        refused.free(&mut frames, |_| true);
        let elsewhere = records.place(second, &memory, &mut frames, (at + 0x100_0000, 0)).unwrap();
        assert_eq!(listed(&memory, &elsewhere).len(), 1, "found by its own address only");
        // The dead module's sites, then its own: with a gap between the records, as vmalloc leaves one.
        let placed = records.place(second, &memory, &mut frames, (at, 0)).unwrap();
        let own: Vec<u64> = placed.sites(second).unwrap().iter().map(|site| site.pa).collect();
        let stale: Vec<u64> = refused.sites(first).unwrap().iter().map(|site| site.pa).collect();
        assert_eq!(listed(&memory, &placed), [stale.clone(), own.clone()]);
        assert!(!stale.iter().any(|pa| own.contains(pa)));
        let vas: Vec<u64> =
            placed.ranges.iter().filter(|range| range.attributes == PATCHES).map(|range| range.va).collect();
        assert!(vas[1] - vas[0] > 0x1000, "{vas:x?}");
        // The same module once more where it was refused: its sites come twice.
        records.forget(at);
        records.place(first, &memory, &mut frames, (at, 0)).unwrap();
        let again = records.place(first, &memory, &mut frames, (at, 0)).unwrap();
        assert_eq!(listed(&memory, &again).len(), 2);
        records.forget(at);
        let clean = records.place(first, &memory, &mut frames, (at, 0)).unwrap();
        assert_eq!(listed(&memory, &clean).len(), 1);
    }
}
