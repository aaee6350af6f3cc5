//! Every captured module, through its whole life, in the order in which the real kernel loaded them.
//!
//! The captures are test data that lie beside the repository; without them nothing is tested here, and that is printed.

use std::collections::HashMap;
use std::path::Path;

use litebox_platform_lvbs::Errno;
use vsm_integrity::generation::KernelGeneration;
use vsm_sim::trials::validate::set::Set;
use vsm_sim::vtl0::captures::{self, Capture};
use vsm_sim::vtl0::modules::{FILE, Module, PATCHES, Placed};

use crate::linux::Linux;
use crate::setup::end_boot;

/// A module that VTL0 has loaded.
struct Loaded {
    module: Module,
    placed: Placed,
    token: i64,
}

/// Loads all modules of a set; checks everything that must be so on the way.
fn load_all(archive: &Path, seed: Option<u64>) -> (Linux, Vec<Loaded>) {
    let set = Set::open(archive).unwrap();
    let mut linux = Linux::captured(seed, &Capture::open(archive).unwrap());
    linux.machine.keep_log();
    let generation = linux.machine.platform().vtl0().kernel_data().unwrap().generation;
    let is_6_12 = archive.to_string_lossy().contains("6.12.");
    assert_eq!(generation, if is_6_12 { KernelGeneration::From6_8 } else { KernelGeneration::UpTo6_1 });
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut tokens: HashMap<String, i64> = HashMap::new();
    for index in 0..set.len() {
        let captured = set.module(index).unwrap();
        let module = Module::captured(&captured).unwrap();
        // Every other file starts within a page.
        let placed = linux.place(&module, [0, 0x7f8][index % 2]);
        let token = linux.validate(&placed);
        let name = &module.name;
        assert!(
            (1..=0x7fff_ffff).contains(&token),
            "{name}: {token}\n{:#?}",
            linux.machine.log_lines().iter().rev().take(2).collect::<Vec<_>>()
        );
        assert!(tokens.values().all(|other| *other != token), "{name}: token {token} lives");
        linux.assert_loaded(&placed, token, false);
        assert_eq!(linux.sites(token), module.labels.len(), "{name}");
        let used: Vec<i64> = linux.uses(token);
        for depends in &module.uses {
            assert!(used.contains(&tokens[depends]), "{name} uses {depends}");
        }
        assert_eq!(used.len(), module.uses.len(), "{name} uses {used:?}, {:?}", module.uses);
        placed.free(&mut linux.frames, |kind| kind == FILE || kind == PATCHES);
        // Once, and not again.
        assert_eq!(linux.free_init(token), 0, "{name}");
        linux.assert_loaded(&placed, token, true);
        let init = |va: u64| {
            module
                .parts
                .iter()
                .any(|part| part.kind.is_init() && (part.va..part.va + part.bytes.len() as u64).contains(&va))
        };
        let labels = module.labels.iter().filter(|label| !init(label.va)).count();
        assert_eq!(linux.sites(token), labels, "{name}");
        let before = linux.snapshot();
        assert_eq!(linux.free_init(token), Errno::Ebusy.to_result(), "{name}");
        assert!(linux.snapshot() == before, "{name}");
        placed.free(&mut linux.frames, |kind| (4..FILE).contains(&kind));
        tokens.insert(name.clone(), token);
        loaded.push(Loaded { module, placed, token });
    }
    (linux, loaded)
}

/// Unloads modules: in the wrong order those that are used stay; in the right one all go.
fn unload_all(linux: &mut Linux, loaded: &[Loaded]) {
    let used: Vec<i64> = loaded.iter().flat_map(|module| linux.uses(module.token)).collect();
    for module in loaded.iter().filter(|module| used.contains(&module.token)) {
        let before = linux.snapshot();
        assert_eq!(linux.unload(module.token), Errno::Ebusy.to_result(), "{}", module.module.name);
        assert!(linux.snapshot() == before);
    }
    for Loaded { module, placed, token } in loaded.iter().rev() {
        assert_eq!(linux.unload(*token), 0, "{}", module.name);
        let core: Vec<u64> = placed.memory().filter(|(kind, _)| !kind.is_init()).map(|(_, page)| page).collect();
        linux.assert_free(&core);
        linux.assert_free(&placed.thunks().collect::<Vec<_>>());
        assert_eq!(linux.unload(*token), Errno::Einval.to_result(), "{} is gone", module.name);
    }
}

fn whole_life(which: usize, seed: Option<u64>) {
    let archives = captures::all_archives().unwrap();
    let Some(archive) = archives.get(which) else {
        println!("SKIPPED: there are no captures of real modules beside the repository");
        return;
    };
    let (mut linux, loaded) = load_all(archive, seed);
    println!(
        "{} modules accepted, {} list ranges for the largest",
        loaded.len(),
        loaded.iter().map(|module| module.placed.ranges.len()).max().unwrap()
    );
    let user = loaded.iter().rfind(|module| !module.module.uses.is_empty()).unwrap();
    unload_all(&mut linux, &loaded);
    // What the modules exported has gone with them.
    let placed = linux.place(&user.module, 0);
    assert_eq!(linux.validate(&placed), Errno::Einval.to_result(), "{} without the modules it uses", user.module.name);
    let registry = linux.machine.platform().frames().lock();
    assert!(
        registry.intervals().all(|state| !matches!(state.owner, litebox_platform_lvbs::owner::Owner::Module { .. }))
    );
}

#[test]
fn every_module_of_the_first_set_lives_its_life() {
    whole_life(0, None);
}

#[test]
fn every_module_of_the_second_set_lives_its_life_in_scattered_frames() {
    whole_life(1, Some(3));
}

#[test]
fn every_module_of_6_12_against_its_lives_its_life_in_scattered_frames() {
    whole_life(2, Some(4));
}

#[test]
fn every_module_of_6_12_lives_its_life() {
    whole_life(3, None);
}

#[test]
fn every_module_of_6_12_that_counts_calls_lives_its_life_in_scattered_frames() {
    whole_life(4, Some(5));
}

/// What PatchText cannot follow is said where an operator looks.
#[test]
fn a_kernel_that_counts_calls_is_named_in_its_modules_lines_and_at_the_end_of_boot() {
    let archives = captures::all_archives().unwrap();
    for (which, counts) in [(3, false), (4, true)] {
        let Some(archive) = archives.get(which) else {
            println!("SKIPPED: there are no captures of real modules beside the repository");
            return;
        };
        let set = Set::open(archive).unwrap();
        let mut linux = Linux::captured_in_boot(None, &Capture::open(archive).unwrap(), true);
        linux.machine.keep_log();
        for index in 0..4 {
            let module = Module::captured(&set.module(index).unwrap()).unwrap();
            let placed = linux.place(&module, 0);
            let token = linux.validate(&placed);
            assert!(token > 0 && linux.free_init(token) == 0, "{}", module.name);
        }
        assert_eq!(end_boot(&linux.machine), 0);
        let log = linux.machine.log_lines();
        let said = |start: &str| log.iter().any(|line| line.contains(start) && line.contains("(retbleed=stuff)"));
        assert_eq!(["is accepted", "end of boot"].map(said), [counts; 2], "{log:#?}");
    }
}
