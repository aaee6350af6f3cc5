//! Taking an input apart, random or a fuzzer's. Behind its end everything is zero, so that every input means something.

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything has been taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// The next number below 2^16.
    pub fn short(&mut self) -> u64 {
        self.word_of(2)
    }

    /// The next 64-bit number.
    pub fn word(&mut self) -> u64 {
        self.word_of(8)
    }

    fn word_of(&mut self, len: usize) -> u64 {
        self.bytes(len).iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// The next number below `bound`, from one byte.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.byte()) % bound
    }
}
