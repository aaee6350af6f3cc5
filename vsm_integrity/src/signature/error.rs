//! Why a signature is not accepted, and what Linux would have answered.

use core::fmt;

use thiserror::Error;

use crate::error::ParseError;
use crate::heap;

/// An algorithm that is not accepted, by what it would have been used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// A hash algorithm; its name where it is known.
    Digest(Option<&'static str>),
    /// A signature algorithm; its name where it is known.
    Signature(Option<&'static str>),
    /// A kind of public key; its name where it is known.
    Key(Option<&'static str>),
    /// An elliptic curve; its name where it is known.
    Curve(Option<&'static str>),
    /// An RSA key of more than [`MAX_RSA_BITS`](super::algorithm::MAX_RSA_BITS).
    RsaBits(usize),
    /// An accepted algorithm with parameters that it does not have.
    Parameters(&'static str),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = match self {
            Self::Digest(name) => ("hash algorithm", name),
            Self::Signature(name) => ("signature algorithm", name),
            Self::Key(name) => ("public key algorithm", name),
            Self::Curve(name) => ("elliptic curve", name),
            Self::RsaBits(bits) => return write!(f, "RSA keys of {bits} bits are not supported"),
            Self::Parameters(name) => return write!(f, "{name} with such parameters is not supported"),
        };
        match name {
            Some(name) => write!(f, "the {what} {name} is not supported"),
            None => write!(f, "an unknown {what} is not supported"),
        }
    }
}

impl From<Unsupported> for SignatureError {
    fn from(unsupported: Unsupported) -> Self {
        Self::Unsupported(unsupported)
    }
}

/// Why a signature, or a certificate, was refused.
///
/// Each variant has a [class](Self::class), which stands for one Linux errno. The errnos are those of Linux's
/// `mod_verify_sig`, `verify_pkcs7_signature` and `verify_pefile_signature` for the same fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// There is no signature at all.
    #[error("there is no signature")]
    NotSigned,
    /// The trailer that says where a module's signature lies contradicts itself.
    #[error("module signature trailer: {0}")]
    Trailer(&'static str),
    /// The trailer names another container than PKCS#7 (Linux `enum pkey_id_type`).
    #[error("a module signature of type {0} is not supported, only PKCS#7 (2) is")]
    UnsupportedContainer(u8),
    /// An input is longer than the documented limit.
    #[error("{what} of {bytes} bytes, {most} are the limit")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The most bytes that are looked at.
        most: usize,
    },
    /// The signed message is not what CMS says, or not DER. The offset is within the message.
    #[error("signed message, {0}")]
    Message(ParseError),
    /// A certificate is not what X.509 says, or not DER. The offset is within the certificate.
    #[error("certificate, {0}")]
    Certificate(ParseError),
    /// A PE file, or its certificate table, is malformed. The offset is within the file.
    #[error("PE file, {0}")]
    Image(ParseError),
    /// The algorithm is known or unknown, but in no case accepted.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// The message carries its content, or lacks it, where it must be the other way round.
    #[error("{0}")]
    Attachment(&'static str),
    /// The message signs something of another type than it is used for.
    #[error("the signed content is not of the type that belongs here")]
    ContentType,
    /// The signed attributes do not have what they must have.
    #[error("signed attributes: {0}")]
    Attributes(&'static str),
    /// The digest in the message is not that of the content.
    #[error("the content is not what was signed")]
    DigestMismatch,
    /// The signature of the content is not one by the signer's key.
    #[error("the signature is wrong")]
    BadSignature,
    /// An RSA key is shorter than 2048 bits.
    #[error("an RSA key of {0} bits is too weak")]
    WeakKey(usize),
    /// A public key is not one.
    #[error("public key: {0}")]
    BadKey(&'static str),
    /// No trusted certificate stands behind the signer.
    #[error("no trusted certificate stands behind the signer")]
    UntrustedSigner,
    /// The signature of a certificate is not one by its issuer's key.
    #[error("a certificate was not signed by its issuer")]
    CertificateSignature,
    /// A certificate signed another one, and may not, or not over so many others.
    #[error("a certificate signed another one and is not an authority for it")]
    NotCertificateAuthority,
    /// The signer's certificate, or one above it, is not for this kind of signature.
    #[error("the signer's certificate, or one above it, is not for this kind of signature")]
    KeyUsage,
    /// A certificate on the way has a critical extension that is not understood (RFC 5280 §4.2).
    #[error("a certificate has a critical extension that is not understood")]
    CriticalExtension,
    /// More certificates lie between signer and trusted certificate than is allowed, or they cost too much to check.
    #[error("the certificates between signer and trusted certificate are too many")]
    ChainTooLong,
    /// A certificate on the way is revoked, or its issuer is, or nobody can tell that its issuer is another one.
    #[error("a certificate is revoked, or its issuer is")]
    Revoked,
    /// The hash of a certificate on the way is blocked (`tbs:`).
    #[error("the hash of a certificate is blocked")]
    CertificateBlocked,
    /// The hash of the content is blocked (`bin:`).
    #[error("the hash of the content is blocked")]
    ContentBlocked,
    /// A bounded table is full.
    #[error("there is no room for more {0}")]
    Full(&'static str),
    /// VTL1's heap is used up.
    #[error("no memory is left for {0}")]
    OutOfMemory(&'static str),
}

/// What a refusal means to Linux; each is one errno.
///
/// | class | Linux errno | value |
/// |---|---|---|
/// | `NoSignature` | `ENODATA` | 61 |
/// | `Unsupported` | `ENOPKG` | 65 |
/// | `BadMessage` | `EBADMSG` | 74 |
/// | `NoKey` | `ENOKEY` | 126 |
/// | `Rejected` | `EKEYREJECTED` | 129 |
/// | `NoSpace` | `ENOSPC` | 28 |
/// | `NoMemory` | `ENOMEM` | 12 |
///
/// Where the kernel enforces signatures, Linux's `module_sig_check` turns the first, the second and the fourth into
/// `EKEYREJECTED` before user space sees them; what VTL1 answers is the precise one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Not signed (`ENODATA`).
    NoSignature,
    /// Signed by means that are not supported (`ENOPKG`).
    Unsupported,
    /// The container of the signature is broken (`EBADMSG`).
    BadMessage,
    /// Signed by an unknown key (`ENOKEY`).
    NoKey,
    /// Signed, and wrong or forbidden (`EKEYREJECTED`).
    Rejected,
    /// A bounded table is full (`ENOSPC`).
    NoSpace,
    /// No memory (`ENOMEM`).
    NoMemory,
}

impl SignatureError {
    /// Makes the error of a heap that does not hold `what`.
    pub(crate) fn out_of(what: &'static str) -> impl Fn(heap::OutOfMemory) -> Self {
        move |_| Self::OutOfMemory(what)
    }

    /// What the refusal means to Linux.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::NotSigned => ErrorClass::NoSignature,
            Self::UnsupportedContainer(_) | Self::Unsupported(_) => ErrorClass::Unsupported,
            Self::Trailer(_)
            | Self::TooLong { .. }
            | Self::Message(_)
            | Self::Certificate(_)
            | Self::Image(_)
            | Self::Attachment(_)
            | Self::Attributes(_) => ErrorClass::BadMessage,
            Self::UntrustedSigner => ErrorClass::NoKey,
            Self::ContentType
            | Self::DigestMismatch
            | Self::BadSignature
            | Self::WeakKey(_)
            | Self::BadKey(_)
            | Self::CertificateSignature
            | Self::NotCertificateAuthority
            | Self::KeyUsage
            | Self::CriticalExtension
            | Self::ChainTooLong
            | Self::Revoked
            | Self::CertificateBlocked
            | Self::ContentBlocked => ErrorClass::Rejected,
            Self::Full(_) => ErrorClass::NoSpace,
            Self::OutOfMemory(_) => ErrorClass::NoMemory,
        }
    }
}
