//! SHA-256 with the processor's SHA extensions.
//!
//! The `sha2` crate looks for them only where there is an operating system. The registers that the instructions use are
//! VTL0's as well; they are preserved across the VTL switch like all vector state. Trusts CPUID, and nothing else.

use core::arch::x86_64::{
    __cpuid, __cpuid_count, __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use vsm_integrity::signature::CompressSha256;

/// SHA-256's compression function by the SHA extensions; `None` on a processor without them (Intel SDM vol. 2, CPUID:
/// SHA, SSSE3 and SSE4.1).
#[must_use]
pub fn sha256() -> Option<CompressSha256> {
    let basic = __cpuid(1).ecx;
    let extended = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    let present = extended & (1 << 29) != 0 && basic & (1 << 9) != 0 && basic & (1 << 19) != 0;
    present.then_some(compress as CompressSha256)
}

/// Handed out by [`sha256`] only.
fn compress(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    // SAFETY: `sha256` is the only one who names this function, and does so only where CPUID has the features; neither
    // the image nor a host disables them later.
    unsafe { compress_extended(state, blocks) }
}

/// FIPS 180-4 §4.2.2, four to a register.
const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn register(words: [u32; 4]) -> __m128i {
    let [w0, w1, w2, w3] = words.map(u32::cast_signed);
    _mm_set_epi32(w3, w2, w1, w0)
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn words(register: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32::<0>(register),
        _mm_extract_epi32::<1>(register),
        _mm_extract_epi32::<2>(register),
        _mm_extract_epi32::<3>(register),
    ]
    .map(i32::cast_unsigned)
}

/// Sixteen bytes, as four big-endian words.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn load(bytes: &[u8; 16]) -> __m128i {
    let [low, high] = [0, 8].map(|at| bytes[at..].first_chunk().map_or(0, |half| i64::from_le_bytes(*half)));
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap)
}

/// FIPS 180-4 §6.2.2, two rounds to an instruction, which wants the eight words as (f, e, b, a) and (h, g, d, c).
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
#[expect(clippy::many_single_char_names, reason = "the standard's names")]
fn compress_extended(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    let [a, b, c, d, e, f, g, h] = *state;
    let mut abef = register([f, e, b, a]);
    let mut cdgh = register([h, g, d, c]);
    for block in blocks {
        let before = (abef, cdgh);
        let (quarters, _) = block.as_chunks::<16>();
        let [mut w0, mut w1, mut w2, mut w3] = [0, 1, 2, 3].map(|quarter: usize| load(&quarters[quarter]));
        for k in &K {
            let now = _mm_add_epi32(w0, register(*k));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, now);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0x0e>(now));
            // The last four are computed but never used.
            let next = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
            (w0, w1, w2, w3) = (w1, w2, w3, _mm_sha256msg2_epu32(next, w3));
        }
        abef = _mm_add_epi32(abef, before.0);
        cdgh = _mm_add_epi32(cdgh, before.1);
    }
    let ([f, e, b, a], [h, g, d, c]) = (words(abef), words(cdgh));
    *state = [a, b, c, d, e, f, g, h];
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsm_integrity::signature::DigestAlgorithm;
    use vsm_integrity::signature::digest::Hasher;

    #[test]
    fn the_digests_are_those_of_the_portable_code() {
        let Some(compress) = sha256() else {
            eprintln!("skipped: this processor has no SHA extensions");
            return;
        };
        let bytes: Vec<u8> = (0..5000u32).map(|index| index.wrapping_mul(0x9e37_79b9).to_be_bytes()[0]).collect();
        for length in (0..300).chain([1000, 4095, 4096, 4097, 5000]) {
            let mut hasher = Hasher::new(DigestAlgorithm::Sha256, Some(compress));
            // In two pieces, so that blocks come alone and in runs.
            let (first, second) = bytes[..length].split_at(length / 3);
            hasher.update(first);
            hasher.update(second);
            assert_eq!(hasher.finish(), DigestAlgorithm::Sha256.digest(&bytes[..length]), "{length} bytes");
        }
    }

    #[test]
    fn the_standard_s_example() {
        let Some(compress) = sha256() else { return };
        let mut hasher = Hasher::new(DigestAlgorithm::Sha256, Some(compress));
        hasher.update(b"abc");
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.finish().to_string(), expected);
    }
}
