//! The expansion, word for word, against the files of `tests/expand`. `EXPECTORATE=overwrite` renews them.

use proc_macro2::TokenStream;
use quote::quote;

/// Formats what `#[vsm_handler(arguments)]` makes of `item` and compares it with the file.
fn assert_expansion(name: &str, arguments: TokenStream, item: &TokenStream) {
    let expansion = syn::parse2(super::expand(arguments, item)).expect("the expansion is a list of items");
    let path = format!("{}/tests/expand/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    expectorate::assert_contents(path, &prettyplease::unparse(&expansion));
}

#[test]
fn with_parameters() {
    assert_expansion(
        "handler_with_parameters",
        quote!(
            VsmFunction::ValidateModule,
            phase = any,
            caller = any,
            errors(EINVAL = "unexplained", EACCES = "another's",)
        ),
        &quote! {
            /// Verifies a module.
            ///
            /// Returns its token.
            fn validate_module(call: &CallContext<'_>, list: HekiList, flags: Flags<7>) -> Result<Token, VsmError> {
                verify(call, list, flags)
            }
        },
    );
}

#[test]
fn in_the_boot_phase() {
    assert_expansion(
        "handler_boot",
        quote!(VsmFunction::SignalEndOfBoot, phase = boot, caller = bsp, errors()),
        &quote! {
            /// Ends the boot.
            pub fn signal_end_of_boot(call: &BootContext<'_>) -> Result<(), VsmError> {
                call.boot_call().end_boot()
            }
        },
    );
}

#[test]
fn not_implemented() {
    assert_expansion(
        "handler_not_implemented",
        quote!(VsmFunction::PatchText, phase = runtime, caller = any, not_implemented),
        &quote! {
            /// Writes a patch.
            fn patch_text() {}
        },
    );
}

#[test]
fn after_errors_the_table_is_complete() {
    assert_expansion(
        "handler_after_errors",
        quote!(VsmFunction::PatchText, phase = late),
        &quote! {
            unsafe fn patch_text(call: &CallContext<'_>) -> i64 {
                0
            }
        },
    );
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let item = quote! {
        async fn patch_text<T>(call: &CallContext<'_>, a: &T) -> i64 {
            0
        }
    };
    let expansion = super::expand(quote!(VsmFunction::PatchText, phase = late, call = any), &item).to_string();
    // Undocumented, async, generic, a reference, the reply, the phase's value, the unknown key.
    assert_eq!(expansion.matches("compile_error").count(), 7, "{expansion}");
}
