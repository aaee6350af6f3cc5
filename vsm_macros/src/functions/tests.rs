//! The expansion of a declaration, word for word. `EXPECTORATE=overwrite` renews the file.

use quote::quote;

#[test]
fn declaration_with_a_hole() {
    let expansion = super::expand(quote! {
        /// The first.
        First = 0x10,
        /// The second.
        Second = 0x11,
        /// The last, after a hole.
        Last = 0x13,
    });
    let expansion = syn::parse2(expansion).expect("the expansion is a list of items");
    let path = format!("{}/tests/expand/declaration.rs", env!("CARGO_MANIFEST_DIR"));
    expectorate::assert_contents(path, &prettyplease::unparse(&expansion));
}

#[test]
fn each_mistake_is_reported() {
    let expansion = super::expand(quote! {
        First = 0x10,
        /// Below.
        Second = 0x0f,
        /// The first again.
        First = 0x12,
        /// Far off.
        Far = 0x50,
    });
    assert_eq!(expansion.to_string().matches("compile_error").count(), 4, "{expansion}");
}

#[test]
fn the_longest_table_has_64_places() {
    let longest = super::expand(quote! {
        /// First.
        First = 0x10,
        /// Last.
        Last = 0x4f,
    });
    assert!(!longest.to_string().contains("compile_error"), "{longest}");
    let too_long = super::expand(quote! {
        /// First.
        First = 0x10,
        /// Last.
        Last = 0x50,
    });
    assert!(too_long.to_string().contains("compile_error"), "{too_long}");
}
