//! Jump labels that are switched on and off, as Linux does it.

use vsm_sim::vtl0::captures::{Capture, archives};
use vsm_sim::vtl0::kdata::Site;
use vsm_sim::vtl0::patcher::{Form, INT3, bytes_of, poke};

use super::{TEXT, booted, near, patch, site_bytes, sites, text, write_site};

/// What the site's bytes are after each of the three steps.
fn stages(site: &Site, from: Form, to: Form) -> [Vec<u8>; 3] {
    let (from, to) = (bytes_of(site, from), bytes_of(site, to));
    [[&[INT3], &from[1..]].concat(), [&[INT3], &to[1..]].concat(), to]
}

#[test]
fn each_step_changes_the_bytes_it_names_and_no_others() {
    let sites = sites();
    let machine = booted(&sites);
    for site in &sites {
        for (from, to) in [(Form::Jump, Form::Nop), (Form::Nop, Form::Jump), (Form::Jump, Form::Jump)] {
            for (step, stage) in poke(site, to).into_iter().zip(stages(site, from, to)) {
                let before = near(&machine, site);
                let old = site_bytes(&machine, site);
                assert_eq!(patch(&machine, step), 0, "{site:x?}: {step:x?}");
                assert_eq!(site_bytes(&machine, site), stage, "{site:x?}: {step:x?}");
                // Put back, nothing else has changed.
                write_site(&machine, site, &old);
                assert!(near(&machine, site) == before, "{site:x?}: {step:x?}");
                write_site(&machine, site, &stage);
            }
        }
    }
}

#[test]
fn a_poke_may_be_taken_back_half_way() {
    let site = sites()[0];
    let machine = booted(&[site]);
    let ([int3, tail, _], back) = (poke(&site, Form::Nop), poke(&site, Form::Jump));
    for steps in [vec![int3, back[2]], vec![int3, tail, back[1], back[2]]] {
        for step in steps {
            assert_eq!(patch(&machine, step), 0, "{step:x?}");
        }
        assert_eq!(site_bytes(&machine, &site), bytes_of(&site, Form::Jump));
    }
}

/// Linux switches many labels at once: every step of all of them before the next step.
#[test]
fn sites_do_not_disturb_each_other() {
    let sites = sites();
    let machine = booted(&sites);
    for form in [Form::Nop, Form::Jump] {
        for step in 0..3 {
            for site in &sites {
                assert_eq!(patch(&machine, poke(site, form)[step]), 0, "{site:x?}");
            }
        }
        for site in &sites {
            assert_eq!(site_bytes(&machine, site), bytes_of(site, form));
        }
    }
}

#[test]
fn every_site_of_a_real_kernel_is_switched_off_and_on() {
    let archives = archives().unwrap();
    if archives.is_empty() {
        println!("skipped: there are no captures in ../shared/captures");
    }
    for archive in archives {
        let capture = Capture::open(&archive).unwrap();
        let sites = capture.sites(TEXT.start << 12).unwrap();
        let machine = booted(&sites);
        let before = text(&machine);
        for site in &sites {
            for (from, to) in [(Form::Jump, Form::Nop), (Form::Nop, Form::Jump)] {
                for (step, stage) in poke(site, to).into_iter().zip(stages(site, from, to)) {
                    assert_eq!(patch(&machine, step), 0, "{site:x?}: {step:x?}");
                    assert_eq!(site_bytes(&machine, site), stage, "{site:x?}: {step:x?}");
                }
            }
        }
        assert!(text(&machine) == before);
        println!("{}: {} sites switched off and on", capture.name(), sites.len());
    }
}
