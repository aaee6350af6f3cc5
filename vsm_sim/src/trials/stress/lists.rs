//! Chains of list pages, from inputs: mostly honest ones, because lies in every field would never get past the first check.

use super::input::Input;
use super::layout::{BUFFER_FRAMES, Layout};
use crate::hv::GuestMemory;
use crate::vtl0::lists::{DIRECT_MAP, Filling, Range, list_pages};

/// Most pages of a chain.
const MAX_PAGES: u64 = 6;

/// Writes a chain into the buffers; the two registers that name it. `range` makes one range.
pub fn write_chain(
    input: &mut Input<'_>,
    memory: &dyn GuestMemory,
    layout: &Layout,
    range: impl Fn(&mut Input<'_>, &Layout) -> Range,
) -> [u64; 2] {
    let count = 1 + input.below(MAX_PAGES);
    let at = |index: u64| (layout.buffers + index) << 12;
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
            let Range { va, pa, epa, attributes } = range(input, layout);
            let words = [va, pa, epa, attributes];
            let slot = 24 + 32 * usize::try_from(number).unwrap_or_default();
            for (offset, word) in (0..).step_by(8).zip(words) {
                put(slot + offset, word);
            }
        }
        // VTL0 is stopped where it may not write.
        let _ = memory.write(at(index), &page);
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

/// A range of whole frames with memory attributes, sometimes near VTL1's frames or the end of RAM, or any four words.
pub fn memory_range(input: &mut Input<'_>, layout: &Layout) -> Range {
    let start = match input.byte() {
        0xff => return Range { va: input.word(), pa: input.word(), epa: input.word(), attributes: input.word() },
        0xf8.. => layout.vtl1.start.saturating_sub(0x20) + input.short() % (layout.vtl1.end - layout.vtl1.start + 0x20),
        0xf6.. => layout.ram_end.saturating_sub(0x20) + input.short() % 0x40,
        _ => layout.frame(input),
    };
    let end = start + 1 + input.below(64);
    Range { va: DIRECT_MAP + (start << 12), pa: start << 12, epa: end << 12, attributes: input.below(17) }
}

/// A range of bytes with one of LoadKData's kinds.
pub fn kdata_range(input: &mut Input<'_>, layout: &Layout) -> Range {
    if input.byte() == 0xff {
        return memory_range(input, layout);
    }
    let pa = (layout.buffers << 12) + input.short() * 16 % (BUFFER_FRAMES << 12);
    let epa = pa + 1 + input.short() % 0x3000;
    Range { va: DIRECT_MAP + pa, pa, epa, attributes: input.below(9) }
}

/// Ranges that the driver puts into the three pages that there is room for at least: 127 into the first, then one each.
pub const DRIVERS_RANGES: usize = 127 + 2;

/// Writes the list of `ranges` to the pages from physical address `start` on, as far as VTL0 may. A list that is too long for
/// the driver's pages has full ones, so that it does not lie over what it names.
pub fn write_list(memory: &dyn GuestMemory, start: u64, ranges: &[Range]) {
    let filling = if ranges.len() <= DRIVERS_RANGES { Filling::Driver } else { Filling::Full };
    write_filled(memory, start, ranges, filling);
}

/// The same with pages that hold as many ranges as told.
pub fn write_filled(memory: &dyn GuestMemory, start: u64, ranges: &[Range], filling: Filling) {
    for (at, page) in (start..).step_by(4096).zip(list_pages(start, ranges, filling)) {
        let _ = memory.write(at, &page);
    }
}
