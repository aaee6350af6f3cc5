//! The life of two made-up modules, the second of which uses the first.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hv::{Access, Verdict};
use vsm_sim::vtl0::made_up::{FUNCTION, MadeUpKernel};
use vsm_sim::vtl0::modules::FILE;

use crate::linux::Linux;
use crate::setup::list;

#[test]
fn two_modules_live_and_go_in_the_right_order() {
    let kernel = MadeUpKernel::new(300).unwrap();
    for (seed, file_start) in [(None, 0), (None, 0xff8), (Some(1), 0), (Some(2), 0x123)] {
        let mut linux = Linux::booted(seed, &kernel.data);
        let before = linux.snapshot();
        let early = linux.place(&kernel.second, 0);
        assert_eq!(linux.validate(&early), Errno::Einval.to_result(), "the second before the first");
        assert!(linux.snapshot() == before);
        let first = linux.place(&kernel.first, file_start);
        assert_eq!(linux.validate(&first), 1);
        linux.assert_loaded(&first, 1, false);
        let second = linux.place(&kernel.second, file_start);
        assert_eq!(linux.validate(&second), 2);
        linux.assert_loaded(&second, 2, false);
        assert_eq!((linux.uses(1), linux.uses(2)), (vec![], vec![1]));
        assert_eq!((linux.sites(1), linux.sites(2)), (2, 2));
        assert_eq!((linux.calls(1), linux.calls(2)), (kernel.first.calls.len(), kernel.second.calls.len()));
        // What they export is VTL1's own knowledge.
        let modules = linux.machine.platform().vtl0().modules().lock();
        let exports: Vec<(String, u64, bool)> = modules
            .iter()
            .flat_map(|module| module.exports.iter().map(|symbol| (symbol.name.to_owned(), symbol.value, symbol.gpl)))
            .collect();
        drop(modules);
        let starts = [&kernel.first, &kernel.second].map(|module| module.parts[0].va);
        let expected = [("first", starts[0]), ("second", starts[1])].into_iter().flat_map(|(name, start)| {
            [("function", false), ("gpl", true)].map(|(what, gpl)| (format!("{name}_{what}"), start + FUNCTION, gpl))
        });
        assert_eq!(exports, expected.collect::<Vec<_>>());
        // The first is used, whether or not it has been initialised.
        assert_eq!(linux.unload(1), Errno::Ebusy.to_result());
        assert_eq!(linux.free_init(1), 0);
        linux.assert_loaded(&first, 1, true);
        linux.assert_loaded(&second, 2, false);
        assert_eq!((linux.sites(1), linux.sites(2)), (1, 2));
        assert_eq!(linux.calls(1), kernel.first.calls.len() - 1, "the one in the init text has gone");
        for call in [Linux::free_init, Linux::unload] {
            let during = linux.snapshot();
            assert_eq!(call(&linux, 1), Errno::Ebusy.to_result());
            assert!(linux.snapshot() == during);
        }
        // The second goes without having been initialised.
        assert_eq!(linux.unload(2), 0);
        linux.assert_free(&second.memory().map(|(_, page)| page).collect::<Vec<_>>());
        assert_eq!(linux.validate(&early), 3, "no token is used again at once");
        assert_eq!([linux.unload(1), linux.unload(3), linux.unload(1)], [Errno::Ebusy.to_result(), 0, 0]);
        let after = linux.snapshot();
        assert!(after.rights == before.rights && after.states == before.states);
        assert_eq!(linux.validate(&early), Errno::Einval.to_result(), "what the first exported has gone with it");
    }
}

#[test]
fn a_module_may_come_before_the_end_of_boot_and_again_once_it_is_gone() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::new(None);
    assert_eq!(linux.load_kdata(&kernel.data), 0);
    let placed = linux.place(&kernel.first, 8);
    let file_before: Vec<_> = placed.pages(FILE).iter().map(|page| linux.page(*page)).collect();
    assert_eq!(linux.validate(&placed), 1);
    let file_after: Vec<_> = placed.pages(FILE).iter().map(|page| linux.page(*page)).collect();
    assert_eq!(file_before, file_after, "the file's pages are what they were, executable too");
    // Its frames are taken now, for itself as well.
    assert_eq!(linux.validate(&placed), Errno::Eacces.to_result());
    // And so are its addresses, in other frames.
    let other = linux.place(&kernel.first, 0);
    assert_eq!(linux.validate(&other), Errno::Einval.to_result());
    for placed in [&placed] {
        for (kind, page) in placed.memory() {
            let may = |access| linux.machine.vtl0_may(1, page, access).is_ok();
            let (write, execute) = (may(Access::Write), may(Access::Execute));
            let text = matches!(kind, ModuleMemoryKind::Text | ModuleMemoryKind::InitText);
            let read_only = matches!(kind, ModuleMemoryKind::RoData | ModuleMemoryKind::InitRoData);
            assert_eq!((write, execute), (!text && !read_only, text), "{kind:?}");
        }
    }
    let text = placed.pages(0)[0];
    assert!(!matches!(linux.machine.vtl0_write(1, text, &[0xcc]), Ok(()) | Err(Verdict::Unmapped)));
    assert_eq!(linux.unload(1), 0);
    assert_eq!([linux.validate(&other), linux.unload(2)], [2, 0]);
    let registry = linux.machine.platform().frames().lock();
    assert!(registry.intervals().all(|state| !matches!(state.owner, Owner::Module { .. })));
}

#[test]
fn only_tokens_that_live_are_taken_and_only_flags_that_linux_has() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::booted(None, &kernel.data);
    let placed = linux.place(&kernel.first, 0);
    let list = list(&linux.machine, &placed.ranges);
    let before = linux.snapshot();
    let validate = |flags| linux.machine.vtl_call(0, VsmFunction::ValidateModule.id(), list.pa, list.nranges, flags);
    for flags in [8, 0xf, 1 << 32, u64::MAX] {
        assert_eq!(validate(flags), Errno::Einval.to_result(), "flags {flags:#x}");
        assert!(linux.snapshot() == before);
    }
    assert_eq!(validate(7), 1);
    let before = linux.snapshot();
    for token in [0, 2, -1, 1 << 31, (1 << 32) + 1, 0x7fff_ffff, i64::MIN, i64::MIN + 1] {
        assert_eq!([linux.free_init(token), linux.unload(token)], [Errno::Einval.to_result(); 2], "token {token:#x}");
        assert!(linux.snapshot() == before);
    }
}
