//! Reads the arguments of `#[vsm_handler(VsmFunction::X, key = value, …)]`.
//!
//! Nothing has a default that could be wrong: a handler says when it may run and who may call it.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Ident, Path, Token};

use super::errors_list::{self, Listed};
use crate::codes::Code;
use crate::errors::{self, Errors};

/// The keys, for messages.
const KEYS: &str = "`phase = boot|runtime|any`, `caller = bsp|any`, `errors(EINVAL = \"when\", …)`, `not_implemented`";

/// When the call may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Boot,
    Runtime,
    Any,
}

/// Who may make it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Bsp,
    Any,
}

/// A key's argument: absent, present but wrong (and reported), or read.
pub enum Value<T> {
    Absent,
    Wrong,
    Read(T),
}

impl<T: Copy> Value<T> {
    /// The value, if it was read.
    pub fn read(&self) -> Option<T> {
        if let Self::Read(value) = self { Some(*value) } else { None }
    }
}

/// The arguments as far as they could be read.
pub struct Attribute {
    /// The call's name, the last segment of the path.
    pub call: Option<Ident>,
    pub phase: Value<Phase>,
    pub caller: Value<Caller>,
    /// The handler's own errnos; `None` if the key is absent.
    pub errors: Option<Vec<Listed>>,
    pub not_implemented: bool,
}

/// The arguments of a correct attribute.
pub struct Rules<'a> {
    pub call: &'a Ident,
    pub phase: Phase,
    pub caller: Caller,
    pub errors: &'a [Listed],
    pub not_implemented: bool,
}

impl Attribute {
    /// The rules, unless something is missing.
    pub fn complete(&self) -> Option<Rules<'_>> {
        Some(Rules {
            call: self.call.as_ref()?,
            phase: self.phase.read()?,
            caller: self.caller.read()?,
            errors: self.errors.as_deref().unwrap_or_default(),
            not_implemented: self.not_implemented,
        })
    }
}

/// Reads the arguments; what is wrong goes to `errors`.
pub fn parse(arguments: TokenStream, errors: &mut Errors) -> Attribute {
    let mut attribute =
        Attribute { call: None, phase: Value::Absent, caller: Value::Absent, errors: None, not_implemented: false };
    // After an argument that was not understood, what seems to be missing may be what was meant by it.
    let mut understood = true;
    let result = (|input: ParseStream<'_>| {
        understood &= read_call(input, &mut attribute, errors)?;
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            understood &= read_key(input, &mut attribute, errors)?;
        }
        Ok(())
    })
    .parse2(arguments);
    if let Err(error) = result {
        errors.push(error);
    } else if understood {
        report_missing(&attribute, errors);
    }
    attribute
}

/// Reports required keys that are absent.
fn report_missing(attribute: &Attribute, errors: &mut Errors) {
    let span = attribute.call.as_ref().map_or_else(Span::call_site, Ident::span);
    if matches!(attribute.phase, Value::Absent) {
        errors.at_span(
            Code::PhaseMissing,
            span,
            "missing `phase`: say when the call may be made, `phase = boot|runtime|any`",
        );
    }
    if matches!(attribute.caller, Value::Absent) {
        let message = "missing `caller`: say which processors may make the call, `caller = bsp|any`";
        errors.at_span(Code::CallerMissing, span, message);
    }
    match (&attribute.errors, attribute.not_implemented) {
        (None, false) => errors.at_span(
            Code::ErrorsMissing,
            span,
            "missing `errors`: list the handler's own errnos and when each occurs, `errors(EINVAL = \"when\", …)`; \
             `errors()` if there are none but those of the gate and of the parameters",
        ),
        (Some(_), true) => errors.at_span(
            Code::ErrorsOfNothing,
            span,
            "a handler that is `not_implemented` has no `errors`: that it answers -ENOTSUP follows from the flag",
        ),
        _ => {}
    }
}

