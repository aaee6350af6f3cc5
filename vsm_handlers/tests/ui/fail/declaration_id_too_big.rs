//! An id does not fit the register.

vsm_macros::vsm_functions! {
    /// One.
    One = 0x1_0000_0000_0000_0000,
}

fn main() {}
