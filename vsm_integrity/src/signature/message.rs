//! Signed messages: CMS SignedData (RFC 5652 §5), which PKCS#7 calls the same, as Linux makes and takes it.
//!
//! The whole message is DER; nothing lies before, between or behind its elements. What is accepted is what Linux's
//! parser (`crypto/asymmetric_keys/pkcs7.asn1`) accepts, without revocation lists. A certificate in it that is none, or an
//! oddly encoded one, is passed over: it vouches for nobody, and whoever needs it has no trusted certificate. Nothing is
//! copied: a parsed message refers to the bytes that it was parsed from, and has two small lists on the heap, of at most
//! [`MAX_CERTIFICATES`] and [`MAX_SIGNERS`] entries (less than 8 KiB in all).

use alloc::vec::Vec;

use der::asn1::ObjectIdentifier;

use super::algorithm::{Identifier, Scheme};
use super::certificate::Certificate;
use super::content_type::ContentType;
use super::digest::{DigestAlgorithm, DigestSet};
use super::error::{SignatureError, Unsupported};
use super::reader::{self, Element, Reader, tag};
use super::signed_attributes::SignedAttributes;
use crate::error::ParseError;
use crate::heap::TryPush;

/// The most bytes of a message. Linux's own have 700; one with a chain of certificates has a few thousand.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The most certificates of a message.
pub const MAX_CERTIFICATES: usize = 16;
/// The most signers of a message.
pub const MAX_SIGNERS: usize = 8;

/// `id-signedData` (RFC 5652 §5.1).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// How a signer is named (RFC 5652 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignerId<'a> {
    IssuerAndSerial { issuer: &'a [u8], serial: &'a [u8] },
    KeyId(&'a [u8]),
}

impl SignerId<'_> {
    /// Whether this names the subject of `certificate`.
    pub(crate) fn names<B: AsRef<[u8]>>(&self, certificate: &Certificate<B>) -> bool {
        match self {
            Self::IssuerAndSerial { issuer, serial } => {
                certificate.issuer() == *issuer && certificate.serial() == *serial
            }
            Self::KeyId(id) => certificate.key_id() == Some(*id),
        }
    }
}

/// One signature in a message.
#[derive(Clone, Debug)]
pub(crate) struct Signer<'a> {
    pub(crate) id: SignerId<'a>,
    /// How it was signed. A message may have signers that are not understood, beside one that is.
    pub(crate) algorithms: Result<(Scheme, DigestAlgorithm), Unsupported>,
    pub(crate) attributes: Option<SignedAttributes<'a>>,
    pub(crate) signature: &'a [u8],
}

/// A signed message.
#[derive(Debug)]
pub struct SignedMessage<'a> {
    content_type: Option<ContentType>,
    content: Option<Element<'a>>,
    certificates: Vec<Certificate<&'a [u8]>>,
    signers: Vec<Signer<'a>>,
}

impl<'a> SignedMessage<'a> {
    /// Parses a message, which is all of `bytes`.
    ///
    /// # Errors
    /// [`SignatureError::TooLong`] beyond [`MAX_MESSAGE_BYTES`]; [`SignatureError::Message`];
    /// [`SignatureError::Attributes`]; [`SignatureError::OutOfMemory`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SignatureError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(SignatureError::TooLong {
                what: "a signed message",
                bytes: bytes.len(),
                most: MAX_MESSAGE_BYTES,
            });
        }
        let mut fields = signed_data(bytes)?;
        let version = fields.require(tag::INTEGER, "signed data have a version")?;
        let algorithms = fields.require(tag::SET, "signed data have a SET of hash algorithms")?;
        let (content_type, content) = encapsulated(&mut fields)?;
        let certificates = match fields.optional(tag::context(0))? {
            Some(set) => certificates(&set)?,
            None => Vec::new(),
        };
        let signer_infos = fields.require(tag::SET, "signed data have a SET of signers")?;
        fields.finish("signed data end with the signers")?;
        let signers = signers(&signer_infos, &algorithms)?;
        // RFC 5652 §5.1, of which Linux (`pkcs7_note_signerinfo_version`) has this much.
        let by_key_id = signers.iter().any(|signer| matches!(signer.id, SignerId::KeyId(_)));
        if version.small()? != if by_key_id { 3 } else { 1 } {
            return Err(version.refuse("signed data have version 3 with signers named by key id, otherwise 1").into());
        }
        Ok(Self { content_type, content, certificates, signers })
    }

    /// What is signed; `None` for a type that is not known.
    #[must_use]
    pub fn content_type(&self) -> Option<ContentType> {
        self.content_type
    }

    /// The element that is signed, where the message carries it.
    pub(crate) fn content(&self) -> Option<&Element<'a>> {
        self.content.as_ref()
    }

    /// The certificates that the message carries and that can be read, which need not be trusted.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate<&'a [u8]>] {
        &self.certificates
    }

    pub(crate) fn signers(&self) -> &[Signer<'a>] {
        &self.signers
    }

    /// The hash algorithms that the signers used on the content.
    ///
    /// # Errors
    /// [`SignatureError::Unsupported`] when there is no signer whose algorithms are supported.
    pub fn digests(&self) -> Result<DigestSet, SignatureError> {
        let mut set = DigestSet::default();
        let mut refused = None;
        for signer in &self.signers {
            match signer.algorithms {
                Ok((_, digest)) => set = set.with(digest),
                Err(unsupported) => refused = refused.or(Some(unsupported)),
            }
        }
        match refused {
            Some(unsupported) if set.is_empty() => Err(unsupported.into()),
            _ => Ok(set),
        }
    }
}

