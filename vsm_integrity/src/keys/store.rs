//! The certificates that are trusted, and how they came to be.

use alloc::vec::Vec;

use crate::blocklist::Hashed;
use crate::heap::TryPush;
use crate::signature::algorithm::check_heap;
use crate::signature::digest::{CompressSha256, ContentHasher};
use crate::signature::{Certificate, SignatureError, SignedMessage};

use super::policy::{Grant, Place, Task, authorities};
use super::revoked::Revoked;

/// The most certificates that are built into the kernel.
pub const MAX_SYSTEM: usize = 256;
/// The most certificates that may be added later.
pub const MAX_SECONDARY: usize = 64;

/// Where a trusted certificate came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Built into VTL0's kernel.
    System,
    /// Added later, signed by a trusted certificate.
    Secondary,
}

/// A certificate that is trusted, unless it is revoked.
#[derive(Debug)]
pub(super) struct TrustedKey {
    pub(super) certificate: Certificate,
    /// What it may do. Of one that was added: what those above it have left to it.
    pub(super) grant: Grant,
    /// What speaks against it. The certificate is kept all the same: what it signed is then refused as revoked, not as
    /// signed by a stranger.
    against: Option<SignatureError>,
}

impl TrustedKey {
    pub(super) fn check_standing(&self) -> Result<(), SignatureError> {
        self.against.map_or(Ok(()), Err)
    }
}

/// What became of a certificate that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is trusted from now on: an authority has signed it.
    New,
    /// It is trusted from now on: a key of VTL0's kernel has signed it that is no authority, as its build key is not.
    NewByBuiltIn,
    /// It was trusted already.
    Known,
}

/// Collects what a [`KeyStore`] is made of.
///
/// Every method changes nothing when it fails, so that the caller may go on without the certificate, or give up.
#[derive(Debug, Default)]
pub struct KeyStoreBuilder {
    system: Vec<TrustedKey>,
    revoked: Revoked,
}

impl KeyStoreBuilder {
    /// Nothing is trusted, nothing is revoked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts a certificate that is built into VTL0's kernel; `der` is all of it.
    ///
    /// # Errors
    /// [`SignatureError::Full`] beyond [`MAX_SYSTEM`]; those of [`Certificate::parse`] and [`Certificate::check_key`].
    /// For [`SignatureError::Unsupported`] and for weak keys, Linux prints a warning and goes on without it.
    pub fn trust(&mut self, der: &[u8]) -> Result<(), SignatureError> {
        if self.system.len() >= MAX_SYSTEM {
            return Err(SignatureError::Full("system certificates"));
        }
        check_heap()?;
        let certificate = Certificate::parse(der)?;
        certificate.check_key()?;
        let grant = Grant::of(&certificate);
        let key = TrustedKey { certificate: certificate.to_owned()?, grant, against: None };
        self.system.try_push(key).map_err(SignatureError::out_of("the certificates"))
    }

    /// Revokes a certificate; `der` is all of it. It need not be one that could be trusted: whatever its encoding and its
    /// key are, it counts by its bytes and by [what can be read of it](crate::signature::marks::Marks).
    ///
    /// # Errors
    /// [`SignatureError::Full`] beyond [`MAX_REVOKED`](super::MAX_REVOKED); [`SignatureError::OutOfMemory`]. To go on
    /// without it would be to trust it.
    pub fn revoke(&mut self, der: &[u8]) -> Result<(), SignatureError> {
        self.revoked.add_certificate(der)
    }

    /// Blocks what has this hash: a record of VTL0's blacklist.
    ///
    /// A hash is compared by its bytes, so that its length says how it was made: 32, 48 or 64 bytes. Hashes of other
    /// lengths are kept, and fit nothing that could have been accepted.
    ///
    /// # Errors
    /// [`SignatureError::Full`] beyond [`MAX_RECORDS`](crate::blocklist::MAX_RECORDS); [`SignatureError::TooLong`].
    pub fn block(&mut self, of: Hashed, hash: &[u8]) -> Result<(), SignatureError> {
        self.revoked.add_hash(of, hash)
    }

    /// The store. What is revoked or blocked is so from the start, in whatever order it came.
    #[must_use]
    pub fn finish(self) -> KeyStore {
        let Self { mut system, revoked } = self;
        for key in &mut system {
            key.against = revoked.check(&key.certificate).err();
        }
        KeyStore { system, secondary: Vec::new(), revoked }
    }
}

/// Who may sign: the certificates of VTL0's kernel, those added since, and what is revoked.
///
/// At most 256 + 64 + 256 certificates of 8 KiB; a distribution's kernel has a handful of about 1.5 KiB.
#[derive(Debug, Default)]
pub struct KeyStore {
    system: Vec<TrustedKey>,
    secondary: Vec<TrustedKey>,
    revoked: Revoked,
}

