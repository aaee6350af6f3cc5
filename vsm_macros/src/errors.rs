//! The errors of one macro call, collected so that several mistakes are reported at once. Each begins with its code.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

use crate::codes::Code;

/// Errors found so far.
#[derive(Default)]
pub struct Errors(Vec<syn::Error>);

impl Errors {
    /// Adds an error that underlines `tokens`.
    pub fn at(&mut self, code: Code, tokens: &impl ToTokens, message: impl AsRef<str>) {
        self.0.push(syn::Error::new_spanned(tokens, format!("{code}: {}", message.as_ref())));
    }

    /// Adds an error at `span`.
    pub fn at_span(&mut self, code: Code, span: Span, message: impl AsRef<str>) {
        self.0.push(error(code, span, message));
    }

    /// Adds an error of the parser. One that has no code yet is the parser's own.
    pub fn push(&mut self, parsing: syn::Error) {
        let message = parsing.to_string();
        let has_code = message.starts_with("VSM");
        self.0.push(if has_code { parsing } else { error(Code::Syntax, parsing.span(), message) });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `compile_error!` calls.
    pub fn to_compile_errors(&self) -> TokenStream {
        self.0.iter().map(syn::Error::to_compile_error).collect()
    }
}

/// An error that ends the parsing.
pub fn error(code: Code, span: Span, message: impl AsRef<str>) -> syn::Error {
    syn::Error::new(span, format!("{code}: {}", message.as_ref()))
}
