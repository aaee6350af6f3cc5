//! Reads and checks the list of calls.
//!
//! Each rule is reported at the line that breaks it: documentation, literal ids, names used once, ids ascending,
//! a table that stays small.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, Ident, LitInt, Token};

use super::MAX_TABLE_LEN;
use crate::codes::Code;
use crate::errors::{self, Errors};

/// One declared call.
pub struct Call {
    /// Its doc comment.
    pub docs: Vec<Attribute>,
    /// Its name.
    pub name: Ident,
    /// The id's literal, for its span and spelling.
    pub literal: LitInt,
    /// The id.
    pub id: u64,
}

/// A call before its id is read as a number.
struct Line {
    docs: Vec<Attribute>,
    name: Ident,
    literal: LitInt,
}

impl Parse for Line {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let docs = input.call(Attribute::parse_outer)?;
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        let literal = input
            .parse()
            .map_err(|wrong| errors::error(Code::IdLiteral, wrong.span(), "a VSM call's id is an integer literal"))?;
        Ok(Self { docs, name, literal })
    }
}

/// The declared calls that could be read; what is wrong goes to `errors`.
pub fn parse(declaration: TokenStream, errors: &mut Errors) -> Vec<Call> {
    let lines = match Punctuated::<Line, Token![,]>::parse_terminated.parse2(declaration) {
        Ok(lines) => lines,
        Err(error) => {
            errors.push(error);
            return Vec::new();
        }
    };
    let mut calls: Vec<Call> = Vec::new();
    for line in lines {
        if let Some(call) = check(line, &calls, errors) {
            calls.push(call);
        }
    }
    if calls.is_empty() && errors.is_empty() {
        errors.at_span(Code::NoCalls, proc_macro2::Span::call_site(), "no VSM call is declared");
    }
    calls
}

/// Checks one line against those before it.
fn check(line: Line, before: &[Call], errors: &mut Errors) -> Option<Call> {
    let Line { docs, name, literal } = line;
    if !docs.iter().any(|attribute| attribute.path().is_ident("doc")) {
        errors.at(
            Code::CallUndocumented,
            &name,
            format!("VSM call `{name}` needs a doc comment: what it asks of VTL1"),
        );
    }
    if let Some(other) = docs.iter().find(|attribute| !attribute.path().is_ident("doc")) {
        errors.at(Code::CallAttribute, other, "only doc comments may stand before a declared VSM call");
    }
    if before.iter().any(|call| call.name == name) {
        errors.at(Code::CallTwice, &name, format!("VSM call `{name}` is declared twice"));
        return None;
    }
    let id = match literal.base10_parse::<u64>() {
        Ok(id) => id,
        Err(error) => {
            errors.at(Code::IdNumber, &literal, error.to_string());
            return None;
        }
    };
    if let (Some(first), Some(last)) = (before.first(), before.last()) {
        if id == last.id {
            errors.at(Code::IdTwice, &literal, format!("id {id:#x} belongs to `{}` already", last.name));
            return None;
        }
        if id < last.id {
            errors.at(
                Code::IdOrder,
                &literal,
                format!("ids ascend, but {id:#x} follows {:#x} (`{}`)", last.id, last.name),
            );
            return None;
        }
        let greatest = first.id.saturating_add(MAX_TABLE_LEN as u64 - 1);
        if id > greatest {
            errors.at(
                Code::TableLength,
                &literal,
                format!(
                    "the table would have {} places, more than {MAX_TABLE_LEN}: ids lie in {:#x}..={greatest:#x}",
                    (id - first.id).saturating_add(1),
                    first.id,
                ),
            );
            return None;
        }
    }
    Some(Call { docs, name, literal, id })
}
