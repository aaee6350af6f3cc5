//! The boundary's page is true: every test it names is there, and every rule has one.

use std::collections::HashSet;

use crate::tree::{File, files, sources};
use crate::{Finding, assert_none, lines};

const PAGE: &str = "docs/src/boundary.md";

/// Whether a word can only be the name of a test, which says what must hold in at least three words.
fn is_test_name(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.chars().all(plain) && word.matches('_').count() >= 2
}

/// The tests that a line of the page names: `file: name`, or `name` where the file is that of the one before.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split('`').skip(1).step_by(2);
    code.map(|code| code.rsplit(": ").next().unwrap_or(code)).filter(|word| is_test_name(word))
}

fn functions(sources: &[File]) -> HashSet<&str> {
    sources.iter().flat_map(names_in).collect()
}

fn names_in(file: &File) -> Vec<&str> {
    file.text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()).collect()
}

/// Names of tests that no function has, rules without a test, and rows of a rule whose column of tests is empty.
fn untrue(page: &str, functions: &HashSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut rule: Option<(usize, &str, bool)> = None;
    for (line, text) in (1..).zip(page.lines()).chain([(0, "## ")]) {
        if let Some(title) = text.strip_prefix("## ")
            && let Some((at, title, false)) = rule.replace((line, title, false))
        {
            findings.push(Finding::new(PAGE, at, format!("no test holds the rule \"{title}\"")));
        }
        if text.starts_with("| ") && text.trim_end().ends_with("| |") {
            findings.push(Finding::new(PAGE, line, "no test holds this row"));
        }
        for name in named(text) {
            if functions.contains(name) {
                rule = rule.map(|(at, title, _)| (at, title, true));
            } else {
                findings.push(Finding::new(PAGE, line, format!("there is no test {name}")));
            }
        }
    }
    findings
}

#[test]
fn every_rule_of_the_boundary_has_tests_that_exist() {
    let (files, sources) = (files(), sources());
    let page = files.iter().find(|file| file.path == PAGE).expect("the book has a page about the boundary");
    assert!(page.text.lines().flat_map(named).count() > 50, "the page names tests");
    assert_none(&untrue(&page.text, &functions(&sources)));
}

#[test]
fn a_test_that_is_gone_and_a_rule_without_one_are_found() {
    let functions = HashSet::from(["it_holds_always"]);
    let page = "## 1. A\n| `a.rs` | `b.rs: it_holds_always`, `it_never_held` |\n## 2. B\n| `vsm/x_y_z.rs` | |\n";
    assert_eq!(lines(&untrue(page, &functions)), [2, 4, 3]);
}
