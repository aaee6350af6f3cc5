//! Checks one parameter of a handler: a plain name, and a type taken by value that owns what it holds.

use quote::ToTokens;
use syn::{Ident, Pat, PatType, Type};

use crate::codes::Code;
use crate::errors::Errors;

/// A parameter after the context.
pub struct Parameter<'a> {
    pub name: &'a Ident,
    pub ty: &'a Type,
}

/// Reads a parameter; what is wrong goes to `errors`. Lifetimes are not looked for if the function names some:
/// that has been reported.
pub fn check<'a>(input: &'a PatType, named_lifetimes: bool, errors: &mut Errors) -> Option<Parameter<'a>> {
    let ty = &*input.ty;
    match ty {
        Type::Reference(_) => {
            errors.at(
                Code::Reference,
                ty,
                "a parameter is taken by value: it is made from registers, there is nothing to refer to",
            );
        }
        Type::ImplTrait(_) => {
            errors.at(
                Code::ImplTrait,
                ty,
                "a parameter has a named type, not `impl Trait`: the registers are read by that type",
            );
        }
        _ if !named_lifetimes && has_lifetime(ty.to_token_stream()) => {
            errors.at(Code::Lifetime, ty, "a parameter type has no lifetime: it is made from registers");
        }
        _ => {}
    }
    match &*input.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
            Some(Parameter { name: &pattern.ident, ty })
        }
        other => {
            errors.at(Code::Pattern, other, "a parameter has a plain name: listings of the table show it");
            None
        }
    }
}

/// Whether a lifetime occurs in the tokens.
fn has_lifetime(tokens: proc_macro2::TokenStream) -> bool {
    use proc_macro2::TokenTree;
    tokens.into_iter().any(|token| match token {
        TokenTree::Punct(punct) => punct.as_char() == '\'',
        TokenTree::Group(group) => has_lifetime(group.stream()),
        _ => false,
    })
}