/// Reads the path of the call. `Ok(false)` if it was reported as wrong.
fn read_call(input: ParseStream<'_>, attribute: &mut Attribute, errors: &mut Errors) -> syn::Result<bool> {
    const EXPECTED: &str = "the first argument names the call: `VsmFunction::X`";
    if input.is_empty() {
        return Err(errors::error(Code::Call, Span::call_site(), EXPECTED));
    }
    if input.peek(Ident) && input.peek2(Token![=]) {
        return Err(errors::error(Code::Call, input.span(), EXPECTED));
    }
    let path: Path = input.parse().map_err(|wrong| errors::error(Code::Call, wrong.span(), EXPECTED))?;
    let mut segments = path.segments.iter().rev();
    let plain = path.segments.iter().all(|segment| segment.arguments.is_none());
    match (segments.next(), segments.next()) {
        (Some(call), Some(owner)) if owner.ident == "VsmFunction" && plain => {
            attribute.call = Some(call.ident.clone());
            Ok(true)
        }
        _ => {
            errors.at(Code::Call, &path, EXPECTED);
            Ok(false)
        }
    }
}

/// Reads one argument after the path. `Ok(false)` if its key was reported as unknown.
fn read_key(input: ParseStream<'_>, attribute: &mut Attribute, errors: &mut Errors) -> syn::Result<bool> {
    let key = input
        .call(Ident::parse_any)
        .map_err(|wrong| errors::error(Code::Key, wrong.span(), format!("expected one of {KEYS}")))?;
    let spelling = key.to_string();
    let twice = match spelling.as_str() {
        "phase" => !matches!(attribute.phase, Value::Absent),
        "caller" => !matches!(attribute.caller, Value::Absent),
        "errors" => attribute.errors.is_some(),
        "not_implemented" => attribute.not_implemented,
        _ => {
            errors.at(Code::Key, &key, format!("unknown key `{key}`; accepted are {KEYS}"));
            skip_value(input)?;
            return Ok(false);
        }
    };
    if twice {
        errors.at(Code::Twice, &key, format!("`{key}` is given twice"));
        skip_value(input)?;
        return Ok(true);
    }
    match spelling.as_str() {
        "phase" => {
            attribute.phase = read_value(input, &key, Code::Phase, errors, |word| match word {
                "boot" => Ok(Phase::Boot),
                "runtime" => Ok(Phase::Runtime),
                "any" => Ok(Phase::Any),
                _ => Err("accepted are `boot` (before the end of boot), `runtime` (after it), `any`"),
            })?;
        }
        "caller" => {
            attribute.caller = read_value(input, &key, Code::Caller, errors, |word| match word {
                "bsp" => Ok(Caller::Bsp),
                "any" => Ok(Caller::Any),
                _ => Err("accepted are `bsp` (the boot processor only), `any`"),
            })?;
        }
        "errors" => attribute.errors = Some(errors_list::parse(input, &key, errors)?),
        _ => {
            attribute.not_implemented = true;
            if input.peek(Token![=]) {
                errors.at(Code::FlagValue, &key, "`not_implemented` is a flag and takes no value");
                skip_value(input)?;
            }
        }
    }
    Ok(true)
}

/// Reads `= word` and looks the word up.
fn read_value<T>(
    input: ParseStream<'_>,
    key: &Ident,
    code: Code,
    errors: &mut Errors,
    look_up: impl Fn(&str) -> Result<T, &'static str>,
) -> syn::Result<Value<T>> {
    if !input.peek(Token![=]) {
        errors.at(code, key, format!("`{key}` needs a value: {}", look_up("").err().unwrap_or_default()));
        return Ok(Value::Wrong);
    }
    input.parse::<Token![=]>()?;
    let value: TokenStream = value_tokens(input)?;
    Ok(match look_up(&value.to_string()) {
        Ok(read) => Value::Read(read),
        Err(accepted) => {
            let message = format!("unknown value of `{key}`; {accepted}");
            if value.is_empty() {
                errors.at(code, key, message);
            } else {
                errors.at(code, &value, message);
            }
            Value::Wrong
        }
    })
}

/// Passes over `= …` or `(…)` up to the next comma.
fn skip_value(input: ParseStream<'_>) -> syn::Result<()> {
    value_tokens(input).map(drop)
}

/// The tokens up to the next comma, which may have been forgotten before the next key.
fn value_tokens(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    let mut value = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        if !value.is_empty() && input.peek(Ident) && input.peek2(Token![=]) {
            return Err(errors::error(Code::Syntax, input.span(), "expected `,` between two arguments"));
        }
        value.extend([input.parse::<proc_macro2::TokenTree>()?]);
    }
    Ok(value)
}
