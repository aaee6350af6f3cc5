//! Which of the project's crates may depend on which: one way, from the image's runner down to the macros. The fuzz
//! targets are a workspace of their own, and the rule is theirs too.

use toml::{Table, Value};

use crate::tree::{File, files};
use crate::{Finding, assert_none};

/// What each crate may depend on, in any of its tables: development and build dependencies count, for a test that needs
/// more than its crate does belongs to the crate that has it.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("vsm_macros", &[]),
    ("litebox_platform_lvbs", &["vsm_integrity", "vsm_macros"]),
    ("vsm_integrity", &[]),
    ("vsm_handlers", &["litebox_platform_lvbs", "vsm_integrity", "vsm_macros"]),
    ("litebox_runner_lvbs", &["litebox_platform_lvbs", "vsm_handlers"]),
    ("vsm_sim", &["litebox_platform_lvbs", "vsm_handlers", "vsm_integrity"]),
    ("vsm_fuzz", &["litebox_platform_lvbs", "vsm_handlers", "vsm_integrity", "vsm_sim"]),
    ("xtask", &["litebox_platform_lvbs", "vsm_handlers", "vsm_integrity", "vsm_sim"]),
];

/// Names in the dependency tables of a manifest: also those of one target only, and the true name of a renamed one.
fn used(manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    for table in targets.filter_map(Value::as_table).chain([manifest]) {
        for dependencies in tables.iter().filter_map(|name| table.get(*name)).filter_map(Value::as_table) {
            names.extend(
                dependencies
                    .iter()
                    .map(|(name, how)| how.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()),
            );
        }
    }
    names
}

fn check(path: &str, text: &str, members: &[String]) -> Vec<Finding> {
    let manifest: Table = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str) else {
        return Vec::new();
    };
    let line = |word: &str| text.lines().position(|line| line.contains(word)).map_or(1, |index| index + 1);
    let mut findings = Vec::new();
    let Some((_, may_use)) = MAY_USE.iter().find(|(part, _)| *part == name) else {
        return vec![Finding::new(path, line(name), format!("crate {name} is not in MAY_USE of {}", file!()))];
    };
    for other in used(&manifest) {
        if members.contains(&other) && !may_use.contains(&other.as_str()) {
            let at = text.lines().position(|line| line.trim_start().starts_with(other.as_str()));
            let what = format!("{name} must not depend on {other}, only on {may_use:?}: dependencies point one way");
            findings.push(Finding::new(path, at.map_or_else(|| line(&other), |index| index + 1), what));
        }
    }
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if lints != Some(true) {
        findings.push(Finding::new(path, 1, "add `[lints] workspace = true`: the same lints hold everywhere"));
    }
    findings
}

fn members(root: &str) -> Vec<String> {
    let manifest: Table = root.parse().expect("the root manifest is TOML");
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members")).and_then(Value::as_array);
    let members = members.expect("the root manifest has a list of members");
    members.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn dependencies_point_one_way() {
    let files = files();
    let root = files.iter().find(|file| file.path == "Cargo.toml").expect("the workspace has a manifest");
    let members = members(&root.text);
    let manifests: Vec<&File> = files.iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    for member in &members {
        assert!(manifests.iter().any(|file| file.path == format!("{member}/Cargo.toml")), "{member} has no manifest");
    }
    let findings: Vec<Finding> = manifests.iter().flat_map(|file| check(&file.path, &file.text, &members)).collect();
    assert_none(&findings);
}

#[test]
fn a_dependency_the_wrong_way_is_found_in_every_table() {
    let members: Vec<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = |name: &str, more: &str| format!("package.name = \"{name}\"\nlints.workspace = true\n{more}\n");
    let count = |name: &str, more: &str| check("x/Cargo.toml", &manifest(name, more), &members).len();
    for table in ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
        for good in ["spin = \"1\"", "vsm_macros.workspace = true", "syn = { package = \"vsm_macros\", path = \"x\" }"]
        {
            assert_eq!(count("litebox_platform_lvbs", &format!("[{table}]\n{good}")), 0, "{table}: {good}");
        }
        for bad in ["vsm_sim.workspace = true", "[x]\n", "spin = { package = \"vsm_handlers\", path = \"x\" }"] {
            let expected = usize::from(!bad.starts_with('['));
            assert_eq!(count("litebox_platform_lvbs", &format!("[{table}]\n{bad}")), expected, "{table}: {bad}");
        }
    }
    assert_eq!(count("litebox_runner_lvbs", "[dependencies]\nvsm_sim.workspace = true"), 1);
    assert_eq!(count("vsm_handlers", "[dev-dependencies]\nxtask.workspace = true"), 1);
    assert_eq!(count("new_crate", ""), 1);
    assert_eq!(check("x/Cargo.toml", "package.name = \"vsm_sim\"", &members).len(), 1);
    let found =
        check("x/Cargo.toml", &manifest("vsm_macros", "[dependencies]\nsyn = \"2\"\nvsm_sim = \"1\""), &members);
    assert_eq!(crate::lines(&found), [5]);
}

/// A wrapped value that came from VTL0 must not go unnoticed (docs/src/boundary.md, rule 1).
#[test]
fn overflow_checks_stay_on_in_release() {
    for path in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let files = files();
        let manifest = files.iter().find(|file| file.path == path).expect("both workspaces have a manifest");
        let manifest: Table = manifest.text.parse().expect("a manifest is TOML");
        let checks = manifest["profile"]["release"].get("overflow-checks").and_then(Value::as_bool);
        assert_eq!(checks, Some(true), "{path}: [profile.release] overflow-checks");
    }
}
