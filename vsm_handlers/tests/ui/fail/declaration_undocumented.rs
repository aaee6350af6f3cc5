//! A call has no doc comment.

vsm_macros::vsm_functions! {
    /// One.
    One = 0x10,
    Two = 0x11,
}

fn main() {}
