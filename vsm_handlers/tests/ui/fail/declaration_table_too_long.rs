//! An id with a digit too many would make a table of megabytes.

vsm_macros::vsm_functions! {
    /// One.
    One = 0x1_ffe0,
    /// Two.
    Two = 0x10_ffe0,
}

fn main() {}
