//! Reading DER (X.690 §10) element by element, without copying: what certificates and messages are parsed with.
//!
//! Trusts nothing: a length that is not definite and in its shortest form, or that reaches beyond the enclosing
//! element, is an error with its offset. Nothing is allocated, and nothing recurses: each level is opened by the
//! caller that expects one.

use der::asn1::{AnyRef, BitStringRef, IntRef, UintRef};
use der::{Decode, Reader as _, SliceReader};

use crate::error::ParseError;

/// The tags that certificates and messages are made of (X.690 §8.1.2).
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// A constructed element with a context-specific tag.
    pub(crate) const fn context(number: u8) -> u8 {
        0xa0 | number
    }

    /// A primitive element with a context-specific tag.
    pub(crate) const fn context_primitive(number: u8) -> u8 {
        0x80 | number
    }
}

/// One element: tag, length and content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// Tag, length and content.
    pub(crate) raw: &'a [u8],
    /// Where `raw` starts in what is parsed.
    pub(crate) offset: usize,
}

impl<'a> Element<'a> {
    /// Where the content starts in what is parsed.
    pub(crate) fn content_offset(&self) -> usize {
        self.offset.saturating_add(self.raw.len().saturating_sub(self.content.len()))
    }

    /// Reads the content, as further elements.
    pub(crate) fn reader(&self) -> Result<Reader<'a>, ParseError> {
        Reader::new_at(self.content, self.content_offset())
    }

    /// An error about this element.
    pub(crate) fn refuse(&self, rule: &'static str) -> ParseError {
        ParseError::new(self.offset, rule)
    }

    /// The content, which is the shortest form of a whole number (X.690 §8.3).
    pub(crate) fn integer(&self) -> Result<&'a [u8], ParseError> {
        IntRef::from_der(self.raw).map_err(|_| self.refuse("an INTEGER is not in its shortest form"))?;
        Ok(self.content)
    }

    /// The big-endian bytes of a number that is not negative, without leading zeros (zero itself is one byte).
    pub(crate) fn unsigned(&self) -> Result<&'a [u8], ParseError> {
        let number = UintRef::from_der(self.raw)
            .map_err(|_| self.refuse("a number is negative, or not in its shortest form"))?;
        Ok(number.as_bytes())
    }

    /// A number of at most one byte.
    pub(crate) fn small(&self) -> Result<u8, ParseError> {
        match self.unsigned()? {
            [number] => Ok(*number),
            _ => Err(self.refuse("a number is greater than 255")),
        }
    }

    /// The truth value (X.690 §11.1).
    pub(crate) fn boolean(&self) -> Result<bool, ParseError> {
        bool::from_der(self.raw).map_err(|_| self.refuse("a BOOLEAN is neither 00 nor FF"))
    }

    /// The bits, of which the last byte has some unused.
    pub(crate) fn bits(&self) -> Result<BitStringRef<'a>, ParseError> {
        let bits = BitStringRef::from_der(self.raw).map_err(|_| self.refuse("a BIT STRING is malformed"))?;
        let unused = (1u8 << bits.unused_bits()) - 1;
        // X.690 §11.2.1.
        if bits.raw_bytes().last().is_some_and(|last| last & unused != 0) {
            return Err(self.refuse("a BIT STRING has unused bits that are set"));
        }
        Ok(bits)
    }

    /// The bytes of a BIT STRING without unused bits.
    pub(crate) fn whole_bits(&self) -> Result<&'a [u8], ParseError> {
        self.bits()?.as_bytes().ok_or_else(|| self.refuse("a BIT STRING is not made of whole bytes"))
    }
}

/// Reads the elements of one level, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    inner: SliceReader<'a>,
    /// Where this level starts in what is parsed.
    base: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which are all of what is parsed.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::new_at(bytes, 0)
    }

    /// Reads `bytes`, which start at `base` of what is parsed.
    pub(crate) fn new_at(bytes: &'a [u8], base: usize) -> Result<Self, ParseError> {
        let inner = SliceReader::new(bytes).map_err(|_| ParseError::new(base, "too many bytes"))?;
        Ok(Self { inner, base })
    }

    /// Where the next element starts in what is parsed.
    pub(crate) fn offset(&self) -> usize {
        let position = usize::try_from(self.inner.position()).unwrap_or(usize::MAX);
        self.base.saturating_add(position)
    }

    /// Whether there is no element left.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.is_finished()
    }

    /// The next element, which there must be.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, ParseError> {
        let offset = self.offset();
        let raw = self
            .inner
            .tlv_bytes()
            .map_err(|_| ParseError::new(offset, "not an element in DER, or longer than what it is in"))?;
        let content = AnyRef::from_der(raw).map_err(|_| ParseError::new(offset, "not an element in DER"))?.value();
        let tag = raw.first().copied().unwrap_or_default();
        Ok(Element { tag, content, raw, offset })
    }

    /// The next element, which must have this tag; otherwise `rule` is what was broken.
    pub(crate) fn require(&mut self, tag: u8, rule: &'static str) -> Result<Element<'a>, ParseError> {
        match self.optional(tag)? {
            Some(element) => Ok(element),
            None => Err(ParseError::new(self.offset(), rule)),
        }
    }

    /// The next element if it has this tag; otherwise it stays the next one.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, ParseError> {
        if self.inner.peek_byte() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// There must be no element left; otherwise `rule` is what was broken.
    pub(crate) fn finish(&self, rule: &'static str) -> Result<(), ParseError> {
        if self.is_empty() { Ok(()) } else { Err(ParseError::new(self.offset(), rule)) }
    }
}

