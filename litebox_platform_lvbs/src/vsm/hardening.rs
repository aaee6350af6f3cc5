//! The clamp on a table index that VTL0 chose.
//!
//! A range check alone is a branch, and a processor that predicts it wrongly would load a code pointer from beyond
//! the table (bounds-check bypass, CVE-2017-5753). The clamp computes with the flags what the branch only predicts.
//! This is the one file of `vsm` with `unsafe`.

/// `index` if it is below `LEN`, else 0, with no branch to predict. `LEN` must be in `1..=0x7fff_ffff`.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "the clamp must stand beside the load it guards, in the caller")]
pub fn clamp_index<const LEN: usize>(index: usize) -> usize {
    const { assert!(LEN > 0 && LEN <= 0x7fff_ffff, "the length is an immediate operand") };
    let clamped = mask::<LEN>(index);
    // SAFETY: `mask` returns either 0 or an index below `LEN`, and `LEN` is positive.
    unsafe { core::hint::assert_unchecked(clamped < LEN) };
    clamped
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "the clamp must stand beside the load it guards, in the caller")]
fn mask<const LEN: usize>(index: usize) -> usize {
    let mut clamped = index;
    // SAFETY: the three instructions read and write only the two operands and the flags.
    unsafe {
        core::arch::asm!(
            // Borrow exactly if index < LEN; then all ones, else zero.
            "cmp {index}, {len}",
            "sbb {mask}, {mask}",
            "and {index}, {mask}",
            index = inout(reg) clamped,
            mask = out(reg) _,
            len = const LEN,
            options(pure, nomem, nostack),
        );
    }
    clamped
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn mask<const LEN: usize>(index: usize) -> usize {
    index & usize::from(index < LEN).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_to_zero_from_the_length_on() {
        for index in 0..17 {
            assert_eq!(clamp_index::<17>(index), index);
        }
        for index in [17, 18, 64, 1 << 31, 1 << 32, (1 << 32) + 3, 1 << 63, usize::MAX - 1, usize::MAX] {
            assert_eq!(clamp_index::<17>(index), 0, "{index:#x}");
        }
        assert_eq!(clamp_index::<1>(usize::MAX), 0);
    }
}
