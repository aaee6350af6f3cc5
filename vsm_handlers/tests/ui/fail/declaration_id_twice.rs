//! Two calls have one id.

vsm_macros::vsm_functions! {
    /// One.
    One = 0x10,
    /// Two.
    Two = 0x10,
}

fn main() {}
