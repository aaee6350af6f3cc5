//! The halves of the virtual address space, with 48-bit addresses (Intel SDM vol. 1 §3.3.7.1).

/// Whether the address is canonical: its upper 17 bits are the same.
#[must_use]
pub const fn is_canonical(va: u64) -> bool {
    va >> 47 == 0 || is_in_kernel_half(va)
}

/// Whether the address is in the upper half, which is the kernel's in Linux.
#[must_use]
pub const fn is_in_kernel_half(va: u64) -> bool {
    va >> 47 == 0x1_ffff
}
