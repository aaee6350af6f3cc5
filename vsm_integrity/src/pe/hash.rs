//! Hashing a PE file as it is read, once, from start to end, and its checksum with it.

use core::ops::Range;

use crate::error::ParseError;
use crate::signature::SignatureError;
use crate::signature::digest::{CompressSha256, ContentDigests, ContentHasher, DigestSet};

use super::layout::ImageLayout;

/// The running hashes of a PE file.
#[derive(Clone)]
pub struct ImageHasher {
    layout: ImageLayout,
    content: ContentHasher,
    /// How much of the file has been seen.
    at: usize,
    /// The sum of the file's little-endian 16-bit words, without the checksum.
    sum: u64,
}

/// The digests of a PE file, of which the checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct ImageDigests(pub(crate) ContentDigests);

impl ImageHasher {
    pub(crate) fn new(layout: &ImageLayout, set: DigestSet, sha256: Option<CompressSha256>) -> Self {
        Self { layout: layout.clone(), content: ContentHasher::new(set, sha256), at: 0, sum: 0 }
    }

    /// Appends the file's next bytes, excluded parts and all: the hasher knows what to leave out.
    pub fn update(&mut self, bytes: &[u8]) {
        let start = self.at;
        self.at = start.saturating_add(bytes.len());
        let part = |range: Range<usize>| {
            let first = range.start.saturating_sub(start).min(bytes.len());
            let last = range.end.saturating_sub(start).min(bytes.len());
            bytes.get(first..last).unwrap_or_default()
        };
        let (checksum, directory) = (self.layout.checksum.clone(), self.layout.directory.clone());
        for range in [0..checksum.start, checksum.end..directory.start, directory.end..self.layout.certificates.start] {
            self.content.update(part(range));
        }
        for range in [0..checksum.start, checksum.end..usize::MAX] {
            let from = range.start.max(start);
            self.sum = self.sum.wrapping_add(sum(part(range), from));
        }
    }

    /// The digests, once the whole file has been appended.
    ///
    /// # Errors
    /// [`SignatureError::Image`] when it was not the whole file, or when the checksum is neither 0 nor right.
    pub fn finish(self) -> Result<ImageDigests, SignatureError> {
        let refuse = |offset, rule| Err(SignatureError::Image(ParseError::new(offset, rule)));
        if self.at != self.layout.file_len {
            return refuse(self.at, "not as many bytes as the file has");
        }
        // "PE Format", `ImageHlp`: carries are added again, then the length.
        let mut folded = self.sum;
        while folded > 0xffff {
            folded = (folded & 0xffff) + (folded >> 16);
        }
        let right = folded.wrapping_add(self.at as u64);
        let expected = self.layout.expected_checksum;
        if expected != 0 && u64::from(expected) != right {
            return refuse(self.layout.checksum.start, "the checksum is wrong");
        }
        Ok(ImageDigests(self.content.finish()))
    }
}

/// The sum of the 16-bit words that `bytes`, which start at `offset`, are parts of.
fn sum(bytes: &[u8], offset: usize) -> u64 {
    let (first, rest) = match bytes.split_first() {
        Some((first, rest)) if offset % 2 == 1 => (u64::from(*first) << 8, rest),
        _ => (0, bytes),
    };
    let (words, last) = rest.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_le_bytes(*word))).sum();
    // Bytes of a file are fewer than 2³², so that nothing overflows.
    first.wrapping_add(words).wrapping_add(last.first().copied().map_or(0, u64::from))
}
