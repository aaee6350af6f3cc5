//! Target: the walk of a HEKI list, through ProtectMemory, against the contract's rules written down once more.
//!
//! The model below knows nothing of VTL1's code: it reads the chain from memory as the LVBS contract §5.1 and §5.4 describe
//! it. Answer and permissions must be the model's.

use std::collections::BTreeSet;

use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::trials::stress::lists;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::lists::Range;

use crate::input::Input;
use crate::machine::{self, HOLE, LAYOUT, RAM, Reads, Snapshot, VTL1};

/// What VTL1 takes at most.
const MAX_RANGES: u64 = 1 << 20;

/// # Panics
/// When a rule is broken.
pub fn run(data: &[u8]) {
    let machine = machine::new();
    let mut input = Input::new(data);
    let [first, announced] = lists::write_chain(&mut input, &machine::memory(&machine), &LAYOUT, lists::memory_range);
    let expected = chain(&machine, first, announced);

    let walk = || -> Result<Vec<_>, _> {
        HekiList::new(machine.platform(), first, announced)?.walk(machine.platform()).collect()
    };
    let once = walk();
    assert_eq!(once, walk(), "the same list walked twice");
    match (&once, &expected) {
        (Ok(ranges), Some(model)) => {
            let same = ranges.iter().zip(model).all(|(range, model)| {
                (range.va(), range.start(), range.end(), range.attributes())
                    == (model.va, model.pa, model.epa, model.attributes)
            });
            assert!(same && ranges.len() == model.len(), "{ranges:x?}, the model has {model:x?}");
        }
        (Ok(ranges), None) => panic!("accepted: {ranges:x?}"),
        (Err(error), Some(model)) => panic!("refused: {error}; the model has {model:x?}"),
        (Err(_), None) => {}
    }

    let before = Snapshot::of(&machine);
    let reads = Reads::watch(&machine);
    let result = machine.vtl_call(0, VsmFunction::ProtectMemory.id(), first, announced, 0);
    Snapshot::of(&machine).check(&before, result, &machine);
    match expected.as_deref().and_then(rights) {
        Some(rights) => {
            assert_eq!(result, 0, "refused: {expected:x?}");
            reads.check_once();
            for (gfn, flags) in (0..RAM).zip(rights) {
                assert_eq!(machine.partition().protection(gfn), flags, "rights to frame {gfn:#x}");
            }
        }
        None => assert!(result < 0, "accepted: {expected:x?}"),
    }
}

/// The ranges of the chain, if it is a list as the contract has it.
fn chain(machine: &HostedMachine, first: u64, announced: u64) -> Option<Vec<Range>> {
    if !(1..=MAX_RANGES).contains(&announced) {
        return None;
    }
    let mut ranges = Vec::new();
    let mut seen = BTreeSet::new();
    let mut at = first;
    loop {
        let is_memory = at >> 12 < RAM && !HOLE.contains(&(at >> 12)) && !VTL1.contains(&(at >> 12));
        let is_page = at.is_multiple_of(4096) && is_memory;
        if !is_page || !seen.insert(at) {
            return None;
        }
        let word = |offset: u64| bytes::read_u64(machine.memory(), at + offset).ok();
        let (next, count) = (word(8)?, word(16)?);
        if !(1..=127).contains(&count) {
            return None;
        }
        for index in 0..count {
            let field = |offset: u64| word(24 + 32 * index + offset);
            let range = Range { va: field(0)?, pa: field(8)?, epa: field(16)?, attributes: field(24)? };
            let canonical = range.va >> 47 == 0 || range.va >> 47 == 0x1_ffff;
            if !canonical || range.pa >= range.epa || range.epa >> 52 != 0 {
                return None;
            }
            ranges.push(range);
        }
        match (next, (ranges.len() as u64).cmp(&announced)) {
            (0, std::cmp::Ordering::Equal) => return Some(ranges),
            (0, _) | (_, std::cmp::Ordering::Equal | std::cmp::Ordering::Greater) => return None,
            (next, std::cmp::Ordering::Less) => at = next,
        }
    }
}

