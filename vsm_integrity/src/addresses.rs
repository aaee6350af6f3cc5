//! The halves of the virtual address space, with 48-bit addresses (Intel SDM vol. 1 §3.3.7.1).

/// Whether the address is canonical: its upper 17 bits are the same. With 57-bit addresses Linux still keeps its kernel within
/// these halves.
#[must_use]
pub const fn is_canonical(va: u64) -> bool {
    va >> 47 == 0 || is_in_kernel_half(va)
}

/// Whether the address is in the upper half, which is the kernel's in Linux.
#[must_use]
pub const fn is_in_kernel_half(va: u64) -> bool {
    va >> 47 == 0x1_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_is_48_bits() {
        assert!(is_canonical(0x7fff_ffff_ffff));
        assert!(!is_canonical(0x8000_0000_0000));
        assert!(is_canonical(0xffff_8000_0000_0000));
        assert!(!is_canonical(0xffff_7fff_ffff_ffff));
    }
}
