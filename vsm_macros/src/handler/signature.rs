//! Checks the function below the attribute.
//!
//! Only what the compiler would report in words about generated code, or not at all, is checked here; the types of
//! parameters and reply are left to their traits.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{FnArg, GenericArgument, Ident, ItemFn, PathArguments, ReturnType, Signature, Type};

use super::attribute::{Attribute, Phase};
use super::parameter::{self, Parameter};
use crate::codes::Code;
use crate::documentation;
use crate::errors::Errors;

/// A handler may take this many parameters, one register each at least.
const MAX_PARAMETERS: usize = 3;

/// What the expansion needs of the function.
pub struct Handler<'a> {
    /// The doc comment's text.
    pub doc: String,
    /// The parameters after the context.
    pub parameters: Vec<Parameter<'a>>,
    /// `T` of the returned `Result<T, VsmError>`; `None` for a handler that is not implemented.
    pub reply: Option<&'a Type>,
}

/// Checks the function; `None` after an error.
pub fn check<'a>(function: &'a ItemFn, attribute: &Attribute, errors: &mut Errors) -> Option<Handler<'a>> {
    let doc = documentation::text(&function.attrs);
    if doc.trim().is_empty() {
        errors.at(
            Code::Undocumented,
            &function.sig.ident,
            "a handler needs a doc comment: listings of the table show it",
        );
    }
    for other in &function.attrs {
        if other.path().segments.last().is_some_and(|segment| segment.ident == "vsm_handler") {
            errors.at(
                Code::HandlerTwice,
                other,
                "a function is the handler of one VSM call; write a second function for this one",
            );
        }
    }
    let signature = &function.sig;
    qualifiers(signature, errors);
    if attribute.not_implemented {
        not_implemented(function, errors);
        return errors.is_empty().then_some(Handler { doc, parameters: Vec::new(), reply: None });
    }
    let parameters = parameters(signature, attribute.phase.read(), errors);
    let reply = reply(signature, errors);
    errors.is_empty().then_some(Handler { doc, parameters, reply })
}

/// The function, changed so that it draws no error of the compiler for what the macro has reported.
pub fn harmless(mut function: ItemFn, not_implemented: bool) -> TokenStream {
    function
        .attrs
        .retain(|attribute| attribute.path().segments.last().is_none_or(|segment| segment.ident != "vsm_handler"));
    function.sig.unsafety = None;
    function.sig.abi = None;
    function.sig.variadic = None;
    let quiet = quote!(#[allow(dead_code, unused_variables, missing_docs, non_upper_case_globals, clippy::all)]);
    let method = function.sig.receiver().is_some();
    if method || not_implemented {
        function.block = syn::parse_quote!({ loop {} });
    }
    if !method {
        return quote!(#quiet #function);
    }
    // A constant may stand in an `impl` block and outside; the function in it still uses what is imported for it.
    function.sig.inputs = function.sig.inputs.into_iter().filter(|input| matches!(input, FnArg::Typed(_))).collect();
    let constant = format_ident!("__{}", function.sig.ident);
    quote!(#quiet const #constant: () = { #function };)
}

/// Refuses what makes a function something else than plain code to be entered with a context and registers.
fn qualifiers(signature: &Signature, errors: &mut Errors) {
    if let Some(token) = &signature.constness {
        errors.at(Code::Const, token, "a handler is not `const`: it acts on a running kernel");
    }
    if let Some(token) = &signature.asyncness {
        errors.at(Code::Async, token, "a handler is not `async`: it has answered when it returns");
    }
    if let Some(token) = &signature.unsafety {
        errors.at(Code::Unsafe, token, "a handler is not `unsafe`: VTL0 calls it with whatever it likes");
    }
    if let Some(abi) = &signature.abi {
        errors.at(Code::Abi, abi, "a handler has Rust's calling convention; the table's entry reads the registers");
    }
    if let Some(variadic) = &signature.variadic {
        errors.at(Code::Variadic, variadic, "a handler is not variadic: a VSM call has three registers");
    }
    if !signature.generics.params.is_empty() {
        errors.at(
            Code::Generics,
            &signature.generics.params,
            "a handler has no generic parameters and no named lifetimes",
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        errors.at(Code::Where, clause, "a handler has no `where` clause");
    }
}

/// Checks the form `fn name() {}`. One error even if the function breaks it in several places: the mistake is then
/// the flag, or the function, as a whole.
fn not_implemented(function: &ItemFn, errors: &mut Errors) {
    const FORM: &str = "a handler that is `not_implemented` is written `fn name() {}`";
    if !function.sig.inputs.is_empty() {
        errors.at(Code::NotImplemented, &function.sig.inputs, format!("{FORM}: it takes no parameters"));
    } else if let ReturnType::Type(_, returned) = &function.sig.output {
        errors.at(Code::NotImplemented, returned, format!("{FORM}: it returns nothing"));
    } else if !function.block.stmts.is_empty() {
        errors.at(Code::NotImplemented, &function.block, format!("{FORM}: its body is empty"));
    }
}

/// Checks the context and reads the parameters after it.
fn parameters<'a>(signature: &'a Signature, phase: Option<Phase>, errors: &mut Errors) -> Vec<Parameter<'a>> {
    if let Some(receiver) = signature.receiver() {
        errors.at(Code::Receiver, receiver, "a handler is a free function and has no `self`");
        return Vec::new();
    }
    let mut inputs = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(input),
        FnArg::Receiver(_) => None,
    });
    match inputs.next() {
        None => {
            errors.at(Code::Context, &signature.ident, format!("a handler takes {} first", accepted_context(phase)));
        }
        Some(first) => context(&first.ty, phase, errors),
    }
    let named_lifetimes = signature.generics.lifetimes().next().is_some();
    let rest: Vec<_> = inputs.collect();
    if let Some(fourth) = rest.get(MAX_PARAMETERS) {
        errors.at(
            Code::FourParameters,
            fourth,
            "a VSM call has at most three parameters after the context: it has three registers",
        );
    }
    rest.iter().take(MAX_PARAMETERS).filter_map(|input| parameter::check(input, named_lifetimes, errors)).collect()
}

