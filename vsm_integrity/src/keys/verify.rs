//! Whether a signed message holds: what a module, or a kernel image, may run by.
//!
//! Several signers are judged as Linux does (`pkcs7_verify`, `pkcs7_validate_trust`): one who is trusted is enough.
//! A signer that is unknown, or whose algorithms are not supported, does not count; but one whose signature is wrong, or
//! whose certificate is revoked or not good for this, spoils the message.

use crate::signature::algorithm::{PublicKey, check_heap};
use crate::signature::digest::{ContentDigests, Digest};
use crate::signature::{Certificate, ContentType, SignatureError, SignedMessage, Signer};

use super::KeyStore;
use super::chain::{Anchor, Walk};
use super::policy::{Grant, Place, Task};
use super::store::Origin;

/// What a signature is to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A kernel module: any certificate whose key may sign.
    Module,
    /// An image that kexec starts: the signer's certificate, and each one above it, must be for code where it says what it
    /// is for (RFC 5280 §4.2.1.12), and not for modules only.
    KexecImage,
}

/// A signature that holds.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'k> {
    /// The certificate of the key store that vouches for the content: the signer's, or one above it.
    pub trusted: &'k Certificate,
    /// Where that certificate came from.
    pub origin: Origin,
    /// The digest of the content.
    pub digest: Digest,
}

impl KeyStore {
    /// Checks the signature of a kernel module: `message` is detached and signs data, of which `digests` are the
    /// digests, made by [`KeyStore::content_hasher`].
    ///
    /// # Errors
    /// [`SignatureError::Attachment`] when the message has content of its own, [`SignatureError::ContentType`] when it
    /// signs something else than data; [`SignatureError::ContentBlocked`]. Then, of the signers:
    /// [`SignatureError::DigestMismatch`] when signed attributes have another digest, [`SignatureError::ContentType`]
    /// when they have another type; [`SignatureError::BadSignature`]; [`SignatureError::UntrustedSigner`];
    /// [`SignatureError::KeyUsage`], [`SignatureError::CriticalExtension`]; [`SignatureError::Revoked`],
    /// [`SignatureError::CertificateBlocked`]; for certificates between the signer and one that is trusted, and for that one,
    /// these as well, and [`SignatureError::CertificateSignature`], [`SignatureError::NotCertificateAuthority`],
    /// [`SignatureError::ChainTooLong`], [`SignatureError::Unsupported`], [`SignatureError::WeakKey`],
    /// [`SignatureError::BadKey`]; [`SignatureError::OutOfMemory`].
    pub fn verify_module(
        &self,
        message: &SignedMessage<'_>,
        digests: &ContentDigests,
    ) -> Result<Verified<'_>, SignatureError> {
        if message.content().is_some() {
            return Err(SignatureError::Attachment("a module's signature must not carry content of its own"));
        }
        if message.content_type() != Some(ContentType::Data) {
            return Err(SignatureError::ContentType);
        }
        self.revoked().check_content(digests)?;
        self.verify(message, digests, Purpose::Module)
    }

    /// Checks that a trusted signer signed the content with these digests. Errors as
    /// [`KeyStore::verify_module`] has them of the signers.
    pub(crate) fn verify(
        &self,
        message: &SignedMessage<'_>,
        digests: &ContentDigests,
        purpose: Purpose,
    ) -> Result<Verified<'_>, SignatureError> {
        check_heap()?;
        let (mut verified, mut unsupported) = (None, None);
        for signer in message.signers() {
            match self.verify_signer(message, signer, digests, purpose) {
                Ok(one) => verified = verified.or(Some(one)),
                Err(SignatureError::UntrustedSigner) => {}
                Err(error @ SignatureError::Unsupported(_)) => unsupported = unsupported.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        verified.ok_or_else(|| unsupported.unwrap_or(SignatureError::UntrustedSigner))
    }

    fn verify_signer<'k>(
        &'k self,
        message: &SignedMessage<'_>,
        signer: &Signer<'_>,
        digests: &ContentDigests,
        purpose: Purpose,
    ) -> Result<Verified<'k>, SignatureError> {
        let (scheme, algorithm) = signer.algorithms?;
        // A content that was hashed without looking at the message was not hashed for it.
        let content = digests.get(algorithm).ok_or(SignatureError::DigestMismatch)?;
        let covered = match &signer.attributes {
            None => *content,
            Some(attributes) => {
                if attributes.content_type != message.content_type() {
                    return Err(SignatureError::ContentType);
                }
                if attributes.message_digest != content.as_bytes() {
                    return Err(SignatureError::DigestMismatch);
                }
                attributes.digest(algorithm)
            }
        };
        let holds = |key: &PublicKey| key.verifies(scheme, &covered, signer.signature);
        let found =
            |anchor: Anchor<'k>| Verified { trusted: &anchor.key.certificate, origin: anchor.origin, digest: *content };

        // A certificate bears the signer's name, but its key did not sign.
        let mut wrong = None;
        for (key, origin) in self.trusted().filter(|(key, _)| signer.id.names(&key.certificate)) {
            if holds(&key.certificate.public_key()?) {
                key.check_standing()?;
                key.grant.check(origin.into(), Task::Sign(purpose))?;
                return Ok(found(Anchor { key, origin }));
            }
            wrong = Some(SignatureError::BadSignature);
        }
        let certificates = message.certificates().iter().enumerate();
        for (index, certificate) in certificates.filter(|(_, certificate)| signer.id.names(certificate)) {
            match certificate.public_key() {
                Ok(key) if holds(&key) => {
                    Grant::of(certificate).check(Place::Carried, Task::Sign(purpose))?;
                    return Walk::new(self, message.certificates(), purpose).from(index).map(found);
                }
                Ok(_) => wrong = Some(SignatureError::BadSignature),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        Err(wrong.unwrap_or(SignatureError::UntrustedSigner))
    }
}
