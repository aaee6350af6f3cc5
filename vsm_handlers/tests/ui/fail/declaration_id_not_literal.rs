//! An id is computed.

vsm_macros::vsm_functions! {
    /// One.
    One = BASE + 1,
}

fn main() {}
