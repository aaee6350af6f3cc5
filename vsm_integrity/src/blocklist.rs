//! The records of Linux's blacklist keyring: hashes of what must not be trusted.
//!
//! VTL0 sends fixed-size records with a NUL-terminated text: `tbs:<hex>` (the hash of a certificate's to-be-signed
//! part) or `bin:<hex>` (the hash of a file). Linux skips a text with another prefix, and so does this parser. Firmware
//! brings more of them every year: what is beyond the limit is not read, and takes nothing of the rest away.

use crate::error::ParseError;

/// Bytes of a record (LVBS contract §5.5).
pub const RECORD_BYTES: usize = 133;
/// The most records that are taken. VTL0's driver sends 400 (LVBS contract §5.5); firmware of 2026 has 431 and 443.
pub const MAX_RECORDS: usize = 4096;
/// The most bytes of a hash: 128 hexadecimal digits.
pub const MAX_HASH_BYTES: usize = 64;

/// What a hash is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hashed {
    /// The to-be-signed part of a certificate.
    Certificate,
    /// A whole file: a module, or a kernel image.
    Binary,
}

/// A hash that must not be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockedHash {
    /// What the hash is one of.
    pub of: Hashed,
    bytes: [u8; MAX_HASH_BYTES],
    len: u8,
}

impl BlockedHash {
    /// The hash, 1 to [`MAX_HASH_BYTES`] bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The hashes in the first [`MAX_RECORDS`] records of `bytes`, in their order, without the records that have another
/// prefix. An error names the offset of the record. After an error the iterator ends.
#[must_use]
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { bytes, at: 0 }
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<BlockedHash, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.at;
            let within = start < MAX_RECORDS * RECORD_BYTES;
            let rest = self.bytes.get(start..).filter(|rest| within && !rest.is_empty())?;
            self.at = start.saturating_add(RECORD_BYTES);
            match rest.get(..RECORD_BYTES).ok_or("a record has 133 bytes").and_then(parse) {
                Ok(None) => {}
                Ok(Some(hash)) => return Some(Ok(hash)),
                Err(rule) => {
                    self.at = self.bytes.len();
                    return Some(Err(ParseError::new(start, rule)));
                }
            }
        }
    }
}

/// The hash of one record; `None` for an unknown prefix.
fn parse(record: &[u8]) -> Result<Option<BlockedHash>, &'static str> {
    let text = record.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.len() == record.len() {
        return Err("a record ends with a NUL");
    }
    let (of, digits) = if let Some(digits) = text.strip_prefix(b"tbs:") {
        (Hashed::Certificate, digits)
    } else if let Some(digits) = text.strip_prefix(b"bin:") {
        (Hashed::Binary, digits)
    } else {
        return Ok(None);
    };
    let (pairs, odd) = digits.as_chunks::<2>();
    if pairs.is_empty() || !odd.is_empty() || pairs.len() > MAX_HASH_BYTES {
        return Err("a hash has an even number of digits, 2 to 128");
    }
    let mut bytes = [0; MAX_HASH_BYTES];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    let len = u8::try_from(pairs.len()).map_err(|_| "a hash has an even number of digits, 2 to 128")?;
    Ok(Some(BlockedHash { of, bytes, len }))
}

fn digit(character: u8) -> Result<u8, &'static str> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err("a hash has hexadecimal digits only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(text: &str) -> Vec<u8> {
        let mut record = text.as_bytes().to_vec();
        record.resize(RECORD_BYTES, 0);
        record
    }

    fn refused(bytes: &[u8]) -> ParseError {
        records(bytes).last().unwrap().unwrap_err()
    }

    #[test]
    fn hashes_of_both_kinds_are_kept_and_other_prefixes_skipped() {
        let longest = "ab".repeat(64);
        let mut noisy = record("bin:0f");
        noisy[8..].fill(b'z');
        let all = [record("tbs:00ff"), record("xyz:nonsense"), record(""), record(&format!("bin:{longest}")), noisy];
        let hashes: Vec<_> = records(&all.concat()).collect::<Result<_, _>>().unwrap();
        let shown: Vec<_> = hashes.iter().map(|hash| (hash.of, hash.bytes())).collect();
        assert_eq!(
            shown,
            [(Hashed::Certificate, &[0, 0xff][..]), (Hashed::Binary, &[0xab; 64]), (Hashed::Binary, &[0x0f])]
        );
        assert_eq!(records(&record("tbs:AbCd")).next().unwrap().unwrap().bytes(), [0xab, 0xcd]);
    }

    #[test]
    fn the_offset_of_the_offending_record_is_named() {
        let good = record("tbs:00");
        for (bad, rule) in [
            (record("tbs:"), "even number"),
            (record("bin:0"), "even number"),
            (record("bin:012"), "even number"),
            (record("bin:0g"), "hexadecimal"),
            (record("tbs: 0"), "hexadecimal"),
            (vec![b'a'; RECORD_BYTES], "NUL"),
            (vec![0; RECORD_BYTES - 1], "133"),
            (vec![0], "133"),
        ] {
            let error = refused(&[good.clone(), good.clone(), bad.clone()].concat());
            assert_eq!(error.offset, 266, "{error}");
            assert!(error.rule.contains(rule), "{error}");
            // Whatever follows: nothing comes after an error.
            let items: Vec<_> = records(&[bad, good.clone()].concat()).collect();
            assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
            assert!(items.last().unwrap().is_err());
        }
    }

    #[test]
    fn what_is_beyond_the_limit_takes_nothing_away() {
        let most = record("tbs:00").repeat(MAX_RECORDS);
        for surplus in [vec![], record("bin:ff"), vec![b'a'], record("bin:0g").repeat(1000)] {
            let all = [&most[..], &surplus].concat();
            let hashes: Vec<_> = records(&all).collect::<Result<_, _>>().unwrap();
            assert_eq!(hashes.len(), MAX_RECORDS);
            assert!(hashes.iter().all(|hash| hash.of == Hashed::Certificate));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for hash in records(&bytes).flatten() {
                prop_assert!((1..=MAX_HASH_BYTES).contains(&hash.bytes().len()));
            }
        }

        #[test]
        fn a_hash_survives_its_text(hash in prop::collection::vec(any::<u8>(), 1..=64), certificate: bool) {
            use std::fmt::Write;
            let mut text = if certificate { "tbs:".to_owned() } else { "bin:".to_owned() };
            for byte in &hash {
                write!(text, "{byte:02x}").unwrap();
            }
            let parsed = records(&record(&text)).next().unwrap().unwrap();
            prop_assert_eq!(parsed.bytes(), &hash[..]);
            prop_assert_eq!(parsed.of == Hashed::Certificate, certificate);
        }
    }
}
