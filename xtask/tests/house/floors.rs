//! Inside a crate, imports go down: from a module to those of its own floor and of the floors below.
//!
//! What counts is the module that a path names: in `use`, in code, and in the arguments of macros. Tests do not count. A
//! crate's root is above all floors; a name that it only passes on counts as that of the module it is from.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::tree::{File, sources};
use crate::{Finding, assert_none};

/// A crate's floors from top to bottom, each with its modules. A module that is not named stands on the floor of the module it
/// is in, and without one on the top floor.
type Floors = &'static [&'static [&'static str]];

/// The floors of each crate, by its folder.
const FLOORS: &[(&str, Floors)] = &[
    (
        "litebox_platform_lvbs",
        &[
            &["arch", "heki"],
            &["access", "vsm"],
            &["platform"],
            &["vtl0"],
            &["frames"],
            &["hardware", "phase", "secret"],
            &["error"],
            &["hv"],
            &["loader", "owner", "sync"],
            &["address", "failure", "logging", "optee", "reserved_heap", "sha_extensions", "token", "vsm::function"],
        ],
    ),
    ("litebox_runner_lvbs", &[&["boot", "entry"], &["serve"]]),
    // On top the families of calls.
    (
        "vsm_handlers",
        &[
            &[],
            &["arrival", "end_of_boot", "frozen"],
            &["answer_check"],
            &["dispatch", "objects", "registers", "table"],
        ],
    ),
    (
        "vsm_integrity",
        &[
            &["keys", "module"],
            &["kernel_info", "kexec", "patch_info", "pe"],
            &["blocklist", "der", "elf", "ksymtab", "signature"],
            &["addresses", "bytes", "error", "heap"],
        ],
    ),
    ("vsm_macros", &[&["functions", "handler"], &["errors"], &["codes", "documentation"]]),
    (
        "vsm_sim",
        &[
            &["linux", "map", "trials"],
            &["trials::run"],
            &["hosted", "machine"],
            &["trials::validate", "vtl0"],
            &["engine", "hv", "random"],
        ],
    ),
    // On top the targets.
    ("fuzz", &[&[], &["explainable", "fixtures", "machine", "tampered"]]),
    (
        "xtask",
        &[
            &["cli"],
            &["ci"],
            &["book", "linux", "new_call", "stress", "suite"],
            &["fuzz", "lint", "repro", "run"],
            &["doctor", "image"],
            &["abi", "sizes", "toolchain"],
            &["explain", "install", "kernels", "linux::packages", "map", "report", "validate_capture", "verify"],
            &["debian"],
            &["process", "workspace"],
        ],
    ),
];

/// A module's name, from the crate's root: `["vsm", "param"]`. The root has none.
type Name = Vec<String>;

/// A path that a module names.
struct Import {
    line: usize,
    segments: Name,
}

/// What stands in one file.
#[derive(Default)]
struct Finder {
    /// The module that is being read.
    here: Name,
    imports: Vec<(Name, Import)>,
}

impl Finder {
    fn found(&mut self, line: usize, segments: Name) {
        self.imports.push((self.here.clone(), Import { line, segments }));
    }

    fn use_tree(&mut self, tree: &syn::UseTree, mut before: Name) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(&path.tree, before);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, before.clone())),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                before.push(ident.to_string());
                self.found(ident.span().start().line, before);
            }
            syn::UseTree::Glob(glob) => self.found(glob.star_token.span.start().line, before),
        }
    }

    /// The paths in a macro's arguments: words with `::` between them, from `crate`, `self` or `super` on.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is =
            |at: usize, sign: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                // `$crate` is of the crate that the macro is used in.
                TokenTree::Ident(word) if ["crate", "self", "super"].iter().any(|first| word == first) => {
                    let mut segments = vec![word.to_string()];
                    let mut next = at + 1;
                    while let (true, true, Some(TokenTree::Ident(word))) =
                        (is(next, ':'), is(next + 1, ':'), tokens.get(next + 2))
                    {
                        segments.push(word.to_string());
                        next += 3;
                    }
                    if segments.len() > 1 && !(at > 0 && is(at - 1, '$')) {
                        self.found(word.span().start().line, segments);
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.here.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, Name::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first().filter(|_| path.segments.len() > 1) {
            let line = first.ident.span().start().line;
            self.found(line, path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.tokens(invocation.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// One crate as it is read.
struct Crate<'a> {
    floors: Floors,
    files: BTreeMap<Name, &'a str>,
    imports: Vec<(Name, Import)>,
}

fn split(module: &str) -> Name {
    module.split("::").map(str::to_owned).collect()
}

/// The module that a file below `src` is.
fn module(path: &str) -> Name {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut name: Name = path.split('/').map(str::to_owned).collect();
    if name.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        name.pop();
    }
    name
}

impl<'a> Crate<'a> {
    /// `files` are paths below `src` with their texts.
    fn read(floors: Floors, files: &[(&'a str, &str)]) -> Self {
        let mut finder = Finder::default();
        let is_test = |path: &str| {
            path.split('/').any(|part| ["tests", "tests.rs"].contains(&part) || part.ends_with("_tests.rs"))
        };
        let files = files.iter().filter(|(path, _)| !is_test(path));
        for (path, text) in files.clone() {
            finder.here = module(path);
            finder.visit_file(&syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}")));
        }
        let files = files.map(|(path, _)| (module(path), *path)).collect();
        Self { floors, files, imports: finder.imports }
    }

    /// The floor of a module, counted from the top.
    fn floor(&self, module: &[String]) -> usize {
        let named = (1..=module.len()).rev().find_map(|len| {
            let name = module[..len].join("::");
            self.floors.iter().position(|floor| floor.contains(&name.as_str()))
        });
        named.unwrap_or(0)
    }

    /// The module that a path names, with a file of its own; `None` for another crate's.
    fn target(&self, here: &[String], segments: &[String]) -> Option<Name> {
        let mut from = match segments.first()?.as_str() {
            "crate" => Name::new(),
            "self" | "super" => here.to_vec(),
            first => {
                let inner = [here, &[first.to_owned()]].concat();
                return self.files.contains_key(&inner).then(|| self.deepest(&[here, segments].concat()));
            }
        };
        let rest = segments.iter().skip_while(|segment| match segment.as_str() {
            "super" => from.pop().is_some(),
            "self" | "crate" => true,
            _ => false,
        });
        let rest: Name = rest.cloned().collect();
        let found = self.deepest(&[from.clone(), rest.clone()].concat());
        // A name of the root that it passes on.
        let passed_on = |(by, import): &&(Name, Import)| {
            by.is_empty() && import.segments.len() > 1 && import.segments.last() == rest.first()
        };
        match self.imports.iter().find(passed_on) {
            Some((_, import)) if found.is_empty() && from.is_empty() => self.target(&[], &import.segments),
            _ => Some(found),
        }
    }

    /// The longest beginning of a path that is a file's module.
    fn deepest(&self, path: &[String]) -> Name {
        let len = (1..=path.len()).rev().find(|len| self.files.contains_key(&path[..*len])).unwrap_or(0);
        path[..len].to_vec()
    }

    fn findings(&self, folder: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut seen = BTreeSet::new();
        for (here, Import { line, segments }) in &self.imports {
            let (by, Some(target)) = (self.deepest(here), self.target(here, segments)) else { continue };
            let is_up = !target.is_empty() && self.floor(&target) < self.floor(&by);
            if is_up && seen.insert((by.clone(), target.clone())) {
                let file = self.files.get(&by).copied().unwrap_or_default();
                let what = format!("{} stands below {} and must not import it", by.join("::"), target.join("::"));
                findings.push(Finding::new(&format!("{folder}{file}"), *line, what));
            }
        }
        findings
    }
}

#[test]
fn imports_go_down() {
    let sources = sources();
    let mut findings = Vec::new();
    for (name, floors) in FLOORS {
        let folder = format!("{name}/src/");
        let below = |file: &'_ File| file.path.strip_prefix(&folder).map(|path| (path.to_owned(), file.text.clone()));
        let files: Vec<(String, String)> = sources.iter().filter_map(below).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let found = Crate::read(floors, &files);
        assert!(found.imports.len() > 10, "{name} has {} imports only", found.imports.len());
        for module in floors.iter().copied().flatten() {
            if found.deepest(&split(module)) != split(module) {
                findings.push(Finding::new(
                    file!(),
                    1,
                    format!("{name} has no module {module}: take it off its floor"),
                ));
            }
        }
        findings.extend(found.findings(&folder));
    }
    assert_none(&findings);
}

#[test]
fn an_import_that_goes_up_is_found_in_every_form() {
    const FLOORS: Floors = &[&["top"], &["middle", "side"], &["low", "top::leaf"]];
    let found = |text: &str| {
        let files = [
            (
                "lib.rs",
                "mod top; mod middle; mod side; mod low;\npub use top::Name;\npub use low::{Deep as Other, Deep};",
            ),
            ("top/mod.rs", "mod leaf; pub struct Name;"),
            ("top/leaf.rs", ""),
            ("side.rs", ""),
            ("low.rs", ""),
            ("middle.rs", text),
        ];
        Crate::read(FLOORS, &files).findings("").into_iter().map(|finding| finding.line).collect::<Vec<_>>()
    };
    for up in [
        "use crate::top;",
        "use super::top::Name;",
        "use crate::{low, top::{Name, self}};",
        "use crate::top::*;",
        "pub use crate::top::Name as Other;",
        "use crate::Name;",
        "fn f(_: crate::top::Name) {}",
        "fn f() { crate::top::g(); }",
        "fn f() { assert!(crate::top::g()); }",
        "mod inner { use super::super::top::Name; }",
        "impl T for U { fn f() { g::<{ crate::top::N }>() } }",
    ] {
        assert_eq!(found(&format!("// x\n{up}")), [2], "{up}");
    }
    for fine in [
        "use crate::low;",
        "use crate::side::X;",
        "use crate::Deep;",
        "use crate::top::leaf::Leaf;",
        "use core::top::Name;",
        "use top::Name;",
        "#[cfg(test)]\nmod tests { use crate::top::Name; }",
        "#[cfg(test)]\nuse crate::top::Name;",
        "#[cfg(test)]\nfn f() { crate::top::g(); }",
        "macro_rules! m { () => { $crate::top::g() } }",
        "//! [`crate::top::Name`]",
        "pub(in crate::top) struct S;",
    ] {
        assert!(found(fine).is_empty(), "{fine}");
    }
}
