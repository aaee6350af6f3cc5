//! Rules about the text of a file: how long it may be, how it starts, what must not be in it.

use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::tree::{File, QUOTING, files, sources};
use crate::{Finding, assert_none, lines};

/// Lines that a source file may have.
const MOST_LINES: usize = 500;
/// Suffixes of the files this holds for; prose may be longer.
const SOURCES: [&str; 4] = ["rs", "ld", "json", "toml"];
/// Macros that mark what is not finished, and one for debugging.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// The only shell script of the host's.
const SCRIPT: &str = ".ci/run";
/// What a guest runs, which has nothing but a shell.
const IN_THE_GUEST: &str = "vtl0_driver/initramfs/";

/// Directories of a machine that must not be named; put together here, so that this file does not name them.
fn machine_directories() -> [String; 4] {
    ["work", "root", "home", "tmp"].map(|name| format!("/{name}/"))
}

/// Hosts of package registries, written with a space so that this file does not name them.
const HOSTS: [&str; 6] = ["crates .io", "pypi .org", "npmjs .org", "npmjs .com", "debian .org", "artifactory ."];
/// The one mention that cannot be avoided: Cargo's name for its default registry, in the lock files.
const DEFAULT_REGISTRY: &str = "\"registry+https://github.com/rust-lang/";
/// Those of the two workspaces.
const LOCK_FILES: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];

fn too_long(path: &str, text: &str) -> Option<Finding> {
    let is_source = Path::new(path).extension().is_some_and(|suffix| SOURCES.iter().any(|source| suffix == *source));
    let length = text.lines().count();
    (is_source && length > MOST_LINES)
        .then(|| Finding::new(path, length, format!("a file has at most {MOST_LINES} lines: split it by purpose")))
}

fn without_purpose(path: &str, text: &str) -> Option<Finding> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| words.trim().len() > 3);
    (!says).then(|| Finding::new(path, 1, "the first line must be a `//!` paragraph that says what the file is for"))
}

/// Unfinished macros and `allow` attributes, in the file's tokens: comments and strings don't count.
fn forbidden_words(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    search(path, &tokens, &mut findings);
    findings
}

fn search(path: &str, tokens: &TokenStream, findings: &mut Vec<Finding>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    // What comes `back` tokens before the one at `index`.
    let before = |index: usize, back: usize| index.checked_sub(back).and_then(|index| tokens.get(index));
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word)
                if UNFINISHED.iter().any(|name| word == name) && is_sign(tokens.get(index + 1), '!') =>
            {
                let what = format!("`{word}!` must not stay: a path that is not there yet is an error of its own");
                findings.push(Finding::new(path, word.span().start().line, what));
            }
            TokenTree::Group(group) => {
                let bang = is_sign(before(index, 1), '!');
                if bang
                    && matches!(before(index, 2), Some(TokenTree::Ident(name)) if QUOTING.iter().any(|quoting| name == quoting))
                {
                    continue;
                }
                let attribute = is_sign(before(index, 1), '#') || bang && is_sign(before(index, 2), '#');
                if attribute && group.delimiter() == Delimiter::Bracket {
                    allow(path, group.stream(), findings);
                }
                search(path, &group.stream(), findings);
            }
            _ => {}
        }
    }
}