/// The one element that `bytes` are, which must have this tag.
pub(crate) fn only<'a>(bytes: &'a [u8], tag: u8, rule: &'static str) -> Result<Element<'a>, ParseError> {
    only_at(bytes, 0, tag, rule)
}

/// As [`only`], for `bytes` that start at `base` of what is parsed.
pub(crate) fn only_at<'a>(
    bytes: &'a [u8],
    base: usize,
    tag: u8,
    rule: &'static str,
) -> Result<Element<'a>, ParseError> {
    let mut reader = Reader::new_at(bytes, base)?;
    let element = reader.require(tag, rule)?;
    reader.finish("bytes follow the last element")?;
    Ok(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<Element<'_>, ParseError> {
        Reader::new(bytes).unwrap().any()
    }

    #[test]
    fn lengths_are_definite_shortest_and_inside() {
        for (bytes, ok) in [
            (&[0x04, 0x00][..], true),
            (&[0x04, 0x01, 0xff], true),
            (&[0x04, 0x81, 0x01, 0xff], false),
            (&[0x30, 0x80, 0x00, 0x00], false),
            (&[0x04, 0x02, 0xff], false),
            (&[0x04], false),
            (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], false),
            (&[0x1f, 0x20, 0x00], false),
            (&[], false),
        ] {
            assert_eq!(first(bytes).is_ok(), ok, "{bytes:x?}");
        }
        let long = [vec![0x04, 0x82, 0x01, 0x00], vec![7; 256]].concat();
        let element = first(&long).unwrap();
        assert_eq!((element.content.len(), element.content_offset(), element.raw.len()), (256, 4, 260));
        // The same content with a length of one byte more than needed.
        let longer = [vec![0x04, 0x83, 0x00, 0x01, 0x00], vec![7; 256]].concat();
        assert!(first(&longer).is_err());
    }

    #[test]
    fn values_have_one_form() {
        assert_eq!(first(&[2, 1, 5]).unwrap().small(), Ok(5));
        assert_eq!(first(&[2, 2, 0, 0x80]).unwrap().small(), Ok(0x80));
        assert!(first(&[2, 2, 0, 5]).unwrap().integer().is_err());
        assert!(first(&[2, 0]).unwrap().integer().is_err());
        assert!(first(&[2, 1, 0x80]).unwrap().unsigned().is_err());
        assert!(first(&[2, 1, 0x80]).unwrap().integer().is_ok());
        assert!(first(&[2, 2, 1, 0]).unwrap().small().is_err());
        assert_eq!(first(&[1, 1, 0xff]).unwrap().boolean(), Ok(true));
        assert!(first(&[1, 1, 1]).unwrap().boolean().is_err());
        assert!(first(&[3, 2, 4, 0x10]).unwrap().bits().is_ok());
        assert!(first(&[3, 2, 4, 0x18]).unwrap().bits().is_err());
        assert!(first(&[3, 2, 8, 0]).unwrap().bits().is_err());
        assert!(first(&[3, 2, 4, 0x10]).unwrap().whole_bits().is_err());
    }

    #[test]
    fn offsets_are_those_of_the_whole() {
        let nested = [0x30, 0x07, 0x02, 0x01, 0x07, 0x04, 0x02, 0xff];
        let outer = only(&nested, tag::SEQUENCE, "a SEQUENCE");
        assert_eq!(outer.unwrap_err(), ParseError::new(0, "not an element in DER, or longer than what it is in"));
        let nested = [0x30, 0x05, 0x02, 0x01, 0x07, 0x04, 0x00];
        let mut reader = only(&nested, tag::SEQUENCE, "a SEQUENCE").unwrap().reader().unwrap();
        assert_eq!(reader.any().unwrap().offset, 2);
        assert_eq!(reader.require(tag::OID, "an OID").unwrap_err(), ParseError::new(5, "an OID"));
        assert_eq!(reader.finish("nothing follows").unwrap_err().offset, 5);
        assert!(only(&[5, 0, 0], tag::NULL, "NULL").is_err());
    }
}
