//! What a contributor sees: each fixture under `ui/fail` has one mistake, and draws one error at its own line.

use std::fs;
use std::path::Path;

/// The fixtures compile, or fail with exactly the recorded words.
#[test]
fn fixtures() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

/// The recorded words are one error each, which points into the fixture.
#[test]
fn one_error_per_mistake_at_its_own_line() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/fail");
    let mut fixtures = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        fixtures += 1;
        let name = source.file_name().unwrap().to_str().unwrap().to_owned();
        let recorded = fs::read_to_string(source.with_extension("stderr"))
            .unwrap_or_else(|error| panic!("{name}: no recorded words: {error}"));
        let lines: Vec<&str> = recorded.lines().collect();
        let errors: Vec<usize> =
            (0..lines.len()).filter(|at| lines[*at].starts_with("error") && !lines[*at].contains("aborting")).collect();
        assert_eq!(errors.len(), 1, "{name} draws {} errors:\n{recorded}", errors.len());
        assert!(!recorded.contains("\nwarning"), "{name} draws a warning besides:\n{recorded}");
        let location = lines[errors[0]..].iter().find(|line| line.trim_start().starts_with("-->")).unwrap();
        assert!(location.contains(&format!("tests/ui/fail/{name}:")), "{name} points elsewhere: {location}");
    }
    assert!(fixtures >= 28, "only {fixtures} fixtures");
}

/// Every fixture's name starts with a place of the taxonomy.
#[test]
fn names_follow_the_taxonomy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let places: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("_`").map(|(place, _)| place)).collect();
    assert!(!places.is_empty(), "the README lists no places");
    for entry in fs::read_dir(root.join("fail")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            places.iter().any(|place| name.strip_prefix(place).is_some_and(|rest| rest.starts_with('_'))),
            "{name} is not of the taxonomy {places:?}"
        );
    }
}
