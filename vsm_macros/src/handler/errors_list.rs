//! Reads `errors(EINVAL = "when", …)`: the errnos that a handler adds to those of the gate and of its parameters.
//!
//! Whether there is such an errno is the platform's to say: its name becomes a constant of `Errno`, and the compiler's words
//! about one that is not there point at the contributor's own.

use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Ident, LitStr, Token, parenthesized, token};

use crate::codes::Code;
use crate::errors::{self, Errors};

const FORM: &str = "errnos are listed as `errors(EINVAL = \"when it occurs\", …)`";

/// One errno of the list.
pub struct Listed {
    /// As Linux spells it.
    pub errno: Ident,
    /// When it occurs.
    pub when: String,
}

/// Reads what stands after the key. What is wrong with an element goes to `errors`.
pub fn parse(input: ParseStream<'_>, key: &Ident, errors: &mut Errors) -> syn::Result<Vec<Listed>> {
    if !input.peek(token::Paren) {
        let span = if input.is_empty() || input.peek(Token![,]) { key.span() } else { input.span() };
        return Err(errors::error(Code::Errors, span, FORM));
    }
    let list;
    parenthesized!(list in input);
    let elements = Punctuated::<Listed, Token![,]>::parse_terminated_with(&list, element)?;
    let mut listed: Vec<Listed> = Vec::new();
    for element in elements {
        if listed.iter().any(|before| before.errno == element.errno) {
            let message = format!("`{}` is listed twice: say all of when it occurs at once", element.errno);
            errors.at(Code::ErrnoTwice, &element.errno, message);
        } else {
            listed.push(element);
        }
    }
    Ok(listed)
}

fn element(input: ParseStream<'_>) -> syn::Result<Listed> {
    let wrong = |wrong: &syn::Error| errors::error(Code::Errors, wrong.span(), FORM);
    let errno: Ident = input.parse().map_err(|error| wrong(&error))?;
    input.parse::<Token![=]>().map_err(|error| wrong(&error))?;
    let when: LitStr = input.parse().map_err(|error| wrong(&error))?;
    if when.value().trim().is_empty() {
        return Err(errors::error(Code::Errors, when.span(), FORM));
    }
    Ok(Listed { errno, when: when.value() })
}
