//! Pages of thunks against ITS: named, compared, and the module's until it goes.
//!
//! The captures are test data that lie beside the repository; without them nothing is tested here, and that is printed.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::modules::{Module, THUNKS};
use vsm_sim::vtl0::{bytes, patcher};

use crate::linux::Linux;
use crate::patch_text::patch;

const EINVAL: i64 = Errno::Einval.to_result();

/// Where no module is.
const FREE: u64 = 0xffff_ffff_c800_0000;

/// A machine on which a module's file and memory are all right, with what comes before it loaded; the module.
fn world() -> Option<(Linux, Module)> {
    let archives = captures::all_archives().unwrap();
    let Some(archive) = archives.get(2) else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return None;
    };
    let set = Set::open(archive).unwrap();
    let mut linux = Linux::captured(Some(7), &Capture::open(archive).unwrap());
    for index in 0..set.len() {
        let module = Module::captured(&set.module(index).unwrap()).unwrap();
        if !module.thunks.is_empty() {
            return Some((linux, module));
        }
        let placed = linux.place(&module, 0);
        let token = linux.validate(&placed);
        assert!(token > 0, "{}", module.name);
        // Its addresses for initialisation are those of the next module.
        assert_eq!(linux.free_init(token), 0);
    }
    panic!("no module has thunks")
}

#[test]
fn pages_of_thunks_live_as_long_as_their_module() {
    let Some((mut linux, module)) = world() else { return };
    let placed = linux.place(&module, 0);
    let pages: Vec<u64> = placed.thunks().collect();
    assert_eq!(pages.len(), module.thunks.len());
    let token = linux.validate(&placed);
    linux.assert_loaded(&placed, token, false);
    // Nothing of them is a patch site, and nobody else can have them.
    let site = placed.place_of(module.parts[0].va, 5).unwrap();
    for step in patcher::poke_code(&Site { pa: pages[0] + 32, ..site }, &[0xe9, 1, 2, 3, 4]) {
        assert_eq!(patch(&linux.machine, step), EINVAL);
    }
    assert_eq!(linux.free_init(token), 0);
    linux.assert_loaded(&placed, token, true);
    let again = linux.place(&Module { thunks: Vec::new(), ..module.clone() }, 0);
    let mut stolen = again.ranges.clone();
    stolen.push(Range { va: module.thunks[0].0, pa: pages[0], epa: pages[0] + 4096, attributes: THUNKS });
    let before = linux.snapshot();
    assert_eq!(linux.call(VsmFunction::ValidateModule, &stolen), Errno::Eacces.to_result());
    assert!(linux.snapshot() == before);
    assert_eq!(linux.unload(token), 0);
    linux.assert_free(&pages);
}

#[test]
fn only_the_modules_own_pages_with_its_own_thunks_are_accepted() {
    let Some((mut linux, module)) = world() else { return };
    linux.machine.keep_log();
    let refused = |linux: &mut Linux, module: &Module, why: &str| {
        let placed = linux.place(module, 0);
        let before = linux.snapshot();
        assert_eq!(linux.validate(&placed), EINVAL, "{why}");
        assert!(linux.snapshot() == before, "{why}");
        let last = linux.machine.log_lines().last().cloned().unwrap_or_default();
        assert!(last.contains(why), "{why}: {last}");
        placed.free(&mut linux.frames, |_| true);
    };
    let with = |thunks: Vec<(u64, Vec<u8>)>| Module { thunks, ..module.clone() };
    let (va, page) = module.thunks[0].clone();
    refused(&mut linux, &with(Vec::new()), "must be on its list, as ranges of kind 9");
    refused(&mut linux, &with(vec![(FREE, page.clone())]), "must be on its list, as ranges of kind 9");
    let more = [module.thunks.clone(), vec![(FREE, page.clone())]].concat();
    refused(&mut linux, &with(more), "must not come with pages of thunks that it does not branch to");
    // In the kernel's own text, where a branch would run that instead.
    let text = linux.machine.platform().vtl0().kernel_data().expect("kernel data").text;
    let in_kernel = (0xffff_ffff_8000_0000..=0xffff_ffff_f000_0000).step_by(0x10_0000).find(|va| text.contains(*va));
    let in_kernel = in_kernel.expect("the captured kernel's text is known");
    refused(&mut linux, &with(vec![(in_kernel, page.clone())]), "its memory must not lie in the kernel's text");
    for at in [0, 31, 32, 33, 34, 4095] {
        let mut page = page.clone();
        page[at] ^= 1;
        let thunks = [vec![(va, page)], module.thunks[1..].to_vec()].concat();
        refused(&mut linux, &with(thunks), "a page of thunks must hold what follows from the module's file");
    }
    let mut twice = module.thunks.clone();
    twice.push((va, page));
    // By now the log is limited to what it has.
    refused(&mut linux, &with(twice), "");
    // Half a page.
    let placed = linux.place(&module, 0);
    let mut half = placed.clone();
    for range in half.ranges.iter_mut().filter(|range| range.attributes == THUNKS) {
        range.epa -= 0x800;
    }
    assert_eq!(linux.validate(&half), EINVAL);
    // And a number that is none.
    half.ranges = placed.ranges.clone();
    for range in half.ranges.iter_mut().filter(|range| range.attributes == THUNKS) {
        range.attributes = THUNKS + 1;
    }
    assert_eq!(linux.validate(&half), EINVAL);
    // What VTL0 writes afterwards into a refused module's pages is its own business, and seen by the next attempt.
    bytes::write(linux.machine.memory(), placed.thunks().next().unwrap(), &[0x90]).unwrap();
    assert_eq!(linux.validate(&placed), EINVAL);
    bytes::write(linux.machine.memory(), placed.thunks().next().unwrap(), &[0xcc]).unwrap();
    assert!(linux.validate(&placed) > 0);
}
