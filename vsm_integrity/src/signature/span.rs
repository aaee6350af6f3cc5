//! Where a part of a certificate is, in two bytes for each end. Trusts nothing: what does not fit is an error.

use super::reader::Element;
use crate::error::ParseError;

/// Part of a certificate's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// `length` bytes from `start` on.
    pub(crate) fn new(start: usize, length: usize) -> Result<Self, ParseError> {
        let end = start.checked_add(length).and_then(|end| u16::try_from(end).ok());
        let ends = u16::try_from(start).ok().zip(end);
        let (start, end) = ends.ok_or(ParseError::new(start, "a part of a certificate must end within 64 KiB"))?;
        Ok(Self { start, end })
    }

    /// Tag, length and content of an element.
    pub(crate) fn whole(element: &Element<'_>) -> Result<Self, ParseError> {
        Self::new(element.offset, element.raw.len())
    }

    /// The content of an element.
    pub(crate) fn content(element: &Element<'_>) -> Result<Self, ParseError> {
        Self::new(element.content_offset(), element.content.len())
    }

    /// Offset of the first byte.
    pub(crate) fn start(self) -> usize {
        usize::from(self.start)
    }

    /// The part's bytes, of those of the whole certificate.
    pub(crate) fn bytes(self, whole: &[u8]) -> &[u8] {
        whole.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_fit_is_an_error() {
        let bytes = vec![7; 0xffff];
        assert_eq!(Span::new(0xfff0, 0xf).unwrap().bytes(&bytes).len(), 0xf);
        for (start, length) in [(0xfff0, 0x10), (0x1_0000, 0), (1, usize::MAX)] {
            assert_eq!(Span::new(start, length).unwrap_err().offset, start);
        }
    }
}
