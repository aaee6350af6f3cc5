//! From a signer to a trusted certificate, over the certificates that a message carries.

use crate::signature::message::MAX_CERTIFICATES;
use crate::signature::{Certificate, SignatureError};

use super::KeyStore;
use super::policy::{Grant, Place, Task, authorities};
use super::store::{Origin, TrustedKey};
use super::verify::Purpose;

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

/// A certificate on the walk.
#[derive(Clone, Copy, Default)]
struct Step {
    index: usize,
    /// How many certificates lie below: the signer's has 0.
    below: usize,
    /// How many of those, and of itself, count against the path length of whoever is above; the signer does not.
    authorities: usize,
    done: bool,
}

/// A walk from a certificate up to those that are trusted.
///
/// A certificate gets onto the walk only by having signed one that is on it, and once at most, so that a cycle ends. The
/// next to be looked at is one with the fewest authorities so far: no other way to it, or over it, would be good for a path
/// length that this one is not good for.
pub(super) struct Walk<'k, 'm> {
    keys: &'k KeyStore,
    certificates: &'m [Certificate<&'m [u8]>],
    purpose: Purpose,
    steps: [Step; MAX_CERTIFICATES],
    len: usize,
    /// Why the first way that looked like one was none.
    obstacle: Option<SignatureError>,
    checks: usize,
}

impl<'k, 'm> Walk<'k, 'm> {
    pub(super) fn new(keys: &'k KeyStore, certificates: &'m [Certificate<&'m [u8]>], purpose: Purpose) -> Self {
        let steps = [Step::default(); MAX_CERTIFICATES];
        Self { keys, certificates, purpose, steps, len: 0, obstacle: None, checks: 0 }
    }

    /// Walks up from the certificate with this index.
    ///
    /// # Errors
    /// [`SignatureError::Revoked`] and [`SignatureError::CertificateBlocked`] for whatever is met on any way.
    /// Otherwise, without a way to a trusted certificate: why the nearest way was none, or
    /// [`SignatureError::UntrustedSigner`].
    pub(super) fn from(mut self, signer: usize) -> Result<Anchor<'k>, SignatureError> {
        self.add(Step { index: signer, ..Step::default() })?;
        while let Some(step) = self.next() {
            let Some(certificate) = self.certificates.get(step.index) else { continue };
            for (key, origin) in self.keys.trusted() {
                if certificate.names_issuer(&key.certificate)
                    && self.signed(certificate, &key.certificate, key.grant, origin.into(), step)?
                {
                    key.check_standing()?;
                    return Ok(Anchor { key, origin });
                }
            }
            for (index, issuer) in self.certificates.iter().enumerate() {
                if !self.has(index)
                    && certificate.names_issuer(issuer)
                    && self.signed(certificate, issuer, Grant::of(issuer), Place::Carried, step)?
                {
                    if step.below >= MAX_INTERMEDIATES {
                        self.obstacle.get_or_insert(SignatureError::ChainTooLong);
                    } else {
                        let authorities = step.authorities + authorities(issuer);
                        self.add(Step { index, below: step.below + 1, authorities, done: false })?;
                    }
                }
            }
        }
        Err(self.obstacle.unwrap_or(SignatureError::UntrustedSigner))
    }

    fn has(&self, index: usize) -> bool {
        self.steps.iter().take(self.len).any(|step| step.index == index)
    }

    /// The next certificate to be looked at.
    fn next(&mut self) -> Option<Step> {
        let waiting = self.steps.iter_mut().take(self.len).filter(|step| !step.done);
        let next = waiting.min_by_key(|step| (step.authorities, step.below))?;
        next.done = true;
        Some(*next)
    }

    /// Puts a certificate onto the walk.
    fn add(&mut self, step: Step) -> Result<(), SignatureError> {
        if let Some(certificate) = self.certificates.get(step.index) {
            self.keys.check_not_revoked(certificate)?;
        }
        *self.steps.get_mut(self.len).ok_or(SignatureError::ChainTooLong)? = step;
        self.len += 1;
        Ok(())
    }

    /// Whether `issuer`, which bears the right name, signed `certificate`, which is this step, and may have.
    fn signed<B: AsRef<[u8]>>(
        &mut self,
        certificate: &Certificate<&[u8]>,
        issuer: &Certificate<B>,
        grant: Grant,
        place: Place,
        step: Step,
    ) -> Result<bool, SignatureError> {
        self.checks += 1;
        if self.checks > MAX_CERTIFICATE_CHECKS {
            return Err(SignatureError::ChainTooLong);
        }
        let signed = issuer.public_key().and_then(|key| certificate.check_signed_by(&key));
        let task = Task::Certify { authorities: step.authorities, purpose: self.purpose };
        match signed.and_then(|()| grant.check(place, task)) {
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
