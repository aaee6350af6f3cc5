//! The signed attributes of a signer (RFC 5652 §5.4): where there are any, they are what is signed, and they hold the
//! content's type and digest.

use der::asn1::ObjectIdentifier;

use super::content_type::ContentType;
use super::digest::{Digest, DigestAlgorithm, Hasher};
use super::error::SignatureError;
use super::reader::{Element, tag};
use crate::error::ParseError;

/// `id-contentType` (RFC 5652 §11.1).
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
/// `id-messageDigest` (RFC 5652 §11.2).
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// Signed attributes that have what they must have, each once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedAttributes<'a> {
    /// All attributes, tag and length included.
    raw: &'a [u8],
    /// The type of what is signed; `None` for a type that is not known.
    pub(crate) content_type: Option<ContentType>,
    /// The digest of what is signed.
    pub(crate) message_digest: &'a [u8],
}

impl<'a> SignedAttributes<'a> {
    /// Parses the `[0]` of a signer.
    pub(crate) fn parse(set: &Element<'a>) -> Result<Self, SignatureError> {
        let (mut content_type, mut message_digest) = (None, None);
        let mut all = set.reader()?;
        while !all.is_empty() {
            let mut fields = all.require(tag::SEQUENCE, "an attribute is a SEQUENCE")?.reader()?;
            let id = fields.require(tag::OID, "an attribute has a type")?.content;
            let values = fields.require(tag::SET, "an attribute has a SET of values")?;
            fields.finish("an attribute has two elements")?;
            if id == CONTENT_TYPE.as_bytes() {
                let value = only(&values, tag::OID)?;
                if content_type.replace(value).is_some() {
                    return Err(SignatureError::Attributes("the content type comes twice"));
                }
            } else if id == MESSAGE_DIGEST.as_bytes() {
                let value = only(&values, tag::OCTET_STRING)?;
                if message_digest.replace(value).is_some() {
                    return Err(SignatureError::Attributes("the message digest comes twice"));
                }
            }
        }
        let content_type = content_type.ok_or(SignatureError::Attributes("there is no content type"))?;
        let message_digest = message_digest.ok_or(SignatureError::Attributes("there is no message digest"))?;
        Ok(Self { raw: set.raw, content_type: ContentType::from_oid(content_type), message_digest })
    }

    /// The digest of the attributes, which is what the signature is of: as a SET, not as the `[0]` that is in the
    /// message (RFC 5652 §5.4).
    pub(crate) fn digest(&self, algorithm: DigestAlgorithm) -> Digest {
        let mut hasher = Hasher::new(algorithm, None);
        hasher.update(&[tag::SET]);
        hasher.update(self.raw.get(1..).unwrap_or_default());
        hasher.finish()
    }
}

/// The one value of an attribute.
fn only<'a>(values: &Element<'a>, tag: u8) -> Result<&'a [u8], ParseError> {
    let mut reader = values.reader()?;
    let value = reader.require(tag, "an attribute's value has another type")?;
    reader.finish("such an attribute has one value")?;
    Ok(value.content)
}
