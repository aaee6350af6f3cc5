//! A call has an attribute that is no doc comment.

vsm_macros::vsm_functions! {
    /// One.
    #[cfg(any())]
    One = 0x10,
}

fn main() {}
