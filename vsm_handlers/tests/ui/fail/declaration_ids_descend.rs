//! The ids do not ascend.

vsm_macros::vsm_functions! {
    /// One.
    One = 0x11,
    /// Two.
    Two = 0x10,
}

fn main() {}
