//! The certificate table of a PE file ("PE Format", section "The Attribute Certificate Table"), and what its messages say
//! of the file.

use alloc::vec::Vec;

use crate::bytes::array_at;
use crate::error::ParseError;
use crate::heap::TryPush;
use crate::signature::digest::DigestSet;
use crate::signature::indirect::IndirectData;
use crate::signature::message::MAX_MESSAGE_BYTES;
use crate::signature::{SignatureError, SignedMessage};

/// The most bytes of a table.
pub const MAX_TABLE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// The most entries of a table. A file that two authorities have signed has two.
pub const MAX_ENTRIES: usize = 4;

/// Bytes of an entry before the message: length, revision, type.
const HEADER_BYTES: usize = 8;
/// `WIN_CERT_REVISION_2_0`.
const REVISION: u16 = 0x200;
/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`.
const SIGNED_DATA: u16 = 2;

/// The signatures of a PE file, parsed.
#[derive(Debug)]
pub struct ImageSignatures<'a> {
    entries: Vec<(SignedMessage<'a>, IndirectData<'a>)>,
}

impl<'a> ImageSignatures<'a> {
    /// Parses a certificate table, which is all of `table` and starts at `offset` of the file.
    ///
    /// # Errors
    /// [`SignatureError::Image`] for an entry that is no signed message or does not fit; those of
    /// [`SignedMessage::parse`]; [`SignatureError::ContentType`] and [`SignatureError::Attachment`] for a message that
    /// does not carry the description of a PE file; [`SignatureError::Unsupported`] for a file hash of another kind.
    pub fn parse(table: &'a [u8], offset: usize) -> Result<Self, SignatureError> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < table.len() {
            let place = offset.saturating_add(at);
            if entries.len() >= MAX_ENTRIES {
                let rule = "a certificate table has 4 entries at most";
                return Err(SignatureError::Image(ParseError::new(place, rule)));
            }
            let rest = table.get(at..).unwrap_or_default();
            let (message, whole) = entry(rest).map_err(|rule| SignatureError::Image(ParseError::new(place, rule)))?;
            let message = SignedMessage::parse(message)?;
            let described = IndirectData::in_message(&message)?;
            entries.try_push((message, described)).map_err(SignatureError::out_of("the signatures of an image"))?;
            at = at.saturating_add(whole);
        }
        if entries.is_empty() {
            return Err(SignatureError::NotSigned);
        }
        Ok(Self { entries })
    }

    pub(crate) fn entries(&self) -> &[(SignedMessage<'a>, IndirectData<'a>)] {
        &self.entries
    }

    /// The algorithms that the file is to be hashed with.
    pub(crate) fn digests(&self) -> DigestSet {
        self.entries.iter().fold(DigestSet::default(), |set, (_, described)| set.with(described.algorithm))
    }
}

/// The message of the first entry in `rest`, and the entry's bytes with what aligns the next one.
fn entry(rest: &[u8]) -> Result<(&[u8], usize), &'static str> {
    let word = |offset| array_at(rest, offset).map(u16::from_le_bytes);
    let length = array_at(rest, 0).map(u32::from_le_bytes).and_then(|length| usize::try_from(length).ok());
    let length = length.ok_or("the certificate table ends in an entry's header")?;
    let whole = length.checked_next_multiple_of(8).filter(|whole| *whole <= rest.len());
    let whole = whole.ok_or("an entry of the certificate table is longer than the table")?;
    if word(4) != Some(REVISION) || word(6) != Some(SIGNED_DATA) {
        return Err("an entry of the certificate table is no PKCS#7 message of revision 2");
    }
    let inside =
        rest.get(HEADER_BYTES..length).ok_or("an entry of the certificate table is shorter than its header")?;
    // Some signers count the bytes that align the next entry.
    let message = message_length(inside).and_then(|length| inside.get(..length));
    let message = message.ok_or("an entry of the certificate table holds no DER")?;
    let padding = rest.get(HEADER_BYTES.saturating_add(message.len())..whole).unwrap_or_default();
    if padding.len() >= 8 || padding.iter().any(|byte| *byte != 0) {
        return Err("bytes follow a message in the certificate table");
    }
    Ok((message, whole))
}

/// Bytes of the element that `bytes` start with.
fn message_length(bytes: &[u8]) -> Option<usize> {
    crate::der::sequences(bytes).next()?.ok().map(<[u8]>::len)
}
