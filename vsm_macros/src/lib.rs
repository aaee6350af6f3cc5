//! The two macros of the VSM call table.
//!
//! [`vsm_functions!`](macro@vsm_functions) declares the calls, in one place, in the platform crate.
//! [`#[vsm_handler]`](macro@vsm_handler) makes a function the handler of one of them. Both run on the build machine
//! and trust the contributor's source in nothing: a mistake is one error, at its own line, naming what is accepted.
#![forbid(unsafe_code)]

mod codes;
mod documentation;
mod errors;
mod functions;
mod handler;

use proc_macro::TokenStream;

/// Makes a function the handler of a VSM call.
///
/// ```ignore
/// /// Signals that VTL0 has finished booting.
/// #[vsm_handler(VsmFunction::SignalEndOfBoot, phase = boot, caller = any, errors())]
/// fn signal_end_of_boot(call: &BootContext<'_>) -> Result<(), VsmError> {
///     call.boot_call().end_boot()
/// }
/// ```
///
/// The first argument names the call; the macro reads it, nothing needs importing for it. After it:
///
/// | key | values | meaning |
/// |---|---|---|
/// | `phase` (required) | `boot`, `runtime`, `any` | before the end of boot, after it, or both |
/// | `caller` (required) | `bsp`, `any` | from the boot processor, or from every one |
/// | `errors` (required) | `(EINVAL = "when", …)` | the handler's own errnos, and when each occurs |
/// | `not_implemented` | | the call answers -ENOTSUP; the function is written `fn name() {}`, without `errors` |
///
/// The function has a doc comment, takes `&BootContext<'_>` (if `phase = boot`) or `&CallContext<'_>`, then up to
/// three parameters by value, whose types implement `VsmParam` and take at most three registers together. It
/// returns `Result<T, VsmError>`, where `T` implements `VsmReply`.
///
/// What the gate answers, and what the parameters' types refuse with, follows from the rest and is not listed in `errors`.
/// Every result of a call in a test is compared with the list.
///
/// It expands to an implementation of `Handles` for the call's marker type, on `crate::VsmTable`. So a second handler for a
/// call is E0119, a missing one is E0277 at the table.
#[proc_macro_attribute]
pub fn vsm_handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(arguments.into(), &item.into()).into()
}

/// Declares the VSM calls: `/// docs` and `Name = 0xid,` for each, ids ascending.
///
/// Expands, where it stands, to the enum `VsmFunction`, the module `calls` with one marker type per call (each
/// implements the `VsmCall` of the module the macro stands in), `VSM_BASE`, `VSM_TABLE_LEN`, `VSM_MAX_TABLE_LEN`,
/// `VSM_RESERVED`, and the exported macro `vsm_rows!(Table)`, the array of the rows of a table that names every call.
#[proc_macro]
pub fn vsm_functions(declaration: TokenStream) -> TokenStream {
    functions::expand(declaration.into()).into()
}
