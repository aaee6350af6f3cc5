//! How much `unsafe` each crate may have. The numbers may only fall.

use std::collections::BTreeMap;

use crate::tree::{File, sources};
use crate::unsafety::sites;
use crate::{Finding, assert_none};

/// Sites of `unsafe` (blocks, functions, traits, implementations, foreign blocks, attributes) by crate; tests and
/// benchmarks count. Whoever removes some lowers the number; it is not raised but with a good reason in the review.
const SITES: [(&str, usize); 8] = [
    ("fuzz", 0),
    ("litebox_platform_lvbs", 67),
    ("litebox_runner_lvbs", 9),
    ("vsm_handlers", 0),
    ("vsm_integrity", 0),
    ("vsm_macros", 0),
    ("vsm_sim", 23),
    ("xtask", 0),
];

/// Crates that the compiler keeps free of it.
const FORBID: [&str; 3] = ["vsm_handlers", "vsm_integrity", "vsm_macros"];

/// The only places in the simulator that may have some: the engine, and tests that talk to it or count allocations.
const IN_SIMULATOR: [&str; 3] = ["vsm_sim/src/engine/", "vsm_sim/tests/engine/", "vsm_sim/tests/heap/counting.rs"];

fn count(files: &[File]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for file in files {
        // The build script at the root is the runner's.
        let part = if file.path == "build.rs" { "litebox_runner_lvbs" } else { file.top() };
        *counts.entry(part).or_default() += sites(&file.path, &file.text).len();
    }
    counts
}

fn compare(allowed: &[(&str, usize)], counts: &BTreeMap<&str, usize>) -> Vec<Finding> {
    let table = file!();
    let judge = |(part, now): (&&str, &usize)| {
        let what = match allowed.iter().find(|(name, _)| name == part) {
            None => format!("crate {part} is not in the table: add a row with {now}"),
            Some((_, limit)) if now > limit => format!(
                "{part} has {now} sites of `unsafe`, {limit} are allowed: use what is there already, or put the new one \
                 behind a safe interface and take another away"
            ),
            Some((_, limit)) if now < limit => {
                format!("{part} has only {now} sites of `unsafe` left: lower the number from {limit} to {now}")
            }
            Some(_) => return None,
        };
        Some(Finding::new(table, 1, what))
    };
    let gone = allowed.iter().filter(|(part, _)| !counts.contains_key(part));
    let gone = gone.map(|(part, _)| Finding::new(table, 1, format!("there is no crate {part}: remove its row")));
    counts.iter().filter_map(judge).chain(gone).collect()
}

fn misplaced(files: &[File]) -> Vec<Finding> {
    let simulator = files.iter().filter(|file| file.top() == "vsm_sim");
    let outside = simulator.filter(|file| !IN_SIMULATOR.iter().any(|place| file.path.starts_with(place)));
    let finding = |file: &File| {
        let site = sites(&file.path, &file.text).into_iter().next()?;
        Some(Finding::new(&file.path, site.line, "in the simulator only the engine may have `unsafe`"))
    };
    outside.filter_map(finding).collect()
}

fn forbids_unsafe(text: &str) -> bool {
    let file = syn::parse_file(text).expect("the root of a crate is Rust");
    file.attrs.iter().any(|attribute| {
        attribute.path().is_ident("forbid")
            && attribute.parse_args::<syn::Path>().is_ok_and(|lint| lint.is_ident("unsafe_code"))
    })
}

#[test]
fn there_is_no_more_unsafe_than_before() {
    assert_none(&compare(&SITES, &count(&sources())));
}

#[test]
fn unsafe_in_the_simulator_is_the_engines() {
    assert_none(&misplaced(&sources()));
}

#[test]
fn handlers_and_macros_forbid_unsafe() {
    let sources = sources();
    for part in FORBID {
        let root = sources.iter().find(|file| file.path == format!("{part}/src/lib.rs")).expect("a crate has a root");
        assert!(forbids_unsafe(&root.text), "{}: must have #![forbid(unsafe_code)]", root.path);
        assert!(SITES.contains(&(part, 0)), "{part} must have 0 in the table");
    }
}

#[test]
fn the_ratchet_turns_one_way() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let one = "fn f() { unsafe {} }";
    let files = [file("a/src/lib.rs", one), file("a/tests/t.rs", one), file("b/src/lib.rs", "fn f() {}")];
    let counts = count(&files);
    assert_eq!(compare(&[("a", 2), ("b", 0)], &counts), []);
    let said =
        |allowed: &[(&str, usize)]| compare(allowed, &counts).iter().map(ToString::to_string).collect::<String>();
    assert!(said(&[("a", 1), ("b", 0)]).contains("a has 2 sites of `unsafe`, 1 are allowed"));
    assert!(said(&[("a", 3), ("b", 0)]).contains("lower the number from 3 to 2"));
    assert!(said(&[("a", 2)]).contains("crate b is not in the table"));
    assert!(said(&[("a", 2), ("b", 0), ("c", 0)]).contains("there is no crate c"));
}

#[test]
fn misplaced_unsafe_and_missing_forbid_are_found() {
    let file = |path: &str| File { path: path.to_owned(), text: "\nfn f() { unsafe {} }".to_owned() };
    let files = ["vsm_sim/src/engine/a.rs", "vsm_sim/src/hv/b.rs", "vsm_sim/tests/c.rs", "other/src/d.rs"].map(file);
    let found: Vec<String> = misplaced(&files).into_iter().map(|finding| finding.file).collect();
    assert_eq!(found, ["vsm_sim/src/hv/b.rs", "vsm_sim/tests/c.rs"]);
    assert!(forbids_unsafe("#![no_std]\n#![forbid(unsafe_code)]"));
    assert!(!forbids_unsafe("//! forbid(unsafe_code)\n#![deny(unsafe_code)]"));
}
