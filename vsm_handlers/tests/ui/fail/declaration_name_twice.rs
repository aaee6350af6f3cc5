//! Two calls have one name.

vsm_macros::vsm_functions! {
    /// One.
    One = 0x10,
    /// One.
    One = 0x11,
}

fn main() {}
