//! Hashing a PE file as it is read, once, from start to end.

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
}

/// The digests of a PE file.
#[derive(Clone, Copy, Debug)]
pub struct ImageDigests(pub(crate) ContentDigests);

impl ImageHasher {
    pub(crate) fn new(layout: &ImageLayout, set: DigestSet, sha256: Option<CompressSha256>) -> Self {
        Self { layout: layout.clone(), content: ContentHasher::new(set, sha256), at: 0 }
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
    }

    /// The digests, once the whole file has been appended.
    ///
    /// # Errors
    /// [`SignatureError::Image`] when it was not the whole file.
    pub fn finish(self) -> Result<ImageDigests, SignatureError> {
        if self.at != self.layout.file_len {
            return Err(SignatureError::Image(ParseError::new(self.at, "not as many bytes as the file has")));
        }
        Ok(ImageDigests(self.content.finish()))
    }
}
