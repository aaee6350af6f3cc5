//! Finding `unsafe` in a file, by parsing it, and checking what must be written beside it.
//!
//! Clippy's `undocumented_unsafe_blocks` covers blocks; the rest of what must be justified is covered here: functions,
//! implementations, foreign blocks and attributes, private ones too.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::tree::{QUOTING, sources};
use crate::{Finding, assert_none, lines};

/// What an `unsafe` is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block.
    Block,
    /// A function, or a method that is declared or written outside of a trait's implementation.
    Function,
    /// A method of a trait's implementation: the promise is the trait's.
    TraitMethod,
    /// A trait.
    Trait,
    /// An implementation.
    Implementation,
    /// A block of foreign items.
    Foreign,
    /// An attribute such as `no_mangle`.
    Attribute,
    /// A word in the arguments of a macro, whose meaning is unknown.
    InMacro,
}

/// One `unsafe`.
#[derive(Debug)]
pub struct Site {
    /// What it is on.
    pub kind: Kind,
    /// Line of the word, or of the item's first attribute or comment.
    pub line: usize,
    /// Whether the item's documentation has a section `# Safety`.
    has_section: bool,
}

/// Every `unsafe` of a Rust file.
pub fn sites(file: &str, text: &str) -> Vec<Site> {
    let parsed = syn::parse_file(text).unwrap_or_else(|error| {
        panic!("{file}:{}: {error}", error.span().start().line);
    });
    let mut finder = Finder::default();
    finder.visit_file(&parsed);
    finder.sites
}

#[derive(Default)]
struct Finder {
    sites: Vec<Site>,
    in_trait_implementation: bool,
}

impl Finder {
    fn found(&mut self, kind: Kind, line: usize, attributes: &[syn::Attribute]) {
        self.sites.push(Site { kind, line, has_section: attributes.iter().any(is_safety_section) });
    }

    fn signature(&mut self, signature: &syn::Signature, attributes: &[syn::Attribute], kind: Kind) {
        if let Some(word) = &signature.unsafety {
            self.found(kind, word.span.start().line, attributes);
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) if word == "unsafe" => {
                    self.found(Kind::InMacro, word.span().start().line, &[]);
                }
                _ => {}
            }
        }
    }
}

fn is_safety_section(attribute: &syn::Attribute) -> bool {
    let syn::Meta::NameValue(doc) = &attribute.meta else { return false };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &doc.value else { return false };
    doc.path.is_ident("doc") && text.value().trim() == "# Safety"
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.found(Kind::Block, block.unsafe_token.span.start().line, &block.attrs);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.signature(&function.sig, &function.attrs, Kind::Function);
        visit::visit_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.signature(&function.sig, &function.attrs, Kind::Function);
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        let kind = if self.in_trait_implementation { Kind::TraitMethod } else { Kind::Function };
        self.signature(&function.sig, &function.attrs, kind);
        // An item inside the function's body is not part of the implementation.
        let outer = std::mem::take(&mut self.in_trait_implementation);
        visit::visit_impl_item_fn(self, function);
        self.in_trait_implementation = outer;
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if let Some(word) = &item.unsafety {
            self.found(Kind::Trait, word.span.start().line, &item.attrs);
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.found(Kind::Implementation, item.span().start().line, &item.attrs);
        }
        let outer = std::mem::replace(&mut self.in_trait_implementation, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.in_trait_implementation = outer;
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        if item.unsafety.is_some() {
            self.found(Kind::Foreign, item.span().start().line, &item.attrs);
        }
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let line = attribute.span().start().line;
        match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("unsafe") => self.found(Kind::Attribute, line, &[]),
            syn::Meta::List(list) => self.tokens(list.tokens.clone()),
            _ => {}
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if !call.path.segments.last().is_some_and(|name| QUOTING.iter().any(|quoting| name.ident == quoting)) {
            self.tokens(call.tokens.clone());
        }
    }
}

