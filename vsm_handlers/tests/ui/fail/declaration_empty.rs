//! No call is declared.

vsm_macros::vsm_functions! {
    // None yet.
}

fn main() {}
