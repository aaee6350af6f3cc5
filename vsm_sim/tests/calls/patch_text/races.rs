//! Two processors that patch at once, and one that patches what the other unloads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hv::GuestMemory;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::made_up::MadeUpKernel;
use vsm_sim::vtl0::patcher::{Form, INT3, bytes_of, poke, poke_code};
use vsm_sim::vtl0::ranges::READ_WRITE;

use super::{booted, patch_on, site_bytes, sites, start_second_processor, write_site};
use crate::linux::{Linux, RAM};
use crate::setup::end_boot;

#[test]
fn two_processors_on_different_sites_do_not_disturb_each_other() {
    const ROUNDS: usize = 600;
    let sites = sites();
    let machine = booted(&sites);
    // Each has every other site: neighbours that touch, and pages that both write.
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for vp in 0..2 {
            let (machine, barrier) = (&machine, &barrier);
            let mine: Vec<_> = sites.iter().skip(usize::try_from(vp).unwrap()).step_by(2).collect();
            scope.spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    let site = mine[round % mine.len()];
                    let form = if round / mine.len() % 2 == 0 { Form::Nop } else { Form::Jump };
                    for step in poke(site, form) {
                        assert_eq!(patch_on(machine, vp, step), 0, "{site:x?} on VP {vp}, round {round}");
                    }
                    assert_eq!(site_bytes(machine, site), bytes_of(site, form), "VP {vp}, round {round}");
                }
            });
        }
    });
}

/// One processor loads and unloads a module, and uses its memory for something else in between; the other one patches it
/// all the time. What it patches is the module's text, or nothing.
#[test]
fn patching_races_with_unloading() {
    const ROUNDS: usize = 30;
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::new(Some(4));
    start_second_processor(&linux.machine);
    assert_eq!(linux.load_kdata(&kernel.data), 0);
    assert_eq!(linux.call(VsmFunction::ProtectMemory, &[Range::direct(0, RAM << 12, READ_WRITE)]), 0);
    assert_eq!(end_boot(&linux.machine), 0);
    let placed = linux.place(&kernel.first, 0);
    let sites: Vec<_> = kernel.first.calls.iter().map(|call| placed.place_of(call.va, call.compiled.len())).collect();
    let calls: Vec<_> = kernel.first.calls.iter().zip(sites.into_iter().map(Result::unwrap)).collect();
    let done = AtomicBool::new(false);
    let steps = AtomicU32::new(0);
    let (linux, calls) = (&linux, &calls);
    // However busy the host is, the other processor gets a turn. Bounded, for it may have failed.
    let let_patch = || {
        let before = steps.load(Ordering::Relaxed);
        let mut patience = 1_000_000;
        while steps.load(Ordering::Relaxed) == before && patience > 0 {
            patience -= 1;
            std::thread::yield_now();
        }
    };
    let counts = std::thread::scope(|scope| {
        let patcher = scope.spawn(|| {
            let mut counts = [0_u32; 3];
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                let (call, site) = calls[turn / 4 % calls.len()];
                let code = if turn % 2 == 0 { &call.direct } else { &call.compiled };
                for step in poke_code(&site, code) {
                    // -EINVAL is out of turn: the module has come anew meanwhile.
                    let answers = [0, Errno::Enoent.to_result(), Errno::Einval.to_result()];
                    let result = patch_on(&linux.machine, 1, step);
                    let answer = answers.iter().position(|answer| *answer == result);
                    counts[answer.unwrap_or_else(|| panic!("{result}"))] += 1;
                    steps.fetch_add(1, Ordering::Relaxed);
                }
                turn += 1;
            }
            counts
        });
        for round in 1..=ROUNDS {
            let token = linux.validate(&placed);
            assert!(token > 0, "round {round}: {token}");
            let_patch();
            for (_, site) in calls {
                let head = site_bytes(&linux.machine, site)[0];
                assert!([0xe8, 0xe9, 0x0f, INT3].contains(&head), "{head:#x}");
            }
            assert_eq!(linux.unload(token), 0);
            // From here on it is VTL0's memory: what VTL0 puts there stays.
            for (call, site) in calls {
                write_site(&linux.machine, site, &vec![0x5a; call.compiled.len()]);
            }
            for _ in 0..3 {
                let_patch();
                for (call, site) in calls {
                    assert_eq!(site_bytes(&linux.machine, site), vec![0x5a; call.compiled.len()], "round {round}");
                }
            }
            for (call, site) in calls {
                write_site(&linux.machine, site, &call.compiled);
            }
        }
        done.store(true, Ordering::Relaxed);
        patcher.join().unwrap()
    });
    println!("{} steps taken, {} in ordinary memory, {} out of turn", counts[0], counts[1], counts[2]);
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    let mut byte = [0];
    linux.machine.memory().read(calls[0].1.pa, &mut byte).unwrap();
    assert_eq!(byte[0], calls[0].0.compiled[0]);
}
