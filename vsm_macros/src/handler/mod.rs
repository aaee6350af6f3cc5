//! `#[vsm_handler]`: a function becomes the handler of a VSM call.
//!
//! `attribute` reads the arguments, `signature` the function; both collect what is wrong. `expand` writes the trait
//! implementation. After an error the implementation is written too, with an entry that is never used: the table
//! then finds its handler, and the mistake stays one error.

mod attribute;
mod errors_list;
mod expand;
mod parameter;
mod signature;

#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use syn::ItemFn;

use crate::codes::Code;
use crate::errors::Errors;

/// What the macro expands to.
pub fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let attribute = attribute::parse(arguments, &mut errors);
    let Ok(function) = syn::parse2::<ItemFn>(item.clone()) else {
        errors.at(Code::Item, &first_line(item), "`#[vsm_handler]` stands before a function with a body");
        return expand::after_errors(&errors, &attribute, item, true);
    };
    let signature = signature::check(&function, &attribute, &mut errors);
    match (attribute.complete(), signature) {
        (Some(rules), Some(signature)) if errors.is_empty() => expand::handler(&rules, &function, &signature),
        _ => {
            let free = function.sig.receiver().is_none();
            let function = signature::harmless(function, attribute.not_implemented);
            expand::after_errors(&errors, &attribute, &function, free)
        }
    }
}

/// The item without its body, to be underlined.
fn first_line(item: &TokenStream) -> TokenStream {
    use proc_macro2::{Delimiter, TokenTree};
    item.clone()
        .into_iter()
        .take_while(|token| !matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace))
        .collect()
}
