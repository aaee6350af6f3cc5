//! Hashing: SHA-256, SHA-384 and SHA-512 over content that comes in pieces.
//!
//! A module may have 64 MiB and is read where it lies, a page at a time, so every hasher is fed. All algorithms that a
//! message needs run in one pass. SHA-256, which is what Linux signs with by default, can be given a function that
//! uses the CPU's SHA extensions: on a target without an operating system the `sha2` crate does not look for them.

use core::fmt;

use sha2::Digest as _;

/// Processes 64-byte blocks with SHA-256's compression function (FIPS 180-4 §6.2.2): state in, state out.
pub type CompressSha256 = fn(&mut [u32; 8], &[[u8; 64]]);

/// The hash algorithms that are accepted (Linux `enum hash_algo` has more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DigestAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Bytes of a digest.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self, None);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// As in `sha256`.
impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        })
    }
}

/// A digest: 32, 48 or 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    /// Zero after the digest's own bytes.
    bytes: [u8; 64],
}

impl Digest {
    fn new(algorithm: DigestAlgorithm, digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(digest) {
            *to = *from;
        }
        Self { algorithm, bytes }
    }

    /// What it was made with.
    #[must_use]
    pub const fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.bytes()).unwrap_or_default()
    }
}

/// Algorithm and hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One running hash.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Given(Blocks),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hash of nothing so far. SHA-256's blocks are processed by `sha256` where that is given.
    #[must_use]
    pub fn new(algorithm: DigestAlgorithm, sha256: Option<CompressSha256>) -> Self {
        Self(match (algorithm, sha256) {
            (DigestAlgorithm::Sha256, None) => State::Sha256(sha2::Sha256::new()),
            (DigestAlgorithm::Sha256, Some(compress)) => State::Given(Blocks::new(compress)),
            (DigestAlgorithm::Sha384, _) => State::Sha384(sha2::Sha384::new()),
            (DigestAlgorithm::Sha512, _) => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Appends `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Given(blocks) => blocks.update(bytes),
            State::Sha384(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything that was appended.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::new(DigestAlgorithm::Sha256, &hash.finalize()),
            State::Given(blocks) => blocks.finish(),
            State::Sha384(hash) => Digest::new(DigestAlgorithm::Sha384, &hash.finalize()),
            State::Sha512(hash) => Digest::new(DigestAlgorithm::Sha512, &hash.finalize()),
        }
    }
}

/// SHA-256 around a compression function that was given: initial value, blocks and padding (FIPS 180-4 §5.1.1, §5.3.3).
#[derive(Clone)]
struct Blocks {
    compress: CompressSha256,
    state: [u32; 8],
    /// Bytes that are no whole block yet: the first `pending` of it.
    block: [u8; 64],
    pending: usize,
    /// Bytes so far.
    total: u64,
}

impl Blocks {
    fn new(compress: CompressSha256) -> Self {
        Self {
            compress,
            state: [
                0x6a09_e667,
                0xbb67_ae85,
                0x3c6e_f372,
                0xa54f_f53a,
                0x510e_527f,
                0x9b05_688c,
                0x1f83_d9ab,
                0x5be0_cd19,
            ],
            block: [0; 64],
            pending: 0,
            total: 0,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.total = self.total.wrapping_add(bytes.len() as u64);
        let rest = self.fill(bytes);
        let (blocks, tail) = rest.as_chunks::<64>();
        if !blocks.is_empty() {
            (self.compress)(&mut self.state, blocks);
        }
        self.fill(tail);
    }

    /// Completes the pending block with the first of `bytes`, and processes it when it is whole. A new block is only
    /// begun with less than a whole one. Returns what is left of `bytes`.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.pending == 0 && bytes.len() >= self.block.len() {
            return bytes;
        }
        let room = self.block.get_mut(self.pending..).unwrap_or_default();
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        for (to, from) in room.iter_mut().zip(now) {
            *to = *from;
        }
        self.pending = self.pending.saturating_add(now.len());
        if self.pending == self.block.len() {
            (self.compress)(&mut self.state, core::slice::from_ref(&self.block));
            self.pending = 0;
        }
        later
    }

    fn finish(mut self) -> Digest {
        let bits = self.total.wrapping_mul(8).to_be_bytes();
        // One set bit, then zeros up to eight bytes before the end of a block: 1 to 64 bytes.
        let mut padding = [0; 64];
        padding[0] = 0x80;
        let length = if self.pending < 56 { 56 - self.pending } else { 120 - self.pending };
        self.update(padding.get(..length).unwrap_or_default());
        self.update(&bits);
        let mut digest = [0; 32];
        for (to, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *to = word.to_be_bytes();
        }
        Digest::new(DigestAlgorithm::Sha256, &digest)
    }
}

/// A choice of algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestSet([bool; 3]);

impl DigestSet {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether `algorithm` is among them.
    #[must_use]
    pub fn contains(self, algorithm: DigestAlgorithm) -> bool {
        self.iter().any(|one| one == algorithm)
    }

    /// With `algorithm` as well.
    #[must_use]
    pub fn with(self, algorithm: DigestAlgorithm) -> Self {
        let mut set = self;
        for (chosen, one) in set.0.iter_mut().zip(DigestAlgorithm::ALL) {
            *chosen |= one == algorithm;
        }
        set
    }

    /// The algorithms.
    pub fn iter(self) -> impl Iterator<Item = DigestAlgorithm> {
        DigestAlgorithm::ALL.into_iter().zip(self.0).filter_map(|(one, chosen)| chosen.then_some(one))
    }
}

/// The running hashes of one content, one for each algorithm chosen.
#[derive(Clone)]
pub struct ContentHasher([Option<Hasher>; 3]);

impl ContentHasher {
    /// Hashes with each algorithm of `set`; see [`Hasher::new`] for `sha256`.
    #[must_use]
    pub fn new(set: DigestSet, sha256: Option<CompressSha256>) -> Self {
        Self(DigestAlgorithm::ALL.map(|one| set.contains(one).then(|| Hasher::new(one, sha256))))
    }

    /// Appends `bytes` to the content.
    pub fn update(&mut self, bytes: &[u8]) {
        for hasher in self.0.iter_mut().flatten() {
            hasher.update(bytes);
        }
    }

    /// The digests of the content.
    #[must_use]
    pub fn finish(self) -> ContentDigests {
        ContentDigests(self.0.map(|hasher| hasher.map(Hasher::finish)))
    }
}

/// The digests of one content.
#[derive(Clone, Copy, Debug)]
pub struct ContentDigests([Option<Digest>; 3]);

impl ContentDigests {
    /// The digest made with `algorithm`, if there is one.
    #[must_use]
    pub fn get(&self, algorithm: DigestAlgorithm) -> Option<&Digest> {
        self.iter().find(|digest| digest.algorithm() == algorithm)
    }

    /// All digests that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256's compression function as FIPS 180-4 §6.2.2 writes it.
    #[expect(clippy::many_single_char_names, reason = "the standard's names")]
    fn plain(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
        // The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
        let primes = (2u32..).filter(|n| (2..*n).all(|d| n % d != 0)).take(64);
        let constants: Vec<u32> = primes.map(|prime| cube_root_fraction(u128::from(prime))).collect();
        for block in blocks {
            let mut w: Vec<u32> = block.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
            for t in 16..64 {
                let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
                let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
                w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
            }
            let mut v = *state;
            for t in 0..64 {
                let [a, b, c, _, e, f, g, h] = v;
                let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
                let t1 = h.wrapping_add(s1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(constants[t]);
                let t1 = t1.wrapping_add(w[t]);
                let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
                let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
                v.rotate_right(1);
                v[4] = v[4].wrapping_add(t1);
                v[0] = t1.wrapping_add(t2);
            }
            for (word, add) in state.iter_mut().zip(v) {
                *word = word.wrapping_add(add);
            }
        }
    }

    fn cube_root_fraction(prime: u128) -> u32 {
        // The largest r with r³ ≤ prime · 2⁹⁶: the cube root, 32 binary places after the point.
        let target = prime << 96;
        let mut root = 0u128;
        for bit in (0..36).rev() {
            let candidate = root | 1 << bit;
            if candidate.checked_pow(3).is_some_and(|cube| cube <= target) {
                root = candidate;
            }
        }
        u32::try_from(root & 0xffff_ffff).unwrap()
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn known_answers() {
        // FIPS 180-4's examples, for "abc".
        for (algorithm, start) in [
            (DigestAlgorithm::Sha256, "sha256:ba7816bf8f01cfea"),
            (DigestAlgorithm::Sha384, "sha384:cb00753f45a35e8b"),
            (DigestAlgorithm::Sha512, "sha512:ddaf35a193617aba"),
        ] {
            let digest = algorithm.digest(b"abc");
            assert!(digest.to_string().starts_with(start), "{digest}");
            assert_eq!(digest.as_bytes().len(), algorithm.bytes());
            assert_eq!(digest.to_string().len(), 7 + 2 * algorithm.bytes());
        }
    }

    #[test]
    fn a_given_compression_function_gives_the_same_digests() {
        for length in (0..200).chain([1000, 4096, 5000]) {
            let bytes = content(length);
            let mut hasher = Hasher::new(DigestAlgorithm::Sha256, Some(plain));
            hasher.update(&bytes);
            assert_eq!(hasher.finish(), DigestAlgorithm::Sha256.digest(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn pieces_make_no_difference() {
        let bytes = content(1000);
        let set = DigestAlgorithm::ALL.into_iter().fold(DigestSet::default(), DigestSet::with);
        for piece in [1, 3, 63, 64, 65, 127, 128, 129, 500, 1000] {
            for compress in [None, Some(plain as CompressSha256)] {
                let mut hasher = ContentHasher::new(set, compress);
                bytes.chunks(piece).for_each(|piece| hasher.update(piece));
                hasher.update(&[]);
                let digests = hasher.finish();
                for algorithm in DigestAlgorithm::ALL {
                    assert_eq!(digests.get(algorithm), Some(&algorithm.digest(&bytes)), "pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn only_what_was_chosen_is_computed() {
        let set = DigestSet::default().with(DigestAlgorithm::Sha384);
        assert!(!set.is_empty() && set.contains(DigestAlgorithm::Sha384) && !set.contains(DigestAlgorithm::Sha256));
        let digests = ContentHasher::new(set, None).finish();
        assert!(digests.get(DigestAlgorithm::Sha512).is_none() && digests.iter().count() == 1);
    }
}
