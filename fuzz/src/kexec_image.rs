//! Target: a signed kernel as Linux loads it for kexec, with its description, its page list, its pages, its file and the
//! HEKI list spoilt, also while VTL1 looks.
//!
//! What VTL1 has accepted is then started, as Linux's code for that would: it follows whatever entries there are, copies or
//! swaps pages, and knows none of VTL1's rules. The kernel that comes of it must be the signed one.

use std::collections::HashMap;

use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::vtl0::{KexecMemoryMetadata, KexecSlot};
use vsm_sim::hosted::{HostedMachine, RacePoint};
use vsm_sim::hv::{Access, GuestMemory};
use vsm_sim::trials::stress::kexec::place;
use vsm_sim::trials::stress::layout::{BUFFER_FRAMES, KEXEC_FRAMES, KEXEC_PLACES};
use vsm_sim::trials::stress::lists;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::{self, KernelData};
use vsm_sim::vtl0::kexec::{DESTINATION, DONE, HEAD, INDIRECTION, SOURCE};

use crate::fixtures::{KERNEL_FILE, KERNEL_SIGNER};
use crate::input::Input;
use crate::machine::{self, BUFFERS, LAYOUT, Snapshot};

/// Where the kernel proper starts in its file.
const KERNEL: usize = vsm_sim::vtl0::authenticode::KERNEL;
/// Entries that Linux's code follows before the model gives up: no honest list has so many.
const MAX_ENTRIES: usize = 4096;

/// # Panics
/// When a rule is broken: an image that nothing was done to is refused; one that is accepted would start something else than
/// the signed kernel, or can still be written; one that is refused has left something behind.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let machine = machine::new();
    let kernel = KernelData { certificates: KERNEL_SIGNER.to_vec(), ..KernelData::default() };
    let (start, end) = ((BUFFERS + 2) << 12, (BUFFERS + BUFFER_FRAMES) << 12);
    let ranges = kernel.write(machine.memory(), kdata::consecutive(start, end)).expect("RAM");
    lists::write_list(&machine::memory(&machine), BUFFERS << 12, &ranges);
    let loaded = machine.vtl_call(0, VsmFunction::LoadKData.id(), BUFFERS << 12, ranges.len() as u64, 0);
    assert_eq!(loaded, 0, "LoadKData");
    if input.byte() & 1 != 0 {
        assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0, "SignalEndOfBoot");
    }
    for _ in 0..3 {
        if input.is_empty() {
            break;
        }
        let crash = input.byte() & 1;
        let Some(spoilt) = place(&mut input, &machine::memory(&machine), &LAYOUT, crash == 1) else { break };
        let [first, count] = spoilt.list;
        let before = Snapshot::of(&machine);
        let races = race(&mut input, &machine);
        let result = machine.vtl_call(0, VsmFunction::KexecValidate.id(), first, count, u64::from(crash));
        machine.memory().set_race(None);
        Snapshot::of(&machine).check(&before, result, &machine);
        assert!(spoilt.changed || races || result == 0, "an honest image is refused with {result}");
        if result == 0 {
            check_accepted(&machine, crash == 1, spoilt.placed.kimage);
        }
        if input.byte() & 1 == 0 {
            let result = machine.vtl_call(0, VsmFunction::KexecValidate.id(), 0, 0, u64::from(crash));
            assert_eq!(result, 0, "an image cannot be forgotten");
            let registry = machine.platform().frames().lock();
            let owner = Owner::Kexec { crash: crash == 1 };
            assert!(registry.intervals().all(|state| state.owner != owner), "frames of a forgotten image");
        }
    }
}

/// Rewrites a byte of what the image is made of at one of VTL1's reads or hypercalls; whether it does.
fn race(input: &mut Input<'_>, machine: &HostedMachine) -> bool {
    if input.byte() & 3 != 3 {
        return false;
    }
    let (mut wait, offset, byte) = (input.below(24), input.short(), input.byte());
    let at = match input.byte() {
        list @ 0..0x20 => (BUFFERS << 12) + u64::from(list) * 8 + offset % 64,
        frame => ((LAYOUT.kexec + u64::from(frame) % (KEXEC_FRAMES * KEXEC_PLACES)) << 12) + offset % 4096,
    };
    let partition = machine.shared_partition();
    machine.memory().set_race(Some(Box::new(move |point, memory| {
        if wait == 0 && !matches!(point, RacePoint::BeforeWrite { .. }) {
            let writable = litebox_platform_lvbs::hv::MapFlags::WRITE;
            if partition.protection(at >> 12).contains(writable) {
                let _ = memory.write(at, &[byte]);
            }
        }
        wait = wait.wrapping_sub(1);
    })));
    true
}

/// Starts what VTL1 has accepted.
fn check_accepted(machine: &HostedMachine, crash: bool, kimage: u64) {
    let slot = if crash { KexecSlot::Crash } else { KexecSlot::Normal };
    let kept = machine.platform().vtl0().kexec().lock().get(slot).expect("an accepted image");
    let closed = |page: u64| machine.vtl0_may(0, page, Access::Write).is_err();
    // A description that the list named elsewhere is not this one.
    if !closed(kimage) {
        return;
    }
    for swap in [false, true] {
        let memory = started(machine, kimage, swap, closed);
        check_kernel(machine, &memory, kept);
    }
}

