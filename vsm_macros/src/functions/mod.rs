//! `vsm_functions!`: the declaration of the calls.

mod expand;
mod parse;

#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

use crate::errors::Errors;

/// Places of the longest table: the gate keeps one bit for each in a `u64`.
const MAX_TABLE_LEN: usize = 64;

/// What the macro expands to.
pub fn expand(declaration: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let calls = parse::parse(declaration, &mut errors);
    if errors.is_empty() { expand::expand(&calls) } else { errors.to_compile_errors() }
}