/// The context type for `phase`, in words.
fn accepted_context(phase: Option<Phase>) -> &'static str {
    match phase {
        Some(Phase::Boot) => "`&BootContext<'_>`",
        Some(Phase::Runtime | Phase::Any) => "`&CallContext<'_>`",
        None => "`&CallContext<'_>` (or `&BootContext<'_>` with `phase = boot`)",
    }
}

/// Checks the type of the first parameter: the context that fits the phase, by shared reference.
fn context(ty: &Type, phase: Option<Phase>, errors: &mut Errors) {
    let named = match ty {
        Type::Reference(reference) if reference.mutability.is_none() => last_segment(&reference.elem),
        _ => None,
    };
    let fits = match (named.map(ToString::to_string).as_deref(), phase) {
        (Some("BootContext"), Some(Phase::Boot) | None) => true,
        (Some("CallContext"), phase) => phase != Some(Phase::Boot),
        _ => false,
    };
    if !fits {
        let rule = match phase {
            Some(Phase::Boot) => " with `phase = boot`",
            Some(Phase::Runtime) => " with `phase = runtime`",
            Some(Phase::Any) => " with `phase = any`",
            None => "",
        };
        errors.at(Code::Context, ty, format!("a handler{rule} takes {} first", accepted_context(phase)));
    }
}

/// Checks `-> Result<T, VsmError>` and returns `T`.
fn reply<'a>(signature: &'a Signature, errors: &mut Errors) -> Option<&'a Type> {
    const RULE: &str = "a handler returns `Result<T, VsmError>`, where `T` is `()` or another reply type";
    let ReturnType::Type(_, returned) = &signature.output else {
        errors.at_span(Code::Reply, signature.ident.span(), RULE);
        return None;
    };
    let reply = result_of_vsm_error(returned);
    if reply.is_none() {
        errors.at_span(Code::Reply, returned.span(), RULE);
    }
    reply
}

/// `T` if `ty` is `Result<T, VsmError>`, judged by the last segments of the paths.
fn result_of_vsm_error(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let mut arguments = arguments.args.iter();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(GenericArgument::Type(reply)), Some(GenericArgument::Type(error)), None)
            if last_segment(error).is_some_and(|name| name == "VsmError") =>
        {
            Some(reply)
        }
        _ => None,
    }
}

/// The last name of a path type.
fn last_segment(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}