/// VTL0's rights to each frame of RAM once `ranges` are in force; `None` when ProtectMemory must refuse them.
fn rights(ranges: &[Range]) -> Option<Vec<MapFlags>> {
    let sound = |range: &Range| {
        let aligned = [range.va, range.pa, range.epa].iter().all(|address| address.is_multiple_of(4096));
        aligned && range.attributes & !0xf == 0 && range.attributes & 1 != 0
    };
    if !ranges.iter().all(sound) {
        return None;
    }
    // The last range that names a frame counts. What is no RAM is left as it is.
    let named = |gfn: u64| ranges.iter().rev().find(|range| (range.pa >> 12..range.epa >> 12).contains(&gfn));
    let right = |gfn: u64| {
        if VTL1.contains(&gfn) {
            MapFlags::NONE
        } else if HOLE.contains(&gfn) {
            MapFlags::ALL
        } else {
            named(gfn).map_or(MapFlags::ALL, |range| flags(range.attributes))
        }
    };
    Some((0..RAM).map(right).collect())
}

/// LVBS contract §5.1: READ is R|UX, WRITE is W, EXEC is KX|UX.
fn flags(attributes: u64) -> MapFlags {
    let mut flags = MapFlags::NONE;
    for (bit, right) in [
        (1, MapFlags::READ | MapFlags::USER_EXECUTE),
        (2, MapFlags::WRITE),
        (4, MapFlags::KERNEL_EXECUTE | MapFlags::USER_EXECUTE),
    ] {
        if attributes & bit != 0 {
            flags |= right;
        }
    }
    flags
}

/// Honest chains of one page and of three, some with cycles, and one with a raw range.
pub fn seeds() -> Vec<Vec<u8>> {
    let range = |start: u16, count: u8, attributes: u8| {
        let [low, high] = start.to_le_bytes();
        vec![0, low, high, count - 1, attributes]
    };
    let page = |ranges: &[Vec<u8>], link: u8| {
        let count = u8::try_from(ranges.len()).unwrap_or_default();
        [vec![count, 0, link], ranges.concat()].concat()
    };
    let first = page(&[range(0, 16, 3), range(0x10, 48, 1), range(0x40, 9, 5)], 0);
    let vtl1 = page(&[range(0x1f0, 64, 3), range(0x210, 64, 5)], 0);
    let last = page(&[range(0x3ff, 1, 7)], 0);
    // A real kernel's: a hole in the middle, the hypercall page as everything, frames named again, the last time as text.
    let kernel = [range(0, 1, 7), range(1, 64, 3), range(0x1b0, 0x38, 3), range(0x1c8, 0x18, 7), range(0, 1, 5)];
    let one_each: Vec<Vec<u8>> = (0..6).map(|index| page(&[range(0x1d0 + index, 2, 1)], 0)).collect();
    let raw =
        [vec![0xff], [DIRECT, 0x5000, 0x9000, 3].iter().flat_map(|word: &u64| word.to_le_bytes()).collect()].concat();
    // Six pages of which the last leads back to one in the middle, and more ranges announced than they have.
    let cycle = |back_to: u8| {
        let pages = [vec![first.clone(); 5], vec![page(&[range(0x80, 1, 1)], 0xf0 + back_to)]].concat();
        [vec![5], pages.concat(), vec![0xff], 1000_u64.to_le_bytes().to_vec(), vec![0]].concat()
    };
    vec![
        cycle(1),
        cycle(2),
        cycle(4),
        [vec![0], first.clone()].concat(),
        [vec![0], page(&kernel, 0)].concat(),
        [vec![5], one_each.concat()].concat(),
        [vec![2], first.clone(), vtl1.clone(), last].concat(),
        [vec![1], first, page(&[range(0x100, 8, 1)], 0xf0)].concat(),
        [vec![1], vtl1, page(&[raw], 0)].concat(),
    ]
}

const DIRECT: u64 = vsm_sim::vtl0::lists::DIRECT_MAP + 0x5000;
