//! Whether the signature of a kernel image holds (Linux `verify_pefile_signature`).

use crate::blocklist::Hashed;
use crate::pe::{ImageDigests, ImageHasher, ImageLayout, ImageSignatures};
use crate::signature::digest::{CompressSha256, ContentHasher, DigestSet};
use crate::signature::indirect::IndirectData;
use crate::signature::{SignatureError, SignedMessage};

use super::KeyStore;
use super::verify::{Purpose, Verified};

impl KeyStore {
    /// A hash of a PE file, with all algorithms that checking it will need. The whole file is to be appended to it.
    #[must_use]
    pub fn image_hasher(
        &self,
        layout: &ImageLayout,
        signatures: &ImageSignatures<'_>,
        sha256: Option<CompressSha256>,
    ) -> ImageHasher {
        let blocked = self.revoked().lengths(Hashed::Binary);
        ImageHasher::new(layout, blocked.iter().fold(signatures.digests(), DigestSet::with), sha256)
    }

    /// Checks the signatures of a kernel image with these digests, made by [`KeyStore::image_hasher`].
    ///
    /// Of several messages one whose signer is trusted is enough; an unknown signer does not count; whatever is
    /// wrong with any of them spoils all.
    ///
    /// # Errors
    /// [`SignatureError::DigestMismatch`] when a message describes another file, or its message digest another
    /// description; [`SignatureError::ContentBlocked`]; [`SignatureError::Attributes`] for a signer without signed
    /// attributes; [`SignatureError::KeyUsage`] for a certificate that is not for code; and those of
    /// [`KeyStore::verify_module`] for signers and certificates.
    pub fn verify_image(
        &self,
        signatures: &ImageSignatures<'_>,
        digests: &ImageDigests,
    ) -> Result<Verified<'_>, SignatureError> {
        self.revoked().check_content(&digests.0)?;
        let (mut verified, mut unsupported) = (None, None);
        for (message, described) in signatures.entries() {
            match self.verify_description(message, described, digests) {
                Ok(one) => verified = verified.or(Some(one)),
                Err(SignatureError::UntrustedSigner) => {}
                Err(error @ SignatureError::Unsupported(_)) => unsupported = unsupported.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        verified.ok_or_else(|| unsupported.unwrap_or(SignatureError::UntrustedSigner))
    }

    fn verify_description(
        &self,
        message: &SignedMessage<'_>,
        described: &IndirectData<'_>,
        digests: &ImageDigests,
    ) -> Result<Verified<'_>, SignatureError> {
        let file = digests.0.get(described.algorithm).ok_or(SignatureError::DigestMismatch)?;
        if file.as_bytes() != described.digest {
            return Err(SignatureError::DigestMismatch);
        }
        if message.signers().iter().any(|signer| signer.attributes.is_none()) {
            return Err(SignatureError::Attributes("an image's signer has signed attributes"));
        }
        let mut hasher = ContentHasher::new(message.digests()?, None);
        hasher.update(described.described);
        let mut verified = self.verify(message, &hasher.finish(), Purpose::KexecImage)?;
        verified.digest = *file;
        Ok(verified)
    }
}
