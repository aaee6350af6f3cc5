//! The policy: what a certificate must be to sign, to certify others and to be added.
//!
//! This is the only place where it is decided, for messages and for CopySecondaryKey alike; the book's page about trust
//! has it as a table. A certificate says itself what it may do, and those above it may have left it less: a [`Grant`] is
//! both together. Names, signatures and revocation are for the callers.

use crate::signature::{Certificate, SignatureError};

use super::store::Origin;
use super::verify::Purpose;

/// Where a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Built into VTL0's kernel.
    Anchor,
    /// Added later, or about to be.
    Secondary,
    /// Carried by a message, which trusts nobody.
    Carried,
}

impl From<Origin> for Place {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::System => Self::Anchor,
            Origin::Secondary => Self::Secondary,
        }
    }
}

/// What a certificate is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Sign a content.
    Sign(Purpose),
    /// Certify one of a message's certificates. `authorities` are those between itself and the signer; self-issued ones
    /// do not count (RFC 5280 §4.2.1.9).
    Certify { authorities: usize, purpose: Purpose },
    /// Certify a key that is to be trusted from now on; `authorities` is 1 if that is an authority itself, which counts.
    Vouch { authorities: usize },
    /// Be trusted from now on.
    Join,
}

/// What a certificate may do, by what it says itself and by what stands above it.
#[expect(clippy::struct_excessive_bools, reason = "each is a row of the table")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// It has no critical extension that is not understood.
    understood: bool,
    /// Its key usage has signatures of contents.
    signs: bool,
    /// Its key usage has signatures of certificates.
    certifies: bool,
    authority: bool,
    /// How many authorities may follow; `None` for any number.
    authorities: Option<u8>,
    /// Its extended key usage has code, and not modules only.
    images: bool,
}

impl Grant {
    /// What a certificate says itself. Where it does not say, it may.
    pub(super) fn of<B: AsRef<[u8]>>(certificate: &Certificate<B>) -> Self {
        let extensions = certificate.extensions();
        Self {
            understood: !extensions.unknown_critical,
            signs: extensions.usage.is_none_or(|usage| usage.digital_signature),
            certifies: extensions.usage.is_none_or(|usage| usage.certificate_signing),
            authority: extensions.authority.is_some(),
            authorities: extensions.authority.and_then(|authority| authority.path_length),
            images: extensions.extended.is_none_or(|usage| (usage.any || usage.code_signing) && !usage.modules_only),
        }
    }

    /// What is left of it under an issuer who [vouches](Task::Vouch) for it as for so many `authorities`.
    ///
    /// An issuer that is no authority itself makes none, whatever the certificate says.
    pub(super) fn under(self, issuer: Self, authorities: usize) -> Self {
        let taken = u8::try_from(authorities).unwrap_or(u8::MAX);
        let left = issuer.authorities.map(|most| most.saturating_sub(taken));
        Self {
            authority: self.authority && issuer.authority,
            authorities: [self.authorities, left].into_iter().flatten().min(),
            images: self.images && issuer.images,
            ..self
        }
    }

    /// Whether it is an authority that others know as one.
    pub(super) fn is_authority(self) -> bool {
        self.authority
    }

    /// Checks that a certificate with this grant, at this place, may do what it is to do.
    ///
    /// # Errors
    /// [`SignatureError::CriticalExtension`], [`SignatureError::KeyUsage`],
    /// [`SignatureError::NotCertificateAuthority`].
    pub(super) fn check(self, place: Place, task: Task) -> Result<(), SignatureError> {
        // Whoever built the kernel chose this key. But what the extension limits may be whom it certifies.
        let as_it_is = place == Place::Anchor && matches!(task, Task::Sign(_));
        if !self.understood && !as_it_is {
            return Err(SignatureError::CriticalExtension);
        }
        // Linux asks for no extended key usage of those that sign modules.
        let is_for = |purpose| purpose == Purpose::Module || self.images;
        match task {
            Task::Join => Ok(()),
            Task::Sign(purpose) if self.signs && is_for(purpose) => Ok(()),
            Task::Certify { authorities, .. } if !self.may_certify(authorities) => {
                Err(SignatureError::NotCertificateAuthority)
            }
            Task::Certify { purpose, .. } if is_for(purpose) => Ok(()),
            Task::Sign(_) | Task::Certify { .. } => Err(SignatureError::KeyUsage),
            // The kernel's build key is none, and administrators sign the keys that they add with it.
            Task::Vouch { .. } if place == Place::Anchor && !self.authority => Ok(()),
            Task::Vouch { authorities } if self.may_certify(authorities) => Ok(()),
            Task::Vouch { .. } => Err(SignatureError::NotCertificateAuthority),
        }
    }

    fn may_certify(self, authorities: usize) -> bool {
        let long_enough = self.authorities.is_none_or(|most| authorities <= usize::from(most));
        self.authority && self.certifies && long_enough
    }
}

/// How much a certificate adds to the authorities that those above it may have below them.
pub(super) fn authorities<B: AsRef<[u8]>>(certificate: &Certificate<B>) -> usize {
    let self_issued = certificate.issuer() == certificate.subject();
    usize::from(certificate.extensions().authority.is_some() && !self_issued)
}
