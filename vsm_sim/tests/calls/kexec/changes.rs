//! Changes to an image that lies in memory, and to the list that names it.

use litebox_platform_lvbs::Errno;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kexec::{Image, Placed};
use vsm_sim::vtl0::lists::Range;

use super::world::{assert_refused, booted, image, place};
use crate::linux::Linux;

/// Refuses `placed`.
pub fn refuse(linux: &Linux, placed: &Placed, errno: Errno, what: &str) {
    assert_refused(linux, &placed.ranges, placed.flag() == 1, errno, what);
}

/// What a change of the list, of `struct kimage` or of the page list is made to.
pub struct Change<'a> {
    pub linux: &'a mut Linux,
    pub image: Image,
    pub placed: &'a mut Placed,
}

impl Change<'_> {
    pub fn put(&self, at: u64, value: u64) {
        bytes::write_u64(self.linux.machine.memory(), at, value).unwrap();
    }

    pub fn get(&self, at: u64) -> u64 {
        bytes::read_u64(self.linux.machine.memory(), at).unwrap()
    }

    /// Writes a page list anew.
    pub fn entries(&mut self, change: impl FnOnce(&mut Vec<u64>)) {
        let mut entries = self.image.entries(&self.placed.sources);
        change(&mut entries);
        self.placed.write_entries(self.linux.machine.memory(), &mut self.linux.frames, &entries).unwrap();
        self.image.describe(self.linux.machine.memory(), self.placed).unwrap();
        self.placed.list();
    }

    pub fn range(&mut self, kind: u64) -> &mut Range {
        self.placed.ranges.iter_mut().find(|range| range.attributes == kind).unwrap()
    }

    pub fn another(&mut self, range: Range) {
        self.placed.ranges.push(range);
    }
}

pub type Changes = [(&'static str, Errno, fn(&mut Change<'_>))];

pub fn refuse_changes(crash: bool, changes: &Changes) {
    for (what, errno, change) in changes {
        let mut linux = booted(Some(3));
        let image = image(crash);
        let mut placed = place(&mut linux, &image);
        change(&mut Change { linux: &mut linux, image, placed: &mut placed });
        refuse(&linux, &placed, *errno, &format!("{what}, crash {crash}"));
    }
}
