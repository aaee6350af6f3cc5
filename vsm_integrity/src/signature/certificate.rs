//! X.509 certificates (RFC 5280): parsed once, kept as the bytes that came and where the fields are in them.
//!
//! Parsing says only that the bytes are a certificate. Its owner, whether its issuer signed it and what it is
//! good for are for the caller to ask. Times are not read beyond their form: VTL1 has no clock that VTL0 cannot set, and
//! Linux does not look at the validity of a certificate when it checks a signature either.

use alloc::boxed::Box;
use core::fmt;

use super::algorithm::{Identifier, PublicKey, SignatureAlgorithm};
use super::digest::{Digest, DigestAlgorithm};
use super::error::{SignatureError, Unsupported};
use super::extensions::Extensions;
use super::reader::{self, Element, Reader, tag};
use super::span::Span;
use crate::error::ParseError;
use crate::heap;

/// The most bytes of a certificate. Those with RSA-4096 keys have about 1.5 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 8 << 10;

/// A certificate. `B` holds its bytes: a slice, or a box that the certificate owns.
#[derive(Clone)]
pub struct Certificate<B = Box<[u8]>> {
    der: B,
    tbs: Span,
    serial: Span,
    issuer: Span,
    subject: Span,
    key: Span,
    signature: Span,
    algorithm: Result<SignatureAlgorithm, Unsupported>,
    extensions: Extensions,
}

/// Names and serial number, for a log.
impl<B: AsRef<[u8]>> fmt::Debug for Certificate<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({self})")
    }
}

/// The subject's common name, and the serial number in hexadecimal digits.
impl<B: AsRef<[u8]>> fmt::Display for Certificate<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\", serial ", self.common_name().unwrap_or("no name").escape_debug())?;
        // RFC 5280 §4.1.2.2 has serial numbers of 20 bytes at most; others are cut.
        self.serial().iter().take(20).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'a> Certificate<&'a [u8]> {
    /// As [`Certificate::raw`], for as long as the bytes that it was parsed from live.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.der
    }

    /// A certificate with a copy of the bytes of its own.
    ///
    /// # Errors
    /// [`SignatureError::OutOfMemory`].
    pub fn to_owned(&self) -> Result<Certificate, SignatureError> {
        let mut bytes = heap::with_room(self.der.len()).map_err(SignatureError::out_of("a certificate"))?;
        bytes.extend_from_slice(self.der);
        Ok(Certificate {
            // The capacity is the length, so nothing is allocated here.
            der: bytes.into_boxed_slice(),
            tbs: self.tbs,
            serial: self.serial,
            issuer: self.issuer,
            subject: self.subject,
            key: self.key,
            signature: self.signature,
            algorithm: self.algorithm,
            extensions: self.extensions,
        })
    }
}

impl<B: AsRef<[u8]>> Certificate<B> {
    /// Parses a certificate, which is all of `der`.
    ///
    /// # Errors
    /// [`SignatureError::TooLong`] beyond [`MAX_CERTIFICATE_BYTES`], [`SignatureError::Certificate`].
    pub fn parse(der: B) -> Result<Self, SignatureError> {
        let bytes = der.as_ref().len();
        if bytes > MAX_CERTIFICATE_BYTES {
            return Err(SignatureError::TooLong { what: "a certificate", bytes, most: MAX_CERTIFICATE_BYTES });
        }
        Self::fields(der).map_err(SignatureError::Certificate)
    }

    /// RFC 5280 §4.1.
    fn fields(der: B) -> Result<Self, ParseError> {
        let mut outer = reader::only(der.as_ref(), tag::SEQUENCE, "a certificate is a SEQUENCE")?.reader()?;
        let tbs = outer.require(tag::SEQUENCE, "a certificate has a to-be-signed part")?;
        let algorithm = Identifier::next(&mut outer)?;
        let signature = outer.require(tag::BIT_STRING, "a certificate has a signature")?;
        signature.whole_bits()?;
        outer.finish("a certificate has three elements")?;

        let mut fields = tbs.reader()?;
        let version = version(&mut fields)?;
        let serial = fields.require(tag::INTEGER, "a certificate has a serial number")?;
        serial.integer()?;
        let inner = Identifier::next(&mut fields)?;
        if inner.raw != algorithm.raw {
            return Err(tbs.refuse("a certificate names two signature algorithms"));
        }
        let issuer = fields.require(tag::SEQUENCE, "an issuer is a SEQUENCE")?;
        validity(&fields.require(tag::SEQUENCE, "a validity is a SEQUENCE")?)?;
        let subject = fields.require(tag::SEQUENCE, "a subject is a SEQUENCE")?;
        let key = fields.require(tag::SEQUENCE, "a public key is a SEQUENCE")?;
        for number in [1, 2] {
            let unique = fields.optional(tag::context_primitive(number))?;
            if let Some(id) = unique.filter(|_| version == 0) {
                return Err(id.refuse("unique identifiers are of version 2"));
            }
        }
        let extensions = match fields.optional(tag::context(3))? {
            None => Extensions::default(),
            Some(element) if version == 2 => Extensions::parse(&element)?,
            Some(element) => return Err(element.refuse("extensions are of version 3")),
        };
        fields.finish("unknown fields in a certificate")?;
        Ok(Self {
            tbs: Span::whole(&tbs)?,
            serial: Span::content(&serial)?,
            issuer: Span::whole(&issuer)?,
            subject: Span::whole(&subject)?,
            key: Span::whole(&key)?,
            // Without the byte that says that no bits are unused.
            signature: Span::new(signature.content_offset() + 1, signature.content.len().saturating_sub(1))?,
            algorithm: algorithm.signature(),
            extensions,
            der,
        })
    }

