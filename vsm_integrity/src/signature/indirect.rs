//! What a message says of a PE file: SpcIndirectDataContent (Microsoft, "Windows Authenticode Portable Executable
//! Signature Format").
//!
//! The description is in the message and has the file's hash; the signature is of the description. Both steps must be
//! checked, or a signature of one file could be put onto another.

use der::asn1::ObjectIdentifier;

use super::algorithm::Identifier;
use super::content_type::ContentType;
use super::digest::DigestAlgorithm;
use super::error::SignatureError;
use super::message::SignedMessage;
use super::reader::{Element, tag};
use crate::error::ParseError;

/// What is described is a PE file: `SPC_PE_IMAGE_DATAOBJ`, and what pesign has written in its place from its beginnings
/// (`SPC_INDIVIDUAL_SP_KEY_PURPOSE`; Linux's `mscode_parser.c` takes both). The file's hash is at the same place and means
/// the same; nothing else is signed under the second.
const PE_IMAGES: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15"), ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.21")];

/// The description of a PE file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndirectData<'a> {
    /// What the file was hashed with.
    pub(crate) algorithm: DigestAlgorithm,
    /// The file's hash.
    pub(crate) digest: &'a [u8],
    /// What the message digest attribute is the digest of: the description without its tag and length.
    pub(crate) described: &'a [u8],
}

impl<'a> IndirectData<'a> {
    /// The description in `message`.
    pub(crate) fn in_message(message: &SignedMessage<'a>) -> Result<Self, SignatureError> {
        if message.content_type() != Some(ContentType::IndirectData) {
            return Err(SignatureError::ContentType);
        }
        let content = message.content();
        let content = content.ok_or(SignatureError::Attachment("an image's signature must describe the image"))?;
        let (identifier, digest) = parse(content)?;
        Ok(Self { algorithm: identifier.digest()?, digest, described: content.content })
    }
}

fn parse<'a>(content: &Element<'a>) -> Result<(Identifier<'a>, &'a [u8]), ParseError> {
    if content.tag != tag::SEQUENCE {
        return Err(content.refuse("the description of an image is a SEQUENCE"));
    }
    let mut fields = content.reader()?;
    let data = fields.require(tag::SEQUENCE, "the description of an image has a type")?;
    let kind = data.reader()?.require(tag::OID, "the description of an image has a type")?;
    if !PE_IMAGES.iter().any(|known| known.as_bytes() == kind.content) {
        return Err(kind.refuse("what is described is not a PE file"));
    }
    let mut info = fields.require(tag::SEQUENCE, "the description of an image has a digest")?.reader()?;
    fields.finish("the description of an image has two elements")?;
    let identifier = Identifier::next(&mut info)?;
    let digest = info.require(tag::OCTET_STRING, "a digest is an OCTET STRING")?.content;
    info.finish("a digest has two elements")?;
    Ok((identifier, digest))
}