impl From<ParseError> for SignatureError {
    fn from(error: ParseError) -> Self {
        Self::Message(error)
    }
}

/// The fields of the SignedData in a ContentInfo (RFC 5652 §3).
fn signed_data(bytes: &[u8]) -> Result<Reader<'_>, ParseError> {
    let mut info = reader::only(bytes, tag::SEQUENCE, "a message is a SEQUENCE")?.reader()?;
    let kind = info.require(tag::OID, "a message has a type")?;
    if kind.content != SIGNED_DATA.as_bytes() {
        return Err(kind.refuse("a message is not signed data"));
    }
    let explicit = info.require(tag::context(0), "a message has content")?;
    info.finish("a message has two elements")?;
    reader::only_at(explicit.content, explicit.content_offset(), tag::SEQUENCE, "signed data are a SEQUENCE")?.reader()
}

/// The EncapsulatedContentInfo (RFC 5652 §5.2): type, and the element in its `[0]`.
fn encapsulated<'a>(fields: &mut Reader<'a>) -> Result<(Option<ContentType>, Option<Element<'a>>), ParseError> {
    let mut info = fields.require(tag::SEQUENCE, "what is signed is described by a SEQUENCE")?.reader()?;
    let oid = info.require(tag::OID, "what is signed has a type")?;
    let content = match info.optional(tag::context(0))? {
        None => None,
        Some(explicit) => {
            let mut inside = explicit.reader()?;
            let content = inside.any()?;
            inside.finish("what is signed is one element")?;
            Some(content)
        }
    };
    info.finish("what is signed has two elements")?;
    Ok((ContentType::from_oid(oid.content), content))
}

fn certificates<'a>(set: &Element<'a>) -> Result<Vec<Certificate<&'a [u8]>>, SignatureError> {
    let mut all = set.reader()?;
    let mut certificates = Vec::new();
    let mut count = 0;
    while !all.is_empty() {
        let element = all.require(tag::SEQUENCE, "only X.509 certificates are understood")?;
        count += 1;
        if count > MAX_CERTIFICATES {
            return Err(element.refuse("a message has 16 certificates at most").into());
        }
        // One that is too long, or no certificate, takes the others nothing away.
        if let Ok(certificate) = Certificate::parse(element.raw) {
            certificates.try_push(certificate).map_err(SignatureError::out_of("the certificates of a message"))?;
        }
    }
    Ok(certificates)
}

fn signers<'a>(set: &Element<'a>, algorithms: &Element<'a>) -> Result<Vec<Signer<'a>>, SignatureError> {
    let mut all = set.reader()?;
    let mut signers = Vec::new();
    while !all.is_empty() {
        let element = all.require(tag::SEQUENCE, "a signer is a SEQUENCE")?;
        if signers.len() >= MAX_SIGNERS {
            return Err(element.refuse("a message has 8 signers at most").into());
        }
        let signer = signer(&element, algorithms)?;
        signers.try_push(signer).map_err(SignatureError::out_of("the signers of a message"))?;
    }
    if signers.is_empty() {
        return Err(set.refuse("a message has a signer").into());
    }
    Ok(signers)
}

/// A SignerInfo (RFC 5652 §5.3).
fn signer<'a>(element: &Element<'a>, algorithms: &Element<'a>) -> Result<Signer<'a>, SignatureError> {
    let mut fields = element.reader()?;
    let version = fields.require(tag::INTEGER, "a signer has a version")?;
    let (expected, id) = if let Some(id) = fields.optional(tag::context_primitive(0))? {
        (3, SignerId::KeyId(id.content))
    } else {
        let mut id = fields.require(tag::SEQUENCE, "a signer is named")?.reader()?;
        let issuer = id.require(tag::SEQUENCE, "an issuer is a SEQUENCE")?.raw;
        let serial = id.require(tag::INTEGER, "a certificate has a serial number")?.integer()?;
        id.finish("a signer's name has two elements")?;
        (1, SignerId::IssuerAndSerial { issuer, serial })
    };
    if version.small()? != expected {
        return Err(version.refuse("a signer's version does not fit its name").into());
    }
    let digest = Identifier::next(&mut fields)?;
    let mut listed = algorithms.reader()?;
    let mut is_listed = false;
    while !listed.is_empty() {
        is_listed |= Identifier::next(&mut listed)?.same(&digest);
    }
    if !is_listed {
        return Err(algorithms.refuse("a signer used a hash algorithm that is not listed").into());
    }
    let attributes = fields.optional(tag::context(0))?.map(|set| SignedAttributes::parse(&set)).transpose()?;
    let how = Identifier::next(&mut fields)?;
    let signature = fields.require(tag::OCTET_STRING, "a signature is an OCTET STRING")?.content;
    if let Some(unsigned) = fields.optional(tag::context(1))? {
        let mut each = unsigned.reader()?;
        while !each.is_empty() {
            each.require(tag::SEQUENCE, "an attribute is a SEQUENCE")?;
        }
    }
    fields.finish("a signer ends with its attributes")?;
    Ok(Signer { id, algorithms: combined(&digest, &how), attributes, signature })
}

/// The algorithms of a signature. Where its own algorithm names a hash, it must be the one of the message.
fn combined(digest: &Identifier<'_>, how: &Identifier<'_>) -> Result<(Scheme, DigestAlgorithm), Unsupported> {
    let digest = digest.digest()?;
    let how = how.signature()?;
    if how.digest.is_some_and(|own| own != digest) {
        return Err(Unsupported::Parameters("a signature algorithm"));
    }
    Ok((how.scheme, digest))
}
