//! From a signer to a trusted certificate, over the certificates that a message carries.

use crate::signature::message::MAX_CERTIFICATES;
use crate::signature::{Certificate, SignatureError};

use super::KeyStore;
use super::store::{Origin, TrustedKey};

/// The most certificates between a signer's and a trusted one.
pub const MAX_INTERMEDIATES: usize = 8;
/// The most signatures of certificates that are checked for one message. More than a chain with
/// [`MAX_INTERMEDIATES`] and a trusted certificate that was renewed a few times needs.
pub const MAX_CERTIFICATE_CHECKS: usize = 32;

/// Where a chain ended.
pub(super) struct Anchor<'k> {
    pub(super) key: &'k TrustedKey,
    pub(super) origin: Origin,
}

/// A walk from a certificate up to those that are trusted.
///
/// Breadth first: every certificate of the message is looked at once at most, so that a cycle ends, and the first
/// trusted certificate is the nearest one. A certificate gets onto the walk only by having signed one that is on it.
pub(super) struct Walk<'k, 'm> {
    keys: &'k KeyStore,
    certificates: &'m [Certificate<&'m [u8]>],
    /// The certificates on the walk, as indices, with how many lie below: the signer's has 0.
    found: [(usize, usize); MAX_CERTIFICATES],
    len: usize,
    /// Why the first way that looked like one was none.
    obstacle: Option<SignatureError>,
    checks: usize,
}

impl<'k, 'm> Walk<'k, 'm> {
    pub(super) fn new(keys: &'k KeyStore, certificates: &'m [Certificate<&'m [u8]>]) -> Self {
        Self { keys, certificates, found: [(0, 0); MAX_CERTIFICATES], len: 0, obstacle: None, checks: 0 }
    }

    /// Walks up from the certificate with this index.
    ///
    /// # Errors
    /// [`SignatureError::Revoked`] and [`SignatureError::CertificateBlocked`] for whatever is met on any way.
    /// Otherwise, without a way to a trusted certificate: why the nearest way was none, or
    /// [`SignatureError::UntrustedSigner`].
    pub(super) fn from(mut self, signer: usize) -> Result<Anchor<'k>, SignatureError> {
        self.add(signer, 0)?;
        let mut next = 0;
        while next < self.len
            && let Some((index, below)) = self.found.get(next).copied()
            && let Some(certificate) = self.certificates.get(index)
        {
            next += 1;
            for (key, origin) in self.keys.trusted() {
                if certificate.names_issuer(&key.certificate) && self.signed(certificate, &key.certificate, below)? {
                    key.check_standing()?;
                    return Ok(Anchor { key, origin });
                }
            }
            for (above, issuer) in self.certificates.iter().enumerate() {
                if !self.has(above) && certificate.names_issuer(issuer) && self.signed(certificate, issuer, below)? {
                    if issuer.extensions().unknown_critical {
                        self.obstacle.get_or_insert(SignatureError::CriticalExtension);
                    } else if below >= MAX_INTERMEDIATES {
                        self.obstacle.get_or_insert(SignatureError::ChainTooLong);
                    } else {
                        self.add(above, below + 1)?;
                    }
                }
            }
        }
        Err(self.obstacle.unwrap_or(SignatureError::UntrustedSigner))
    }

    fn has(&self, index: usize) -> bool {
        self.found.iter().take(self.len).any(|(found, _)| *found == index)
    }

    /// Puts a certificate onto the walk.
    fn add(&mut self, index: usize, below: usize) -> Result<(), SignatureError> {
        if let Some(certificate) = self.certificates.get(index) {
            self.keys.check_not_revoked(certificate)?;
        }
        let place = self.found.get_mut(self.len).ok_or(SignatureError::ChainTooLong)?;
        *place = (index, below);
        self.len += 1;
        Ok(())
    }

    /// Whether `issuer`, which bears the right name, signed `certificate` and may have; `below` is how many
    /// certificates lie below the latter.
    fn signed<B: AsRef<[u8]>>(
        &mut self,
        certificate: &Certificate<&[u8]>,
        issuer: &Certificate<B>,
        below: usize,
    ) -> Result<bool, SignatureError> {
        self.checks += 1;
        if self.checks > MAX_CERTIFICATE_CHECKS {
            return Err(SignatureError::ChainTooLong);
        }
        let signed = issuer.public_key().and_then(|key| certificate.check_signed_by(&key));
        match signed.and_then(|()| issuer.check_authority(below)) {
            Ok(()) => Ok(true),
            // The root of a stranger who uses the same name is not a forgery.
            Err(SignatureError::CertificateSignature) if certificate.is_self_signed() => Ok(false),
            Err(error) => {
                self.obstacle.get_or_insert(error);
                Ok(false)
            }
        }
    }
}
