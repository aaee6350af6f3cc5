//! Chains of list pages, from inputs: mostly honest ones, because lies in every field would never get past the first check.

use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::lists::Range;

use crate::input::Input;
use crate::machine::{BUFFERS, DIRECT_MAP, RAM};

/// Most pages of a chain.
const MAX_PAGES: u64 = 6;

/// Writes a chain into the frames from `BUFFERS + frame` on; the two registers that name it. `range` makes one range.
pub fn write_chain(
    input: &mut Input<'_>,
    machine: &HostedMachine,
    frame: u64,
    mut range: impl FnMut(&mut Input<'_>) -> Range,
) -> [u64; 2] {
    let count = 1 + input.below(MAX_PAGES);
    let at = |index: u64| (BUFFERS + frame + index) << 12;
    let mut total = 0;
    for index in 0..count {
        let honest = input.below(8);
        let claimed = input.byte();
        let nranges = match claimed {
            0xff => input.word(),
            0xfe => honest + 1,
            _ => honest,
        };
        total += honest;
        let next = match input.byte() {
            0xff => input.word(),
            link @ 0xf0.. => at(u64::from(link) % count),
            _ if index + 1 < count => at(index + 1),
            _ => 0,
        };
        let mut page = [0; 4096];
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0, DIRECT_MAP.wrapping_add(next));
        put(8, next);
        put(16, nranges);
        for number in 0..honest {
            let Range { va, pa, epa, attributes } = range(input);
            let words = [va, pa, epa, attributes];
            let slot = 24 + 32 * usize::try_from(number).unwrap_or_default();
            for (offset, word) in (0..).step_by(8).zip(words) {
                put(slot + offset, word);
            }
        }
        // VTL0 is stopped where it may not write.
        let _ = machine.vtl0_write(0, at(index), &page);
    }
    let announced = match input.byte() {
        0xff => input.word(),
        0xfe => total + 1,
        _ => total,
    };
    let first = match input.byte() {
        0xff => input.word(),
        _ => at(0),
    };
    [first, announced]
}

/// A range of whole frames with memory attributes, or any four words.
pub fn memory_range(input: &mut Input<'_>) -> Range {
    if input.byte() == 0xff {
        return Range { va: input.word(), pa: input.word(), epa: input.word(), attributes: input.word() };
    }
    let start = input.short() % (RAM + 0x20);
    let end = start + 1 + input.below(64);
    Range { va: DIRECT_MAP + (start << 12), pa: start << 12, epa: end << 12, attributes: input.below(17) }
}

/// Writes the list of `ranges` to the pages from physical address `start` on.
pub fn write_list(machine: &HostedMachine, start: u64, ranges: &[Range]) {
    let count = ranges.chunks(127).count();
    for (index, (at, chunk)) in (start..).step_by(4096).zip(ranges.chunks(127)).enumerate() {
        let mut page = [0; 4096];
        let next = if index + 1 == count { 0 } else { at + 4096 };
        let words = chunk.iter().flat_map(|range| [range.va, range.pa, range.epa, range.attributes]);
        let words = [0, next, chunk.len() as u64].into_iter().chain(words);
        for (place, word) in page.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        let _ = machine.vtl0_write(0, at, &page);
    }
}