    fn part(&self, span: Span) -> &[u8] {
        span.bytes(self.der.as_ref())
    }

    /// All bytes of the certificate.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.der.as_ref()
    }

    /// The to-be-signed part, tag and length included: what `tbs:` hashes are of.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        self.part(self.tbs)
    }

    /// The serial number, big-endian in two's complement.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.part(self.serial)
    }

    /// The issuer's name, in DER.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        self.part(self.issuer)
    }

    /// The subject's name, in DER.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        self.part(self.subject)
    }

    /// The subject's public key, a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        self.part(self.key)
    }

    /// The subject key identifier, if there is one.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.extensions.key_id.map(|span| self.part(span))
    }

    /// The identifier of the issuer's key, if there is one.
    #[must_use]
    pub fn issuer_key_id(&self) -> Option<&[u8]> {
        self.extensions.issuer_key_id.map(|span| self.part(span))
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The subject's common name (RFC 5280 appendix A.1), where it is text that can be shown.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        common_name(self.subject()).ok().flatten()
    }

    /// The public key, checked.
    pub(crate) fn public_key(&self) -> Result<PublicKey, SignatureError> {
        PublicKey::parse(self.public_key_info(), self.key.start())
    }

    /// Whether the subject's public key can be used, whatever for.
    ///
    /// # Errors
    /// [`SignatureError::Unsupported`], [`SignatureError::WeakKey`], [`SignatureError::BadKey`].
    pub fn check_key(&self) -> Result<(), SignatureError> {
        self.public_key().map(drop)
    }

    /// Whether this certificate is one that `issuer`, by name and key id, may have signed.
    pub(crate) fn names_issuer<C: AsRef<[u8]>>(&self, issuer: &Certificate<C>) -> bool {
        self.names(issuer.subject(), issuer.key_id())
    }

    /// Whether this certificate is one that the owner of this name, and of this key id if there is one, may have signed.
    pub(crate) fn names(&self, issuer: &[u8], key_id: Option<&[u8]>) -> bool {
        let same_key = self.issuer_key_id().zip(key_id).is_none_or(|(wanted, id)| wanted == id);
        same_key && self.issuer() == issuer
    }

    /// Whether the subject signed this certificate itself.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.names_issuer(self) && self.public_key().is_ok_and(|key| self.check_signed_by(&key).is_ok())
    }

    /// Checks that the key of `issuer` signed this certificate.
    pub(crate) fn check_signed_by(&self, issuer: &PublicKey) -> Result<(), SignatureError> {
        let algorithm = self.algorithm?;
        let Some(digest) = algorithm.digest else {
            return Err(Unsupported::Signature(None).into());
        };
        if issuer.verifies(algorithm.scheme, &digest.digest(self.tbs()), self.part(self.signature)) {
            Ok(())
        } else {
            Err(SignatureError::CertificateSignature)
        }
    }

    /// The hash of the to-be-signed part.
    #[must_use]
    pub fn tbs_digest(&self, algorithm: DigestAlgorithm) -> Digest {
        algorithm.digest(self.tbs())
    }
}

/// The version as it is encoded: 0 to 2, for versions 1 to 3.
fn version(fields: &mut Reader<'_>) -> Result<u8, ParseError> {
    let Some(explicit) = fields.optional(tag::context(0))? else { return Ok(0) };
    let mut inside = explicit.reader()?;
    let version = inside.require(tag::INTEGER, "a version is an INTEGER")?.small()?;
    inside.finish("a version is one element")?;
    // Version 1 is the default, which DER leaves out (X.690 §11.5).
    if version == 1 || version == 2 { Ok(version) } else { Err(explicit.refuse("a certificate has version 1, 2 or 3")) }
}

/// RFC 5280 §4.1.2.5: two times.
fn validity(element: &Element<'_>) -> Result<(), ParseError> {
    let mut times = element.reader()?;
    for _ in 0..2 {
        if times.optional(tag::UTC_TIME)?.is_none() {
            times.require(tag::GENERALIZED_TIME, "a validity is made of two times")?;
        }
    }
    times.finish("a validity is made of two times")
}

/// The first common name of `name`.
fn common_name(name: &[u8]) -> Result<Option<&str>, ParseError> {
    /// `id-at-commonName`, 2.5.4.3.
    const COMMON_NAME: [u8; 3] = [0x55, 4, 3];
    let mut sets = reader::only(name, tag::SEQUENCE, "a name is a SEQUENCE")?.reader()?;
    while !sets.is_empty() {
        let mut attributes = sets.require(tag::SET, "a name is made of SETs")?.reader()?;
        while !attributes.is_empty() {
            let mut fields = attributes.require(tag::SEQUENCE, "an attribute is a SEQUENCE")?.reader()?;
            let oid = fields.require(tag::OID, "an attribute has a type")?;
            if oid.content == COMMON_NAME {
                return Ok(core::str::from_utf8(fields.any()?.content).ok());
            }
        }
    }
    Ok(None)
}
