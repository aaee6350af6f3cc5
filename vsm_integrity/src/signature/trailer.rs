//! Where the signature of a kernel module lies: the trailer that Linux's `scripts/sign-file` appends.
//!
//! A signed module is content, PKCS#7 message, [`struct module_signature`](MODULE_SIGNATURE_BYTES), marker. Only the
//! end of the file is looked at, so that a module of any size needs nothing copied but its last
//! [`TAIL_BYTES`].

use super::error::SignatureError;
use super::message::MAX_MESSAGE_BYTES;
use core::ops::Range;

/// The last bytes of a signed module (Linux `MODULE_SIG_STRING`, `include/linux/module_signature.h`).
pub const MARKER: &[u8; 28] = b"~Module signature appended~\n";
/// `sizeof(struct module_signature)` (Linux `include/linux/module_signature.h`): five bytes `algo`, `hash`, `id_type`,
/// `signer_len`, `key_id_len`, three of padding, and the signature's length as a big-endian word.
pub const MODULE_SIGNATURE_BYTES: usize = 12;
/// How many of a file's last bytes [`locate`] looks at.
pub const TAIL_BYTES: usize = MODULE_SIGNATURE_BYTES + MARKER.len();
/// `PKEY_ID_PKCS7` (Linux `enum pkey_id_type`).
const PKCS7: u8 = 2;

/// Where the parts of a signed module lie, as offsets into the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLayout {
    /// Bytes of the module itself, which start the file: what was signed.
    pub content: usize,
    /// The PKCS#7 message, right after the content.
    pub signature: Range<usize>,
}

/// Finds content and signature of a module file of `file_len` bytes, from its last bytes.
///
/// `tail` is how the file ends: [`TAIL_BYTES`], or the whole file where it is shorter; more is fine too.
///
/// # Errors
/// [`SignatureError::NotSigned`] without marker, [`SignatureError::UnsupportedContainer`], and
/// [`SignatureError::Trailer`] for lengths that do not fit and for bytes that PKCS#7 leaves zero;
/// [`SignatureError::TooLong`] for a message beyond [`MAX_MESSAGE_BYTES`].
pub fn locate(file_len: usize, tail: &[u8]) -> Result<ModuleLayout, SignatureError> {
    let before = tail.strip_suffix(MARKER.as_slice()).ok_or(SignatureError::NotSigned)?;
    let trailer = before
        .last_chunk::<MODULE_SIGNATURE_BYTES>()
        .ok_or(SignatureError::Trailer("the file ends before the trailer starts"))?;
    let [algo, hash, id_type, signer_len, key_id_len, pad @ .., l0, l1, l2, l3] = *trailer;
    if id_type != PKCS7 {
        return Err(SignatureError::UnsupportedContainer(id_type));
    }
    if [algo, hash, signer_len, key_id_len] != [0; 4] || pad != [0; 3] {
        return Err(SignatureError::Trailer("PKCS#7 leaves the other bytes of the trailer zero"));
    }
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let end =
        file_len.checked_sub(TAIL_BYTES).ok_or(SignatureError::Trailer("the file ends before the trailer starts"))?;
    let content = end
        .checked_sub(length)
        .filter(|content| *content > 0)
        .ok_or(SignatureError::Trailer("the signature is not shorter than the file"))?;
    if length == 0 {
        return Err(SignatureError::Trailer("the signature is empty"));
    }
    if length > MAX_MESSAGE_BYTES {
        return Err(SignatureError::TooLong { what: "a signature", bytes: length, most: MAX_MESSAGE_BYTES });
    }
    Ok(ModuleLayout { content, signature: content..end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: usize, signature: usize, trailer: [u8; 8]) -> Vec<u8> {
        let length = u32::try_from(signature).unwrap().to_be_bytes();
        [&vec![1; content][..], &vec![2; signature], &trailer, &length, MARKER].concat()
    }

    const GOOD: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];

    fn found(file: &[u8]) -> Result<ModuleLayout, SignatureError> {
        let whole = locate(file.len(), file);
        // No more than the documented tail is needed.
        let tail = &file[file.len().saturating_sub(TAIL_BYTES)..];
        assert_eq!(locate(file.len(), tail), whole);
        whole
    }

    #[test]
    fn the_parts_are_found() {
        let layout = ModuleLayout { content: 100, signature: 100..130 };
        assert_eq!(found(&file(100, 30, GOOD)), Ok(layout));
        assert_eq!(found(&file(1, MAX_MESSAGE_BYTES, GOOD)).unwrap().signature.len(), MAX_MESSAGE_BYTES);
    }

    #[test]
    fn lengths_must_fit() {
        for (content, signature) in [(0, 30), (100, 0)] {
            assert!(matches!(found(&file(content, signature, GOOD)), Err(SignatureError::Trailer(_))));
        }
        let too_long = found(&file(9, MAX_MESSAGE_BYTES + 1, GOOD));
        assert!(matches!(too_long, Err(SignatureError::TooLong { .. })), "{too_long:?}");
        let mut lies = file(100, 30, GOOD);
        for length in [130u32, 131, 170, 171, u32::MAX] {
            let at = lies.len() - 32;
            lies[at..at + 4].copy_from_slice(&length.to_be_bytes());
            assert!(matches!(found(&lies), Err(SignatureError::Trailer(_))), "{length}");
        }
    }

    #[test]
    fn every_other_byte_of_the_trailer_counts() {
        for byte in 0..8 {
            for bit in 0..8 {
                let mut trailer = GOOD;
                trailer[byte] ^= 1 << bit;
                let expected = if byte == 2 {
                    SignatureError::UnsupportedContainer(trailer[2])
                } else {
                    SignatureError::Trailer("PKCS#7 leaves the other bytes of the trailer zero")
                };
                assert_eq!(found(&file(100, 30, trailer)), Err(expected));
            }
        }
        for byte in 0..MARKER.len() {
            let mut unsigned = file(100, 30, GOOD);
            let at = unsigned.len() - 1 - byte;
            unsigned[at] ^= 0x20;
            assert_eq!(found(&unsigned), Err(SignatureError::NotSigned));
        }
    }

    #[test]
    fn a_file_of_any_length_is_taken_or_refused() {
        let whole = file(60, 30, GOOD);
        for length in 0..whole.len() {
            assert_eq!(found(&whole[..length]), Err(SignatureError::NotSigned));
            assert!(found(&whole[length..]).is_err() || length < 60);
        }
    }
}
