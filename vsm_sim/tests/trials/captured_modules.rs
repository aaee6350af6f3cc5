//! Modules that real kernels have loaded, from captures of their memory: each is accepted, and no change of one.
//!
//! The captures lie beside the repository or nowhere; where they are not, the tests say so and pass.

use std::path::Path;

use vsm_sim::trials::validate::accept::{Acceptance, NoMeter};
use vsm_sim::trials::validate::mutate::{self, Extent};
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures;

/// Opens the capture sets, one after the other.
fn each_set(look: impl Fn(&Set)) {
    let archives = captures::all_archives().unwrap();
    if archives.is_empty() {
        println!("skipped: there are no captures in ../shared/captures");
    }
    for archive in archives {
        look(&open(&archive));
    }
}

fn open(archive: &Path) -> Set {
    Set::open(archive).unwrap_or_else(|error| panic!("{}: {error:#}", archive.display()))
}

#[test]
fn every_captured_module_is_explained() {
    each_set(|set| {
        let mut acceptance = Acceptance::new(set).unwrap();
        let mut refused = Vec::new();
        while let Some((_, outcome)) = acceptance.step(&NoMeter).unwrap() {
            if let Err(error) = outcome.result {
                refused.push(format!("{}: {error}", outcome.name));
            }
        }
        assert!(!set.is_empty());
        assert!(refused.is_empty(), "{}: {refused:#?}", set.name());
    });
}

/// Changes all modules of all sets.
fn mutate_all(extent: Extent) {
    each_set(|set| {
        let mut acceptance = Acceptance::new(set).unwrap();
        loop {
            let exports = acceptance.exports().clone();
            let Some((captured, _)) = acceptance.step(&NoMeter).unwrap() else { break };
            let kernel = set.kernel(&exports, acceptance.texts()).unwrap();
            let done = mutate::run(&captured, kernel, &exports, acceptance.habits(), extent).unwrap();
            assert!(done.bits > 0, "{}", captured.name);
            assert!(done.survivors.is_empty(), "{}: {:x?}", captured.name, done.survivors);
        }
    });
}

#[test]
fn no_changed_module_is_accepted() {
    mutate_all(Extent { bytes: 20, relocations: 200 });
}

#[test]
#[ignore = "takes minutes with optimisation; `cargo xtask validate-capture DIR --mutate 2000` does the same"]
fn no_changed_module_is_accepted_at_length() {
    mutate_all(Extent { bytes: 2000, relocations: 1 });
}
