//! Writes the enum, the markers, the table's measures and `vsm_rows!`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::LitInt;

use super::MAX_TABLE_LEN;
use super::parse::Call;
use crate::documentation;

/// The expansion for a checked, non-empty list.
pub fn expand(calls: &[Call]) -> TokenStream {
    let (Some(first), Some(last)) = (calls.first(), calls.last()) else {
        return TokenStream::new();
    };
    let function = enumeration(calls, first.id);
    let markers = markers(calls);
    let rows = rows_macro(calls);
    let base = &first.literal;
    let reserved: Vec<LitInt> = (first.id..=last.id)
        .filter(|id| calls.iter().all(|call| call.id != *id))
        .map(|id| LitInt::new(&format!("{id:#x}"), proc_macro2::Span::call_site()))
        .collect();
    let (holes, length, most) = (reserved.len(), reserved.len() + calls.len(), MAX_TABLE_LEN);
    quote! {
        #function

        /// The first id, which has index 0 in the jump table.
        pub const VSM_BASE: u64 = #base;
        /// Places in the jump table, reserved ones included.
        pub const VSM_TABLE_LEN: usize = #length;
        /// Places that a jump table may have at most: the gate keeps one bit for each in a `u64`.
        pub const VSM_MAX_TABLE_LEN: usize = #most;
        /// Ids within the table's range that no call has.
        pub const VSM_RESERVED: [u64; #holes] = [#(#reserved),*];

        #markers
        #rows
    }
}

/// The enum and its methods.
fn enumeration(calls: &[Call], base: u64) -> TokenStream {
    let names: Vec<_> = calls.iter().map(|call| &call.name).collect();
    let docs: Vec<_> = calls.iter().map(|call| &call.docs).collect();
    let ids: Vec<_> = calls.iter().map(|call| &call.literal).collect();
    let indices: Vec<_> = calls.iter().map(|call| usize::try_from(call.id - base).unwrap_or(usize::MAX)).collect();
    let texts: Vec<_> = calls.iter().map(|call| documentation::text(&call.docs)).collect();
    let spellings: Vec<_> = names.iter().map(ToString::to_string).collect();
    let count = calls.len();
    quote! {
        /// A VSM call that VTL0 may make; the discriminant is the id it passes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u64)]
        pub enum VsmFunction {
            #(#(#docs)* #names = #ids,)*
        }

        impl VsmFunction {
            /// How many calls are declared.
            pub const COUNT: usize = #count;
            /// All calls, by ascending id.
            pub const ALL: [Self; Self::COUNT] = [#(Self::#names),*];

            /// The id VTL0 passes.
            #[must_use]
            pub const fn id(self) -> u64 {
                self as u64
            }

            /// The call's place in the jump table.
            #[must_use]
            pub const fn index(self) -> usize {
                match self {
                    #(Self::#names => #indices,)*
                }
            }

            /// The name as declared.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    #(Self::#names => #spellings,)*
                }
            }

            /// The declaration's documentation, line by line.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self {
                    #(Self::#names => #texts,)*
                }
            }

            /// The call whose id is `id`, all 64 bits compared.
            #[must_use]
            pub const fn from_id(id: u64) -> Option<Self> {
                match id {
                    #(#ids => Some(Self::#names),)*
                    _ => None,
                }
            }
        }
    }
}

/// The marker types.
fn markers(calls: &[Call]) -> TokenStream {
    let markers = calls.iter().map(|Call { docs, name, .. }| {
        quote! {
            #(#docs)*
            #[derive(Clone, Copy, Debug)]
            pub struct #name;

            impl super::VsmCall for #name {
                const FUNCTION: super::VsmFunction = super::VsmFunction::#name;
            }
        }
    });
    quote! {
        /// One type per VSM call, to stand for it where the type system decides.
        pub mod calls {
            #(#markers)*
        }
    }
}

/// The macro that makes a table name every call.
fn rows_macro(calls: &[Call]) -> TokenStream {
    let names = calls.iter().map(|call| &call.name);
    quote! {
        /// `[CallRow; VsmFunction::COUNT]` of the table that the type `$table` stands for, by ascending id.
        ///
        /// Does not compile unless the type has a handler for every declared call.
        #[macro_export]
        macro_rules! vsm_rows {
            ($table:ty) => {
                [#($crate::vsm::CallRow::of::<$table, $crate::vsm::calls::#names>()),*]
            };
        }
    }
}
