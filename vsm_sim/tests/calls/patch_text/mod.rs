//! PatchText over the hypervisor model: what a text poke does, and what no request can do.

mod captured;
mod failures;
mod flips;
mod hostile;
mod kernel_calls;
mod modules;
mod races;
mod static_calls;

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::hv::GuestMemory;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::{KernelData, Site, consecutive, patch_record};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::patcher::{Form, Patch, bytes_of, place_of};

use crate::setup::{self, call_with_list, end_boot};

/// Frames of RAM: 256 MiB. VTL1's among them.
const RAM: u64 = 1 << 16;
const VTL1: std::ops::Range<u64> = 0x6000..0x7000;
/// The kernel's text, and what else is sealed, as frames.
const TEXT: std::ops::Range<u64> = 0x8000..0xc000;
const RODATA: std::ops::Range<u64> = 0xc000..0xc010;
/// Where the objects of LoadKData lie, and where a request is put.
const OBJECTS: (u64, u64) = (0xd00_0000, 0xfff_0000);
const REQUEST: u64 = 0x700_0100;

/// A machine whose kernel has these patch sites, all of them jumps, and has booted.
fn booted(sites: &[Site]) -> HostedMachine {
    let machine = setup::machine(RAM, VTL1);
    for site in sites {
        write_site(&machine, site, &bytes_of(site, Form::Jump));
    }
    start_second_processor(&machine);
    let kernel = KernelData { patches: patch_record(sites), ..KernelData::made_up(20, 1).0 };
    let ranges = kernel.write(machine.memory(), consecutive(OBJECTS.0, OBJECTS.1)).unwrap();
    assert_eq!(call_with_list(&machine, VsmFunction::LoadKData, &ranges, 0), 0);
    let sealed = |gfns: &std::ops::Range<u64>, rights| Range::direct(gfns.start << 12, gfns.end << 12, rights);
    let list = [
        Range::direct(0, TEXT.start << 12, 3),
        sealed(&TEXT, 5),
        sealed(&RODATA, 1),
        Range::direct(RODATA.end << 12, RAM << 12, 3),
    ];
    assert_eq!(call_with_list(&machine, VsmFunction::ProtectMemory, &list, 0), 0);
    assert_eq!(end_boot(&machine), 0);
    machine
}

/// Writes a site's bytes past all protection.
fn write_site(machine: &HostedMachine, site: &Site, bytes: &[u8]) {
    for (index, byte) in (0..).zip(bytes) {
        machine.memory().write(place_of(site, index), &[*byte]).unwrap();
    }
}

/// A site's bytes.
fn site_bytes(machine: &HostedMachine, site: &Site) -> Vec<u8> {
    let byte = |index| {
        let mut byte = [0];
        machine.memory().read(place_of(site, index), &mut byte).unwrap();
        byte[0]
    };
    (0..u64::from(site.size)).map(byte).collect()
}

/// Makes the request from a place of its own.
pub(crate) fn patch(machine: &HostedMachine, patch: Patch) -> i64 {
    patch_on(machine, 0, patch)
}

/// The same on a processor, from a place of the processor's.
fn patch_on(machine: &HostedMachine, vp: u32, patch: Patch) -> i64 {
    let at = REQUEST + u64::from(vp) * 0x400;
    machine.memory().write(at, &patch.to_bytes()).unwrap();
    machine.vtl_call(vp, VsmFunction::PatchText.id(), at, 0, 0)
}

/// EnableAPsVtl for both processors, and the second one's first entry. During boot only.
fn start_second_processor(machine: &HostedMachine) {
    machine.memory().write(REQUEST & !0xfff, &[3]).unwrap();
    assert_eq!(machine.vtl_call(0, VsmFunction::EnableAPsVtl.id(), REQUEST >> 12, 0, 0), 0);
    machine.first_entry(1).unwrap();
}

/// All of the text and what lies around it.
fn text(machine: &HostedMachine) -> Vec<u8> {
    let (start, end) = ((TEXT.start - 2) << 12, (RODATA.end + 2) << 12);
    let mut text = vec![0; usize::try_from(end - start).unwrap()];
    bytes::read(machine.memory(), start, &mut text).unwrap();
    text
}

/// The pages that a site is in, and those around them.
fn near(machine: &HostedMachine, site: &Site) -> Vec<u8> {
    let mut pages = vec![0; 6 * 4096];
    for (part, page) in pages.chunks_mut(3 * 4096).zip([site.pa & !0xfff, site.next_page.max(0x2000)]) {
        bytes::read(machine.memory(), page - 0x1000, part).unwrap();
    }
    pages
}

/// Sites of both sizes, within a page and across one after each byte, on pages that are neighbours and that are not.
fn sites() -> Vec<Site> {
    let base = TEXT.start << 12;
    let long = [0xe9, 0x11, 0x22, 0x33, 0x44];
    let short = [0xeb, 0x7f, 0, 0, 0];
    let mut sites = vec![
        Site { pa: base, next_page: 0, jump: long, size: 5 },
        Site { pa: base + 5, next_page: 0, jump: short, size: 2 },
        Site { pa: base + 7, next_page: 0, jump: long, size: 5 },
        // A displacement that looks like a NOP's second byte, and one that looks like INT3.
        Site { pa: base + 0x100, next_page: 0, jump: [0xeb, 0x90, 0, 0, 0], size: 2 },
        Site { pa: base + 0x110, next_page: 0, jump: [0xeb, 0xcc, 0, 0, 0], size: 2 },
        Site { pa: base + 0x120, next_page: 0, jump: [0xe9, 0xcc, 0xcc, 0xcc, 0xcc], size: 5 },
        // The last bytes of a page.
        Site { pa: base + 0x1ffb, next_page: 0, jump: long, size: 5 },
    ];
    for on_first in 1..5 {
        let pa = base + (0x10 + 0x10 * on_first) * 0x1000 - on_first;
        let next_page = if on_first % 2 == 0 { pa + on_first } else { pa + on_first + 0x10_0000 };
        sites.push(Site { pa, next_page, jump: long, size: 5 });
    }
    sites.push(Site { pa: base + 0x20_0fff, next_page: base + 0x30_0000, jump: short, size: 2 });
    sites
}