impl KeyStore {
    /// Adds a certificate that a trusted one has signed: the payload of CopySecondaryKey.
    ///
    /// The signer must be a certificate of this store that is not revoked, and may not have been left less than it needs by
    /// what is above it: what this certificate may do later is bounded in the same way. One that is built into VTL0's kernel
    /// and says that it is no authority (RFC 5280 §4.2.1.9) may vouch all the same: it is the kernel's build key, with which
    /// administrators sign the keys that they add. Linux takes such a key, whoever holds the build key can sign any module
    /// anyway, and revoking it revokes what it has signed; but no authority comes of it. One that was added later must be an
    /// authority that may sign certificates, so that a vendor's key for modules does not make more keys. A certificate that
    /// is trusted already changes nothing.
    ///
    /// # Errors
    /// Those of [`Certificate::parse`] and [`Certificate::check_key`]; [`SignatureError::UntrustedSigner`] when no
    /// trusted certificate bears its issuer's name; [`SignatureError::CertificateSignature`],
    /// [`SignatureError::NotCertificateAuthority`], [`SignatureError::CriticalExtension`] for its own and its issuer's,
    /// [`SignatureError::Revoked`], [`SignatureError::CertificateBlocked`]; [`SignatureError::Full`] beyond
    /// [`MAX_SECONDARY`]. Nothing has changed then.
    pub fn add_secondary(&mut self, der: &[u8]) -> Result<Added, SignatureError> {
        check_heap()?;
        let certificate = Certificate::parse(der)?;
        certificate.check_key()?;
        self.revoked.check(&certificate)?;
        if self.trusted().any(|(key, _)| key.certificate.raw() == der) {
            return Ok(Added::Known);
        }
        let (grant, added) = self.granted(&certificate)?;
        if self.secondary.len() >= MAX_SECONDARY {
            return Err(SignatureError::Full("secondary certificates"));
        }
        let key = TrustedKey { certificate: certificate.to_owned()?, grant, against: None };
        self.secondary.try_push(key).map_err(SignatureError::out_of("the certificates"))?;
        Ok(added)
    }

    /// What a certificate may do that somebody signed who is trusted and may vouch for it: the first of them counts.
    fn granted(&self, certificate: &Certificate<&[u8]>) -> Result<(Grant, Added), SignatureError> {
        let own = Grant::of(certificate);
        own.check(Place::Secondary, Task::Join)?;
        let authorities = authorities(certificate);
        let mut obstacle = None;
        for (key, origin) in self.trusted().filter(|(key, _)| certificate.names_issuer(&key.certificate)) {
            let signed = key.certificate.public_key().and_then(|key| certificate.check_signed_by(&key));
            let may_vouch = || {
                key.check_standing()?;
                key.grant.check(origin.into(), Task::Vouch { authorities })
            };
            match signed.and_then(|()| may_vouch()) {
                Ok(()) => {
                    let added = if key.grant.is_authority() { Added::New } else { Added::NewByBuiltIn };
                    return Ok((own.under(key.grant, authorities), added));
                }
                Err(error) => obstacle = obstacle.or(Some(error)),
            }
        }
        Err(obstacle.unwrap_or(SignatureError::UntrustedSigner))
    }

    /// A hash of the content of `message`, with all algorithms that checking it will need: those of its signers, and
    /// those of the blocked hashes. See [`Hasher::new`](crate::signature::digest::Hasher::new) for `sha256`.
    ///
    /// # Errors
    /// [`SignatureError::Unsupported`] when there is no signer whose algorithms are supported.
    pub fn content_hasher(
        &self,
        message: &SignedMessage<'_>,
        sha256: Option<CompressSha256>,
    ) -> Result<ContentHasher, SignatureError> {
        let mut set = message.digests()?;
        for algorithm in self.revoked.lengths(Hashed::Binary).iter() {
            set = set.with(algorithm);
        }
        Ok(ContentHasher::new(set, sha256))
    }

    /// The certificates that are trusted, or were before they were revoked.
    pub(super) fn trusted(&self) -> impl Iterator<Item = (&TrustedKey, Origin)> {
        let system = self.system.iter().map(|key| (key, Origin::System));
        system.chain(self.secondary.iter().map(|key| (key, Origin::Secondary)))
    }

    pub(super) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    pub(super) fn check_not_revoked<B: AsRef<[u8]>>(&self, certificate: &Certificate<B>) -> Result<(), SignatureError> {
        self.revoked.check(certificate)
    }

    /// How many certificates are trusted and not revoked: built in, and added.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let usable = |keys: &[TrustedKey]| keys.iter().filter(|key| key.against.is_none()).count();
        (usable(&self.system), usable(&self.secondary))
    }

    /// How many certificates are revoked, and how many hashes are blocked.
    #[must_use]
    pub fn revoked_counts(&self) -> (usize, usize) {
        self.revoked.counts()
    }
}