fn is_sign(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Looks for `allow(…)` in the tokens of an attribute, also inside `cfg_attr(…)`. A module that several test binaries
/// share may allow, with a reason, that one of them leaves a part unused: there is nothing each of them could expect.
fn allow(path: &str, attribute: TokenStream, findings: &mut Vec<Finding>) {
    let mut previous = None;
    for token in attribute {
        if let TokenTree::Group(group) = &token {
            match previous {
                Some(TokenTree::Ident(word)) if word == "allow" && !(is_shared(path) && is_about_use(group)) => {
                    let what = "write `#[expect(lint, reason = \"…\")]`: it complains when it is no longer needed";
                    findings.push(Finding::new(path, word.span().start().line, what));
                }
                Some(TokenTree::Ident(word)) if word == "cfg_attr" => allow(path, group.stream(), findings),
                _ => {}
            }
        }
        previous = Some(token);
    }
}

fn is_shared(path: &str) -> bool {
    path.contains("/tests/") && path.ends_with("/mod.rs")
}

fn is_about_use(arguments: &Group) -> bool {
    let arguments = arguments.stream().to_string().replace(' ', "");
    ["dead_code,reason=", "clippy::allow_attributes,reason="].iter().any(|start| arguments.starts_with(start))
}

/// Absolute paths of one machine, and names of hosts.
fn of_a_machine(path: &str, text: &str) -> Vec<Finding> {
    let directories = machine_directories();
    let hosts = HOSTS.map(|host| host.replace(' ', ""));
    let is_absolute = |line: &str, directory: &str| {
        let joins = |c: char| c.is_alphanumeric() || "_.-~}/*".contains(c);
        line.match_indices(directory).any(|(at, _)| !line[..at].ends_with(joins))
    };
    let judge = |(index, line): (usize, &str)| {
        let line = line.to_lowercase();
        let what = if let Some(directory) = directories.iter().find(|directory| is_absolute(&line, directory)) {
            format!("names `{directory}` of one machine: use a path relative to the repository")
        } else if let Some(host) = hosts.iter().find(|host| line.contains(*host))
            && !(LOCK_FILES.contains(&path) && line.contains(DEFAULT_REGISTRY))
        {
            format!("names the host `{host}`: tools find their registries themselves")
        } else {
            return None;
        };
        Some(Finding::new(path, index + 1, what))
    };
    text.lines().enumerate().filter_map(judge).collect()
}

fn shell_script(path: &str, text: &str) -> Option<Finding> {
    let shells = ["sh", "bash", "zsh", "dash", "ksh"];
    let suffix = Path::new(path).extension().is_some_and(|suffix| shells.iter().any(|shell| suffix == *shell));
    let first = text.lines().next().unwrap_or_default();
    let shebang = first.strip_prefix("#!").filter(|rest| !rest.starts_with('['));
    let interpreted = shebang.is_some_and(|rest| rest.split(['/', ' ']).any(|word| shells.contains(&word)));
    ((suffix || interpreted) && path != SCRIPT && !path.starts_with(IN_THE_GUEST))
        .then(|| Finding::new(path, 1, format!("the only shell script is {SCRIPT}: make it a command of xtask")))
}

fn over(files: &[File], rule: impl Fn(&str, &str) -> Option<Finding>) -> Vec<Finding> {
    files.iter().filter_map(|file| rule(&file.path, &file.text)).collect()
}

fn over_each(files: &[File], rule: impl Fn(&str, &str) -> Vec<Finding>) -> Vec<Finding> {
    files.iter().flat_map(|file| rule(&file.path, &file.text)).collect()
}

#[test]
fn no_file_is_too_long() {
    assert_none(&over(&files(), too_long));
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_none(&over(&sources(), without_purpose));
}

#[test]
fn nothing_is_unfinished_or_allowed_in_silence() {
    assert_none(&over_each(&sources(), forbidden_words));
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    assert_none(&over_each(&files(), of_a_machine));
}

#[test]
fn there_is_one_shell_script() {
    assert_none(&over(&files(), shell_script));
}

#[test]
fn a_long_file_is_found() {
    let text = "x\n".repeat(MOST_LINES);
    assert_eq!(too_long("a/b.rs", &text), None);
    assert_eq!(too_long("a/b.rs", &(text.clone() + "x")).map(|finding| finding.line), Some(MOST_LINES + 1));
    assert_eq!(too_long("a/b.md", &(text + "x")), None);
}

#[test]
fn a_file_without_purpose_is_found() {
    assert_eq!(without_purpose("a.rs", "//! What it is for.\n"), None);
    for text in ["", "//!\n//! Late.", "// What it is for.\n", "use a;\n//! What it is for.", "\n//! What it is for."] {
        assert!(without_purpose("a.rs", text).is_some(), "{text:?}");
    }
}

#[test]
fn unfinished_macros_and_allow_are_found() {
    let bad = r#"
fn a() { todo!() }
fn b() -> u8 { c(|| { unimplemented!("later") }) }
fn d() { std::dbg!(1); }
#[allow(dead_code)]
fn e() { #![allow(unused)] }
#[cfg_attr(test, allow(dead_code, reason = "x"))]
fn f() {}
"#;
    assert_eq!(lines(&forbidden_words("a.rs", bad)), [2, 3, 4, 5, 6, 7]);
    let good = r#"
//! todo!() and #[allow(dead_code)]
#[expect(dead_code, reason = "allow(x)")]
fn a() { allow(b); let todo = !c; d("dbg!(1)"); let e = [allow(1)]; }
"#;
    assert_eq!(forbidden_words("a.rs", good), []);
    assert_eq!(forbidden_words("a.rs", "fn a() { quote!(#[allow(unused)] fn b() { todo!() }) }"), []);
    let shared = "#![allow(dead_code, reason = \"each test uses another part\")]";
    assert_eq!(forbidden_words("a/tests/b/mod.rs", shared), []);
    assert_eq!(lines(&forbidden_words("a/tests/b.rs", shared)), [1]);
    assert_eq!(lines(&forbidden_words("a/tests/b/mod.rs", "#![allow(dead_code)]")), [1]);
    assert_eq!(lines(&forbidden_words("a/tests/b/mod.rs", "#![allow(unused, reason = \"x\")]")), [1]);
}

#[test]
fn paths_of_a_machine_and_hosts_are_found() {
    let [work, root, home, tmp] = machine_directories();
    let [crates, ..] = HOSTS.map(|host| host.replace(' ', ""));
    let bad = format!("a {work}x\nfine\n\"{root}x\"\n({home}x)\n`{tmp}x`\nhttps://index.{crates}/x\n");
    assert_eq!(lines(&of_a_machine("a.md", &bad)), [1, 3, 4, 5, 6]);
    let good =
        format!("a/b{work}x\n$HOME{home}\n../{root}x/\n/usr/share/x\n./x{tmp}\n{DEFAULT_REGISTRY}{crates}-index\"");
    assert_eq!(lines(&of_a_machine("a.md", &good)), [6]);
    for lock_file in LOCK_FILES {
        assert_eq!(lines(&of_a_machine(lock_file, &good)), []);
    }
    assert_eq!(lines(&of_a_machine("other/Cargo.lock", &good)), [6]);
}

#[test]
fn a_shell_script_is_found() {
    assert!(shell_script("a/b.sh", "").is_some());
    assert!(shell_script("a/b", "#!/usr/bin/env bash\nx").is_some());
    assert!(shell_script("a/b", "#!/bin/sh -e").is_some());
    assert_eq!(shell_script(SCRIPT, "#!/bin/sh"), None);
    assert_eq!(shell_script(&format!("{IN_THE_GUEST}init"), "#!/bin/busybox sh"), None);
    assert!(shell_script("vtl0_driver/build", "#!/bin/sh").is_some());
    assert_eq!(shell_script("a/b.rs", "#![no_std]"), None);
    assert_eq!(shell_script("a/b", "#!/usr/bin/env python3"), None);
}
