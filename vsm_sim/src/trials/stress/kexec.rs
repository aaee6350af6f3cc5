//! A signed kernel as Linux loads it for kexec, whole or spoilt: its description, its page list, its pages, its file, and the
//! HEKI list that names them.

use vsm_integrity::kexec::Form;

use super::input::Input;
use super::layout::{IMAGE_FRAMES, KEXEC_FRAMES, KEXEC_PLACES, Layout};
use super::lists;
use crate::hv::GuestMemory;
use crate::vtl0::kexec::{COUNT, DESTINATION, DONE, INDIRECTION, Image, Placed, SOURCE};
use crate::vtl0::modules::Frames;
use crate::vtl0::signed::KERNEL_FILE;

/// Pages that a list may take.
const LIST_PAGES: u64 = 3;

/// An image in memory, perhaps not as Linux has it.
pub struct Spoilt {
    /// Where it is.
    pub placed: Placed,
    /// Whether VTL1 could tell it from an honest one.
    pub changed: bool,
    /// The two registers.
    pub list: [u64; 2],
}

/// Puts an image into frames, spoils it or its list, and writes the list; nothing where VTL0 may not write.
///
/// # Panics
/// When the fixture is no kernel.
pub fn place(input: &mut Input<'_>, memory: &dyn GuestMemory, layout: &Layout, crash: bool) -> Option<Spoilt> {
    let order = input.byte();
    let start = layout.kexec + KEXEC_FRAMES * (u64::from(order >> 1) % KEXEC_PLACES);
    let end = start + KEXEC_FRAMES;
    let at = (layout.image + if crash { IMAGE_FRAMES } else { 0 }) << 12;
    let mut image = Image::new(KERNEL_FILE, at, crash).expect("the fixture is a kernel");
    if order & 0x80 != 0 {
        image.form = Form::WithoutPointer;
    }
    let list = layout.buffers;
    let free = |gfn: u64| memory.write(gfn << 12, &[0]).is_ok();
    // A crash image lies where it runs.
    let runs = if crash { at >> 12..image.end() >> 12 } else { 0..0 };
    if !(start..end).chain(list..list + LIST_PAGES).chain(runs).all(free) {
        return None;
    }
    let mut frames = match order & 1 {
        0 => Frames::consecutive(start << 12, end << 12),
        _ => Frames::scattered(start << 12, end << 12, u64::from(order)),
    };
    let mut changed = false;
    for _ in 0..input.below(3) {
        spoil_image(input, &mut image, layout);
        changed = true;
    }
    let placed = image.place(memory, &mut frames).ok()?;
    let mut ranges = placed.ranges.clone();
    for _ in 0..input.below(5) {
        changed = true;
        let (how, at, word) = (input.below(9), input.short(), input.word());
        let small = word & 0xffff;
        let chosen = usize::try_from(at).unwrap_or_default() % ranges.len();
        // A page, with flags or without, that means something. The last one is unowned.
        let others = vec![layout.vtl1.start << 12, layout.image << 12, (layout.kexec - 1) << 12];
        let pages = [placed.frozen(), placed.file.clone(), others].concat();
        let page = pages[usize::try_from(word >> 32).unwrap_or_default() % pages.len()];
        let meaning = page
            | [DESTINATION, INDIRECTION, DONE, SOURCE, 0, 3, 12, small & 0xfff]
                [usize::try_from(small & 7).unwrap_or_default()];
        let link = placed.links.first().copied().unwrap_or(placed.kimage);
        // VTL0 is stopped where it may not write.
        let poke = |at: u64, bytes: &[u8]| {
            let _ = memory.write(at, bytes);
        };
        match how {
            0 => poke(placed.kimage + at % 0x280, &[word.to_le_bytes()[0]]),
            1 => poke(placed.kimage + at % 80 * 8, &meaning.to_le_bytes()),
            2 => poke(placed.kimage + COUNT + at % 66 * 8, &word.to_le_bytes()),
            3 => poke(link + at % 48 * 8, &meaning.to_le_bytes()),
            4 => poke(page + at % 4096, &[word.to_le_bytes()[0]]),
            5 => drop(ranges.remove(chosen)),
            6 => ranges[chosen].attributes = small % 4,
            7 => ranges[chosen].pa = page,
            _ => ranges[chosen].epa = ranges[chosen].pa.wrapping_add(small),
        }
        if ranges.is_empty() {
            break;
        }
    }
    lists::write_list(memory, list << 12, &ranges);
    Some(Spoilt { placed, changed, list: [list << 12, ranges.len() as u64] })
}

/// Changes an image before it is put into memory.
fn spoil_image(input: &mut Input<'_>, image: &mut Image, layout: &Layout) {
    let (how, index, at) = (input.below(6), input.below(4), input.short());
    let index = usize::try_from(index).unwrap_or_default() % image.segments.len();
    let at = usize::try_from(at).unwrap_or_default();
    match how {
        0 => {
            // The other segments may hold anything.
            let bytes = &mut image.segments[index].bytes;
            let at = at % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
        }
        1 => {
            let at = at % image.file.len();
            image.file[at] ^= 0x10;
        }
        2 => image.segments.swap(index, 0),
        3 if image.segments.len() > 1 => drop(image.segments.remove(index)),
        4 => image.segments[index].start = (at as u64 % (layout.ram_end + 8)) << 12,
        _ => image.start ^= at as u64,
    }
}