/// The signed kernel, with zeros behind it, is where VTL1 says.
fn check_kernel(machine: &HostedMachine, memory: &HashMap<u64, [u8; 4096]>, kept: KexecMemoryMetadata) {
    let mut expected = KERNEL_FILE[KERNEL..].chunks(4096);
    for gfn in kept.kernel.start()..kept.kernel.end() {
        let mut page = [0; 4096];
        let content = expected.next().unwrap_or_default();
        page[..content.len()].copy_from_slice(content);
        let found = memory.get(&(gfn << 12)).copied().unwrap_or_else(|| read(machine, gfn << 12));
        assert!(found == page, "the kernel would not be the signed one at {:#x}", gfn << 12);
    }
    assert!(expected.next().is_none(), "not all of the kernel");
}

/// The pages that are different once the image is put together (Linux, `arch/x86/kernel/relocate_kernel_64.S`). `swap` is
/// whether what was at a destination goes to the source. Every page that is followed must be one that VTL0 cannot write.
///
/// The copying has no swap page: Linux exchanges two pages through one that the description names by its `struct page`, which
/// neither VTL1 nor this looks up. What a hostile choice of it would overwrite is not seen here.
fn started(machine: &HostedMachine, kimage: u64, swap: bool, closed: impl Fn(u64) -> bool) -> HashMap<u64, [u8; 4096]> {
    let mut memory: HashMap<u64, [u8; 4096]> = HashMap::new();
    let page_at = |memory: &HashMap<u64, [u8; 4096]>, page: u64| {
        memory.get(&page).copied().unwrap_or_else(|| read(machine, page))
    };
    let mut entry = bytes::read_u64(machine.memory(), kimage + HEAD).expect("RAM");
    let (mut destination, mut next) = (0, 0);
    for _ in 0..MAX_ENTRIES {
        let page = entry & !0xfff;
        if entry & DESTINATION != 0 {
            destination = page;
        } else if entry & INDIRECTION != 0 {
            assert!(closed(page), "VTL0 can write the page list at {page:#x}");
            next = page;
        } else if entry & DONE != 0 {
            return memory;
        } else if entry & SOURCE != 0 {
            assert!(closed(page), "VTL0 can write the source at {page:#x}");
            let (new, old) = (page_at(&memory, page), page_at(&memory, destination));
            memory.insert(destination, new);
            if swap && page != destination {
                memory.insert(page, old);
            }
            destination += 4096;
        }
        let words = page_at(&memory, next & !0xfff);
        let at = usize::try_from(next & 0xfff).unwrap_or_default();
        entry = u64::from_le_bytes(words[at..at + 8].try_into().unwrap_or_default());
        next += 8;
    }
    panic!("Linux would not come to the end of the page list");
}

fn read(machine: &HostedMachine, page: u64) -> [u8; 4096] {
    let mut bytes = [0; 4096];
    // A destination need not be RAM.
    let _ = machine.memory().read(page, &mut bytes);
    bytes
}

/// Honest images in both slots, one after the other, and each way to spoil one.
pub fn seeds() -> Vec<Vec<u8>> {
    let honest = |crash: u8| vec![crash, 1, 0, 0, 0];
    let mut all = vec![
        [vec![0], honest(0), vec![0], honest(1), vec![1], honest(0)].concat(),
        [vec![1], honest(0), vec![1], honest(0), vec![1], honest(0)].concat(),
        [vec![1], honest(1), vec![1], honest(0), vec![0], honest(1)].concat(),
    ];
    for how in 0..6 {
        for segment in 0..4 {
            all.push(vec![1, segment & 1, 1, 1, how, segment, 3, segment, 0, 0, 0]);
        }
    }
    for how in 0..9 {
        for at in [0, 3, 8, 9, 11, 31] {
            for word in [[1, 0, 0, 0, 2, 0, 0, 0], [3, 0, 0, 0, 9, 0, 0, 0], [0, 0x10, 0, 0, 0, 0, 0, 0]] {
                all.push([&[1, 0, 0, 0, 1, how, at, 0][..], &word, &[0, 0]].concat());
            }
        }
    }
    for wait in 0..12 {
        all.push(vec![1, wait & 1, 1, 0, 0, 3, wait, 0x40, 0, 0xff, wait * 5, 0]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsm_sim::vtl0::kexec::Image;

    /// Whole images in frames scattered in different ways: one of more ranges than the driver's list pages have room for here.
    #[test]
    fn an_honest_image_is_accepted_however_its_frames_lie() {
        for order in [0x01, 0x03, 0x09, 0x11, 0x58, 0x59, 0xff] {
            run(&[0, 0, order, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        run(&[1, 0, 0, 0x58, 3, 4, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_kernel_that_is_started_is_looked_at() {
        // The oracle itself: another kernel in the source pages would be found out.
        let machine = machine::new();
        let placed = place(&mut Input::new(&[]), &machine::memory(&machine), &LAYOUT, false);
        let placed = placed.expect("a free machine").placed;
        let image = Image::new(KERNEL_FILE, LAYOUT.image << 12, false).expect("a kernel");
        let kernel = image.segments[vsm_sim::vtl0::kexec::KERNEL].clone();
        let frames = litebox_platform_lvbs::address::FrameRange::from_bytes(kernel.start, kernel.start + kernel.size);
        let kept = KexecMemoryMetadata { frames: 0, segments: 4, kernel: frames.expect("frames") };
        check_kernel(&machine, &started(&machine, placed.kimage, true, |_| true), kept);
        let page = placed.sources[vsm_sim::vtl0::kexec::KERNEL][1];
        machine.vtl0_write(0, page + 5, &[read(&machine, page)[5] ^ 1]).expect("it is VTL0's");
        let wrong = std::panic::AssertUnwindSafe(|| {
            check_kernel(&machine, &started(&machine, placed.kimage, false, |_| true), kept);
        });
        assert!(std::panic::catch_unwind(wrong).is_err());
    }
}
