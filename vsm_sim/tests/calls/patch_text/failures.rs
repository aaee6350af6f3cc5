//! A fault at each access of a step: nothing has been written then, not even a part.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use litebox_platform_lvbs::Errno;
use vsm_sim::hosted::RacePoint;
use vsm_sim::vtl0::patcher::{Form, poke, poke_code};

use super::modules::{Loaded, NOP};
use super::{booted, near, patch, site_bytes, sites, write_site};

#[test]
fn a_fault_at_any_access_leaves_everything_as_it_was() {
    let sites = sites();
    let machine = booted(&sites);
    let (mut faults, mut on_two_pages) = (0, 0);
    for site in &sites {
        for form in [Form::Nop, Form::Jump] {
            for step in poke(site, form) {
                let before = near(&machine, site);
                let mut accesses = 0;
                loop {
                    machine.memory().fail_access_after(Some(accesses));
                    let result = patch(&machine, step);
                    let pending = machine.memory().is_failure_pending();
                    machine.memory().fail_access_after(None);
                    if pending {
                        assert_eq!(result, 0, "{site:x?}: {step:x?}");
                        break;
                    }
                    assert_eq!(result, Errno::Efault.to_result(), "{site:x?}: {step:x?}, access {accesses}");
                    assert!(near(&machine, site) == before, "{site:x?}: {step:x?}, access {accesses}");
                    faults += 1;
                    accesses += 1;
                }
                // The request, the site, the bytes: each on one page, or on two.
                assert!((3..=5).contains(&accesses), "{accesses}");
                on_two_pages += usize::from(accesses == 5);
            }
        }
    }
    println!("{faults} faults");
    assert!(faults > 200 && on_two_pages > 0);
}

#[test]
fn a_step_makes_no_hypercall_that_could_fail() {
    let sites = sites();
    let machine = booted(&sites);
    let hypercalls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hypercalls);
    machine.memory().set_race(Some(Box::new(move |point, _| {
        count.fetch_add(usize::from(matches!(point, RacePoint::AfterHypercall(_))), Ordering::Relaxed);
    })));
    for step in sites.iter().flat_map(|site| poke(site, Form::Nop)) {
        assert_eq!(patch(&machine, step), 0);
    }
    assert_eq!(hypercalls.load(Ordering::Relaxed), 0);
    // It does count.
    assert_eq!(machine.vtl_call(1, 0, 0, 0, 0), Errno::Einval.to_result());
    assert!(hypercalls.load(Ordering::Relaxed) > 0, "the second processor is locked on its way back");
}

#[test]
fn a_fault_at_any_access_leaves_a_static_call_as_it_was() {
    let loaded = Loaded::new(Some(3));
    let machine = &loaded.linux.machine;
    let before = loaded.linux.snapshot();
    for (call, site) in loaded.calls(0) {
        for step in poke_code(&site, &call.direct) {
            let bytes = near(machine, &site);
            for access in 0.. {
                machine.memory().fail_access_after(Some(access));
                let result = patch(machine, step);
                let pending = machine.memory().is_failure_pending();
                machine.memory().fail_access_after(None);
                if pending {
                    assert_eq!(result, 0, "{call:x?}");
                    break;
                }
                assert_eq!(result, Errno::Efault.to_result(), "{call:x?}, access {access}");
                assert!(near(machine, &site) == bytes, "{call:x?}, access {access}");
            }
        }
        assert_eq!(site_bytes(machine, &site), call.direct);
    }
    assert!(loaded.linux.snapshot() == before, "no owner, no right and no site has changed");
    let (call, site) = loaded.calls(0)[0].clone();
    write_site(machine, &site, &call.compiled);
    assert_eq!(loaded.poke(&site, &NOP), 0);
}