/// Every `unsafe` that lacks its justification.
fn unjustified(file: &str, text: &str) -> Vec<Finding> {
    let all: Vec<&str> = text.lines().collect();
    let missing = |site: &Site| match site.kind {
        // Clippy sees to blocks, those in macros too; a trait's method keeps the trait's promise.
        Kind::Block | Kind::InMacro | Kind::TraitMethod => None,
        Kind::Function | Kind::Trait if site.has_section => None,
        Kind::Function | Kind::Trait => Some("document what a caller must promise under `# Safety`"),
        Kind::Implementation | Kind::Foreign | Kind::Attribute if is_commented(&all, site.line) => None,
        Kind::Implementation | Kind::Foreign | Kind::Attribute => {
            Some("say in a `// SAFETY:` comment above it why it is sound")
        }
    };
    let finding =
        |site: &Site| Some(Finding::new(file, site.line, format!("unsafe {:?}: {}", site.kind, missing(site)?)));
    sites(file, text).iter().filter_map(finding).collect()
}

/// Whether a `SAFETY:` comment is in the comments, documentation and attributes directly above `line` (from 1), or in
/// its own.
fn is_commented(all: &[&str], line: usize) -> bool {
    let above = all.get(..line.saturating_sub(1)).unwrap_or_default();
    let belongs = |text: &&&str| ["//", "#[", "]"].iter().any(|start| text.trim_start().starts_with(start));
    // The item itself may start with attributes, and its comment stand between them and the word.
    let below = all.get(line.saturating_sub(1)..).unwrap_or_default();
    above
        .iter()
        .rev()
        .take_while(belongs)
        .chain(below.iter().take_while(belongs))
        .any(|text| text.contains("// SAFETY:"))
}

#[test]
fn unsafe_functions_implementations_and_attributes_are_justified() {
    let findings: Vec<Finding> = sources().iter().flat_map(|file| unjustified(&file.path, &file.text)).collect();
    assert_none(&findings);
}

#[test]
fn every_kind_of_unsafe_is_found() {
    use Kind::{Attribute, Block, Foreign, Function, Implementation, InMacro, Trait, TraitMethod};
    let text = r#"//! unsafe in a comment
#[unsafe(no_mangle)]
unsafe extern "C" fn one(pointer: unsafe fn()) { unsafe { two(pointer) } }
unsafe extern "C" { safe fn three(); }
unsafe trait Four { unsafe fn five(); }
unsafe impl Four for u8 { unsafe fn five() {} }
fn seven() { assert!(unsafe { eight() }, "unsafe"); let unsafely = r"unsafe"; }
#[cfg_attr(x, unsafe(no_mangle))]
static NINE: u8 = 0;
impl u8 { const fn ten() { unsafe {} } }
macro_rules! eleven { () => { unsafe {} } }
fn twelve() { syn::parse_quote!(unsafe { thirteen() }); }
"#;
    let found: Vec<(usize, Kind)> = sites("", text).iter().map(|site| (site.line, site.kind)).collect();
    let expected = [
        (3, Function),
        (2, Attribute),
        (3, Block),
        (4, Foreign),
        (5, Trait),
        (5, Function),
        (6, Implementation),
        (6, TraitMethod),
        (7, InMacro),
        (8, InMacro),
        (10, Block),
        (11, InMacro),
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_unjustified_unsafe_is_found() {
    let bad = r#"
/// What it does.
unsafe fn one() {}
unsafe impl Send for A {}
unsafe extern "C" { fn two(); }
#[unsafe(no_mangle)]
static THREE: u8 = 0;
"#;
    assert_eq!(lines(&unjustified("", bad)), [3, 4, 5, 6]);
    let good = r#"
/// What it does.
///
/// # Safety
/// Only on Sundays.
unsafe fn one() {}
// SAFETY: nothing in it.
unsafe impl Send for A {}
// SAFETY: the declaration is the assembly's
// own.
#[link_section = "x"]
unsafe extern "C" { fn two(); }
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
static THREE: u8 = 0;
"#;
    assert_eq!(unjustified("", good), []);
}
