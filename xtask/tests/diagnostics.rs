//! Every diagnostic of the macros has a code, every code a fixture and a paragraph, and none is left over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use xtask::{explain, workspace};

/// The Rust files below a directory, with their text.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    found
}

/// What is neither this file's business nor a diagnostic: a module's own tests, and comments.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The codes that stand in `text` before a colon and a blank.
fn codes_in(text: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for (at, _) in text.match_indices("VSM") {
        if let Some(code) = text.get(at..at + 8)
            && code.ends_with(": ")
            && code[3..6].bytes().all(|digit| digit.is_ascii_digit())
        {
            codes.insert(code[..6].to_owned());
        }
    }
    codes
}

/// The names and codes of the macros' enum.
fn declared(root: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(root.join("vsm_macros/src/codes.rs")).unwrap();
    let line = |line: &str| {
        let (name, number) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        Some((name.to_owned(), format!("VSM{:03}", number.parse::<u16>().ok()?)))
    };
    text.lines().filter_map(line).collect()
}

/// Every code: the macros' own, and those in the words that the expansion and the platform's traits give the compiler.
fn all_codes(root: &Path) -> BTreeSet<String> {
    let mut codes: BTreeSet<String> = declared(root).into_iter().map(|(_, code)| code).collect();
    assert!(codes.len() > 30, "{codes:?}");
    for directory in ["vsm_macros/src", "litebox_platform_lvbs/src/vsm"] {
        codes.extend(sources(&root.join(directory)).iter().flat_map(|(_, text)| codes_in(&code_of(text))));
    }
    codes
}

#[test]
fn every_code_has_a_paragraph_and_every_paragraph_a_code() {
    let root = workspace::root();
    let page = fs::read_to_string(root.join(explain::PAGE)).unwrap();
    let sections = explain::sections(&page);
    let explained: Vec<&str> = sections.iter().map(|section| section.code.as_str()).collect();
    let codes: Vec<String> = all_codes(&root).into_iter().chain(explain::RUSTC.map(str::to_owned)).collect();
    assert_eq!(explained, codes, "the macros' codes in order, then rustc's");
    for section in &sections {
        assert!(section.title.len() > 3 && section.text.len() > 20, "{}", section.code);
    }
}

#[test]
fn every_code_is_drawn_by_a_fixture() {
    let root = workspace::root();
    let missing: Vec<String> = all_codes(&root)
        .into_iter()
        .chain(explain::RUSTC.map(str::to_owned))
        .filter(|code| explain::fixtures(&root, code).unwrap().is_empty())
        .collect();
    assert!(missing.is_empty(), "no fixture's words have {missing:?}");
}

/// The codes that a fixture's words have: the macros', or rustc's where an error has none of those.
fn drawn_in(text: &str) -> BTreeSet<String> {
    let mut drawn = codes_in(text);
    for line in text.lines().filter(|line| line.starts_with("error[") && codes_in(line).is_empty()) {
        let code = line["error[".len()..].split(']').next().unwrap();
        drawn.insert(code.to_owned());
    }
    drawn
}

#[test]
fn every_fixture_draws_one_code_that_is_explained() {
    let root = workspace::root();
    let codes: BTreeSet<String> = all_codes(&root).into_iter().chain(explain::RUSTC.map(str::to_owned)).collect();
    for entry in fs::read_dir(root.join("vsm_handlers/tests/ui/fail")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "stderr") {
            let drawn = drawn_in(&fs::read_to_string(&path).unwrap());
            assert!(drawn.is_subset(&codes) && drawn.len() == 1, "{}: {drawn:?}", path.display());
        }
    }
}

/// Errors are made in one file, which takes a code for each.
#[test]
fn no_diagnostic_is_without_a_code() {
    let root = workspace::root();
    for (path, text) in sources(&root.join("vsm_macros/src")) {
        if path.ends_with("src/errors.rs") {
            continue;
        }
        for maker in ["syn::Error::new", "Error::new_spanned", ".error(\"", "compile_error!", "panic!("] {
            assert!(!code_of(&text).contains(maker), "{}: {maker} makes an error without a code", path.display());
        }
    }
}

#[test]
fn no_code_is_unused() {
    let root = workspace::root();
    let texts: Vec<String> = sources(&root.join("vsm_macros/src"))
        .into_iter()
        .filter(|(path, _)| !path.ends_with("src/codes.rs"))
        .map(|(_, text)| code_of(&text))
        .collect();
    for (name, code) in declared(&root) {
        let use_of = format!("Code::{name}");
        let used = texts.iter().any(|text| {
            let mut ends = text.match_indices(&use_of).map(|(at, found)| at + found.len());
            ends.any(|end| !text[end..].starts_with(char::is_alphanumeric))
        });
        assert!(used, "{code} ({name}) is drawn nowhere");
    }
}

#[test]
fn codes_are_read_as_they_are_written() {
    assert_eq!(codes_in("a VSM001: b VSM12: VSM0123: VSM999: "), BTreeSet::from(["VSM001".into(), "VSM999".into()]));
    assert_eq!(drawn_in("error: VSM001: b\nerror[E0425]: c\n"), BTreeSet::from(["VSM001".into(), "E0425".into()]));
    assert_eq!(drawn_in("error[E0277]: VSM050: b\n"), BTreeSet::from(["VSM050".into()]));
    assert_eq!(code_of("a\n// VSM001: b\nc\n#[cfg(test)]\nmod tests {\nVSM002: }"), "a\nc");
}
