//! Splitting concatenated certificates, as Linux's `system_certificate_list` holds them.
//!
//! Only the outermost tag and length of each certificate are looked at; what is inside is for the user of the
//! certificate, and so is whether the length is in DER's shortest form: here an odd one takes the others nothing away. The
//! split is exact: no byte lies outside of a certificate.

use crate::error::ParseError;

/// DER's SEQUENCE, constructed (X.690 §8.9.1).
const SEQUENCE: u8 = 0x30;
/// Set in the first length byte when it counts the bytes of the length (X.690 §8.1.3.5).
const LONG_FORM: u8 = 0x80;

/// The SEQUENCEs in `bytes`, one after the other. After an error the iterator ends.
#[derive(Clone, Debug)]
pub struct Sequences<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Splits `bytes` into the DER SEQUENCEs they are a concatenation of.
///
/// Each item is a whole element, tag and length included. An error names the offset of the element that is not a
/// SEQUENCE, has no definite length of four bytes at most, or ends after `bytes` do.
#[must_use]
pub fn sequences(bytes: &[u8]) -> Sequences<'_> {
    Sequences { bytes, at: 0 }
}

impl<'a> Iterator for Sequences<'a> {
    type Item = Result<&'a [u8], ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let start = self.at;
        match split_first(rest) {
            Ok(element) => {
                self.at = start.saturating_add(element.len());
                Some(Ok(element))
            }
            Err(rule) => {
                self.at = self.bytes.len();
                Some(Err(ParseError::new(start, rule)))
            }
        }
    }
}

/// The first element of `bytes`, which are not empty.
fn split_first(bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.first() != Some(&SEQUENCE) {
        return Err("a certificate starts with the tag of a SEQUENCE");
    }
    let (header, content) = match *bytes.get(1).ok_or("a certificate ends before its length")? {
        short if short & LONG_FORM == 0 => (2, usize::from(short)),
        LONG_FORM => return Err("a certificate has an indefinite length"),
        long => {
            let count = usize::from(long & !LONG_FORM);
            (2 + count, long_length(bytes, count)?)
        }
    };
    let end = content.checked_add(header).ok_or("a certificate is longer than memory")?;
    bytes.get(..end).ok_or("a certificate ends after the last byte")
}

/// The length given in the `count` bytes after the first length byte.
fn long_length(bytes: &[u8], count: usize) -> Result<usize, &'static str> {
    // Four bytes count further than any buffer of ours.
    if count > 4 {
        return Err("a certificate's length has more than four bytes");
    }
    let digits = bytes.get(2..2 + count).ok_or("a certificate ends before its length")?;
    let length = digits.iter().fold(0u64, |length, digit| length << 8 | u64::from(*digit));
    usize::try_from(length).map_err(|_| "a certificate is longer than memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(content: usize) -> Vec<u8> {
        let mut bytes = vec![SEQUENCE];
        let length = content.to_be_bytes();
        let significant: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
        if content < 0x80 {
            bytes.push(u8::try_from(content).unwrap());
        } else {
            bytes.push(0x80 | u8::try_from(significant.len()).unwrap());
            bytes.extend(significant);
        }
        bytes.extend((0..content).map(|index| u8::try_from(index % 251).unwrap()));
        bytes
    }

    fn refused(bytes: &[u8]) -> ParseError {
        let items: Vec<_> = sequences(bytes).collect();
        assert!(items[..items.len() - 1].iter().all(Result::is_ok), "something follows an error");
        items.last().unwrap().unwrap_err()
    }

    #[test]
    fn every_form_of_a_definite_length_is_split() {
        let lengths = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000];
        let all: Vec<u8> = lengths.iter().flat_map(|length| element(*length)).collect();
        let split: Vec<&[u8]> = sequences(&all).collect::<Result<_, _>>().unwrap();
        assert_eq!(split.len(), lengths.len());
        for (got, length) in split.iter().zip(lengths) {
            assert!(*got == element(length), "length {length:#x}");
        }
        assert_eq!(sequences(&[]).count(), 0);
    }

    #[test]
    fn the_offset_of_the_offending_element_is_named() {
        let mut two = [element(5), element(300)].concat();
        let end = two.len();
        for garbage in [&[0][..], &[0, 0, 0, 0], &[0x31, 0], &[0xff]] {
            two.truncate(end);
            two.extend(garbage);
            assert_eq!(refused(&two).offset, end, "{garbage:x?}");
        }
        two.truncate(end);
        two.extend([0x30]);
        assert_eq!(refused(&two), ParseError::new(end, "a certificate ends before its length"));
        two.truncate(end - 1);
        assert_eq!(refused(&two), ParseError::new(7, "a certificate ends after the last byte"));
    }

    #[test]
    fn a_length_longer_than_it_must_be_is_split_all_the_same() {
        let odd: [&[u8]; 4] = [&[0x30, 0x81, 1, 7], &[0x30, 0x82, 0, 1, 7], &[0x30, 0x84, 0, 0, 0, 0], &[0x30, 0]];
        let all = odd.concat();
        let split: Vec<&[u8]> = sequences(&all).collect::<Result<_, _>>().unwrap();
        assert_eq!(split, odd);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        for (bytes, rule) in [
            (&[0x30, 0x80, 0, 0][..], "indefinite"),
            (&[0x30, 0x81, 0x7f], "after the last byte"),
            (&[0x30, 0x85, 1, 0, 0, 0, 0], "four bytes"),
            (&[0x30, 0xff], "four bytes"),
            (&[0x30, 0x82, 1], "before its length"),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], "after the last byte"),
        ] {
            assert!(refused(bytes).rule.contains(rule), "{bytes:x?}: {}", refused(bytes));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_split_is_all_of_it(lengths in prop::collection::vec(0usize..400, 0..20), cut in any::<prop::sample::Index>()) {
            let all: Vec<u8> = lengths.iter().flat_map(|length| element(*length)).collect();
            let split: Vec<&[u8]> = sequences(&all).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(split.concat(), all.clone());
            let part = all.get(..cut.index(all.len() + 1)).unwrap();
            let whole: usize = sequences(part).filter_map(Result::ok).map(<[u8]>::len).sum();
            // Either all of it is whole, or the first element that is not is named.
            let end = match sequences(part).last() {
                Some(Err(error)) => error.offset,
                _ => part.len(),
            };
            prop_assert_eq!(end, whole);
        }

        #[test]
        fn any_bytes_are_split_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = sequences(&bytes).count();
        }
    }
}
