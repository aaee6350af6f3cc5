//! Where a call's lines go in files that people write. The places are found by parsing, so that comments and formatting do
//! not matter, and the rest of the file stays as it is, byte for byte.

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, File, Ident, Item, LitInt, Meta, Token};

/// A line of the declaration.
struct Row {
    start: Span,
    id: u64,
}

impl Parse for Row {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let start = input.span();
        input.call(Attribute::parse_outer)?;
        input.parse::<Ident>()?;
        input.parse::<Token![=]>()?;
        Ok(Self { start, id: input.parse::<LitInt>()?.base10_parse()? })
    }
}

/// The id as the declaration spells it.
pub fn id_literal(id: u64) -> String {
    format!("0x{:x}_{:04x}", id >> 16, id & 0xffff)
}

/// The declaration with one more row; ids ascend.
pub fn row(text: &str, name: &str, id: u64) -> Result<String> {
    let file = syn::parse_file(text)?;
    let declaration = file.items.iter().find_map(|item| match item {
        Item::Macro(item) if item.mac.path.segments.last()?.ident == "vsm_functions" => Some(&item.mac),
        _ => None,
    });
    let declaration = declaration.context("there is no vsm_functions!")?;
    let rows = declaration.parse_body_with(Punctuated::<Row, Token![,]>::parse_terminated)?;
    let row = format!("/// {name}: what VTL0 asks of VTL1, in a sentence.\n    {name} = {},\n", id_literal(id));
    match rows.iter().find(|row| row.id > id) {
        Some(next) => Ok(before(text, next.start, &format!("{row}    "))),
        None => Ok(before(text, declaration.delimiter.span().close(), &format!("    {row}"))),
    }
}

/// The file with `mod name;` among its modules, in the order of their names.
pub fn module(text: &str, name: &str) -> Result<String> {
    let file = syn::parse_file(text)?;
    let modules: Vec<_> = file
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(module) if module.content.is_none() => Some(module),
            _ => None,
        })
        .collect();
    let after = modules.iter().rfind(|module| module.ident.to_string().as_str() < name);
    let next = modules.first().context("there are no modules to put one among")?;
    match after {
        Some(module) => Ok(after_line(text, module.span(), &format!("mod {name};\n"))),
        None => Ok(before(text, next.span(), &format!("mod {name};\n"))),
    }
}

/// The file with one more line in the table of its documentation, after the last that begins with a file's name.
pub fn table_line(text: &str, line: &str) -> Result<String> {
    let is_line = |attribute: &&Attribute| match &attribute.meta {
        Meta::NameValue(doc) => matches!(&doc.value, Expr::Lit(value)
            if matches!(&value.lit, syn::Lit::Str(text) if text.value().starts_with(" | `"))),
        _ => false,
    };
    let File { attrs, .. } = syn::parse_file(text)?;
    let last = attrs.iter().rfind(is_line).context("its documentation has no table of files")?;
    Ok(after_line(text, last.span(), &format!("//! | {line} |\n")))
}

/// The file with one more statement in the function, before its last.
pub fn last_step(text: &str, function: &str, step: &str) -> Result<String> {
    let file = syn::parse_file(text)?;
    let last = file.items.iter().find_map(|item| match item {
        Item::Fn(item) if item.sig.ident == function => item.block.stmts.last(),
        _ => None,
    });
    let last = last.with_context(|| format!("there is no function {function} with a statement"))?;
    Ok(before(text, last.span(), &format!("{step}\n    ")))
}

fn before(text: &str, place: Span, added: &str) -> String {
    let (before, after) = text.split_at(place.byte_range().start);
    format!("{before}{added}{after}")
}

fn after_line(text: &str, place: Span, added: &str) -> String {
    let end = place.byte_range().end;
    let end = text[end..].find('\n').map_or(text.len(), |line| end + line + 1);
    let (before, after) = text.split_at(end);
    format!("{before}{added}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_their_ids() {
        let text =
            "// §\nvsm_macros::vsm_functions! {\n    /// A.\n    A = 0x1_0000,\n    /// D.\n    D = 0x1_0003,\n}\n";
        let added = "    /// N: what VTL0 asks of VTL1, in a sentence.\n    N = 0x1_0002,\n";
        assert_eq!(row(text, "N", 0x1_0002).unwrap(), text.replace("    /// D", &format!("{added}    /// D")));
        let added = added.replace("02", "04");
        assert_eq!(row(text, "N", 0x1_0004).unwrap(), text.replace("3,\n", &format!("3,\n{added}")));
        assert!(row("other! {}", "N", 1).is_err());
    }

    #[test]
    fn modules_are_in_the_order_of_their_names() {
        assert_eq!(module("mod b;\npub mod d; // x\n", "c").unwrap(), "mod b;\nmod c;\npub mod d; // x\n");
        assert_eq!(module("mod b;\npub mod d; // x\n", "e").unwrap(), "mod b;\npub mod d; // x\nmod e;\n");
        assert_eq!(module("use x;\n\n/// B.\nmod b;\n", "a").unwrap(), "use x;\n\nmod a;\n/// B.\nmod b;\n");
        assert!(module("mod x {}\n", "a").is_err());
    }

    #[test]
    fn a_line_of_the_table_and_a_step_are_the_last() {
        let text = "//! | `a` | A |\n//! | [`b`] | none |\nfn f() {\n    g();\n    Ok(())\n}\n";
        assert_eq!(table_line(text, "`n` | N").unwrap(), text.replace("A |\n", "A |\n//! | `n` | N |\n"));
        assert_eq!(last_step(text, "f", "n();").unwrap(), text.replace("    Ok", "    n();\n    Ok"));
        assert!(table_line("//! x\n", "y").is_err() && last_step(text, "g", "n();").is_err());
    }
}
