//! Writes the implementation of `Handles` for a handler.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ItemFn;
use syn::spanned::Spanned;

use super::attribute::{Attribute, Caller, Phase, Rules};
use super::errors_list::Listed;
use super::signature::Handler;
use crate::errors::Errors;

/// The expansion of a correct handler.
pub fn handler(rules: &Rules<'_>, function: &ItemFn, handler: &Handler<'_>) -> TokenStream {
    let meta = meta(rules, function, handler);
    let Some(reply) = handler.reply else {
        return refusing(rules.call, &meta);
    };
    let (name, names) = (&function.sig.ident, constants(handler));
    let parameters = handler.parameters.iter().zip(&names).map(|(parameter, constant)| {
        let (ty, spelling) = (parameter.ty, parameter.name.to_string());
        // At the type, so that a type which is no parameter is underlined.
        let value = quote_spanned!(ty.span()=> ::litebox_platform_lvbs::vsm::Param::<#ty>::new(#spelling));
        quote!(const #constant: ::litebox_platform_lvbs::vsm::Param<#ty> = #value;)
    });
    let reply_value = quote_spanned!(reply.span()=> ::litebox_platform_lvbs::vsm::Reply::<#reply>::of_type());
    let count = registers_check(function, &names);
    let context = match rules.phase {
        Phase::Boot => quote! {
            let context = ::litebox_platform_lvbs::vsm::BootContext::new(context)?;
            let context = &context;
        },
        Phase::Runtime | Phase::Any => TokenStream::new(),
    };
    let registers = (!names.is_empty())
        .then(|| quote!(let mut registers = ::litebox_platform_lvbs::vsm::Registers::new(registers);));
    let unused = if names.is_empty() { quote!(_) } else { quote!(registers) };
    let body = quote! {
        #context
        #registers
        // Arguments are evaluated in order, and so the registers are taken in order.
        REPLY.answer(#name(context, #(registers.take(&#names, context.platform())?),*))
    };
    let implementation = implementation(rules.call, &meta, &quote!(context), &unused, &body);
    quote! {
        #function

        const _: () = {
            #(#parameters)*
            const REPLY: ::litebox_platform_lvbs::vsm::Reply<#reply> = #reply_value;
            #count
            #implementation
        };
    }
}

/// The expansion after errors: the errors, `item`, and, unless the item may stand in an `impl` block, where one would
/// be a second error, an implementation that completes the table.
pub fn after_errors(errors: &Errors, attribute: &Attribute, item: &TokenStream, complete_table: bool) -> TokenStream {
    let errors = errors.to_compile_errors();
    let implementation = attribute.call.as_ref().filter(|_| complete_table).map(|call| {
        let meta = quote! {
            ::litebox_platform_lvbs::vsm::HandlerMeta {
                name: "",
                phase: ::litebox_platform_lvbs::vsm::PhaseRule::Boot,
                caller: ::litebox_platform_lvbs::vsm::CallerRule::Bsp,
                implemented: false,
                params: &[],
                reply: "",
                errors: &[],
                doc: "",
                file: "",
                line: 0,
            }
        };
        refusing(call, &meta)
    });
    quote!(#errors #item #implementation)
}

/// The trait implementation of a call that answers -ENOTSUP.
fn refusing(call: &syn::Ident, meta: &TokenStream) -> TokenStream {
    let error = quote!(::litebox_platform_lvbs::VsmError::NotImplemented);
    let body = quote!(::core::result::Result::Err(::litebox_platform_lvbs::vsm::Refusal::ByHandler(#error)));
    implementation(call, meta, &quote!(_), &quote!(_), &body)
}

/// The trait implementation around `body`.
fn implementation(
    call: &syn::Ident,
    meta: &TokenStream,
    context: &TokenStream,
    registers: &TokenStream,
    body: &TokenStream,
) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::litebox_platform_lvbs::vsm::Handles<::litebox_platform_lvbs::vsm::calls::#call> for crate::VsmTable {
            const META: ::litebox_platform_lvbs::vsm::HandlerMeta = #meta;

            fn call(
                #context: &::litebox_platform_lvbs::vsm::CallContext<'_>,
                #registers: &[u64; 3],
            ) -> ::core::result::Result<u32, ::litebox_platform_lvbs::vsm::Refusal> {
                #body
            }
        }
    }
}

/// What listings show of the handler.
fn meta(rules: &Rules<'_>, function: &ItemFn, handler: &Handler<'_>) -> TokenStream {
    let (name, doc) = (function.sig.ident.to_string(), &handler.doc);
    let phase = match rules.phase {
        Phase::Boot => quote!(Boot),
        Phase::Runtime => quote!(Runtime),
        Phase::Any => quote!(Any),
    };
    let caller = match rules.caller {
        Caller::Bsp => quote!(Bsp),
        Caller::Any => quote!(Any),
    };
    let implemented = !rules.not_implemented;
    let params = constants(handler);
    let errors = rules.errors.iter().map(|Listed { errno, when }| {
        quote!(::litebox_platform_lvbs::vsm::ErrnoMeta::new(::litebox_platform_lvbs::Errno::#errno, #when))
    });
    let reply = if implemented { quote!(REPLY.kind()) } else { quote!("") };
    quote! {
        ::litebox_platform_lvbs::vsm::HandlerMeta {
            name: #name,
            phase: ::litebox_platform_lvbs::vsm::PhaseRule::#phase,
            caller: ::litebox_platform_lvbs::vsm::CallerRule::#caller,
            implemented: #implemented,
            params: &[#(#params.meta()),*],
            reply: #reply,
            errors: &[#(#errors),*],
            doc: #doc,
            file: ::core::file!(),
            line: ::core::line!(),
        }
    }
}

/// The compile-time check that the parameters fit the registers, reported at the parameters.
fn registers_check(function: &ItemFn, names: &[syn::Ident]) -> TokenStream {
    let span = function.sig.inputs.span();
    let enough = quote!(::litebox_platform_lvbs::vsm::Registers::are_enough_for(&[#(#names.meta()),*]));
    quote_spanned! {span=>
        const _: () = ::core::assert!(
            #enough,
            "VSM053: the parameters of a VSM call take at most three registers together",
        );
    }
}

/// The names of the parameters' constants.
fn constants(handler: &Handler<'_>) -> Vec<syn::Ident> {
    (0..handler.parameters.len()).map(|index| format_ident!("PARAM_{index}")).collect()
}
