//! What must not be trusted, whatever signed it: revoked certificates, and the blacklist's hashes.

use alloc::vec::Vec;

use crate::blocklist::{Hashed, MAX_HASH_BYTES, MAX_RECORDS};
use crate::heap::TryPush;
use crate::signature::digest::{ContentDigests, DigestAlgorithm, DigestSet};
use crate::signature::{Certificate, SignatureError};

/// The most certificates of the revocation list.
pub const MAX_REVOKED: usize = 256;

/// The revocation list and the blacklist.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    certificates: Vec<Certificate>,
    hashes: Vec<BlockedHash>,
}

#[derive(Clone, Copy, Debug)]
struct BlockedHash {
    of: Hashed,
    bytes: [u8; MAX_HASH_BYTES],
    len: u8,
}

impl BlockedHash {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Revoked {
    pub(super) fn add_certificate(&mut self, der: &[u8]) -> Result<(), SignatureError> {
        if self.certificates.len() >= MAX_REVOKED {
            return Err(SignatureError::Full("revoked certificates"));
        }
        let certificate = Certificate::parse(der)?.to_owned()?;
        self.certificates.try_push(certificate).map_err(SignatureError::out_of("the revoked certificates"))
    }

    pub(super) fn add_hash(&mut self, of: Hashed, hash: &[u8]) -> Result<(), SignatureError> {
        if self.hashes.len() >= MAX_RECORDS {
            return Err(SignatureError::Full("blocked hashes"));
        }
        let too_long = SignatureError::TooLong { what: "a blocked hash", bytes: hash.len(), most: MAX_HASH_BYTES };
        let mut bytes = [0; MAX_HASH_BYTES];
        bytes.get_mut(..hash.len()).ok_or(too_long)?.copy_from_slice(hash);
        let len = u8::try_from(hash.len()).map_err(|_| too_long)?;
        let hash = BlockedHash { of, bytes, len };
        self.hashes.try_push(hash).map_err(SignatureError::out_of("the blocked hashes"))
    }

    /// Checks that nothing speaks against `certificate`.
    ///
    /// It is revoked when the list has it, or one with its issuer and serial number, its subject key identifier or its
    /// public key (a certificate that was issued anew is as bad as the old one), or the one that signed it.
    pub(super) fn check<B: AsRef<[u8]>>(&self, certificate: &Certificate<B>) -> Result<(), SignatureError> {
        if self.certificates.iter().any(|revoked| same(revoked, certificate) || signed(revoked, certificate)) {
            return Err(SignatureError::Revoked);
        }
        for algorithm in self.lengths(Hashed::Certificate).iter() {
            if self.has(Hashed::Certificate, certificate.tbs_digest(algorithm).as_bytes()) {
                return Err(SignatureError::CertificateBlocked);
            }
        }
        Ok(())
    }

    /// Checks that no digest of a content is blocked.
    pub(super) fn check_content(&self, digests: &ContentDigests) -> Result<(), SignatureError> {
        if digests.iter().any(|digest| self.has(Hashed::Binary, digest.as_bytes())) {
            return Err(SignatureError::ContentBlocked);
        }
        Ok(())
    }

    /// The algorithms whose digests are as long as one of the blocked hashes.
    pub(super) fn lengths(&self, of: Hashed) -> DigestSet {
        let used = |algorithm: &DigestAlgorithm| {
            self.hashes.iter().any(|hash| hash.of == of && hash.bytes().len() == algorithm.bytes())
        };
        DigestAlgorithm::ALL.into_iter().filter(used).fold(DigestSet::default(), DigestSet::with)
    }

    fn has(&self, of: Hashed, digest: &[u8]) -> bool {
        self.hashes.iter().any(|hash| hash.of == of && hash.bytes() == digest)
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.certificates.len(), self.hashes.len())
    }
}

/// Whether `revoked` is `certificate`, or one of the same key or number.
fn same<B: AsRef<[u8]>>(revoked: &Certificate, certificate: &Certificate<B>) -> bool {
    let same_number = revoked.issuer() == certificate.issuer() && revoked.serial() == certificate.serial();
    let same_id = revoked.key_id().is_some_and(|id| certificate.key_id() == Some(id));
    same_number || same_id || revoked.public_key_info() == certificate.public_key_info()
}

/// Whether the subject of `revoked` signed `certificate`.
fn signed<B: AsRef<[u8]>>(revoked: &Certificate, certificate: &Certificate<B>) -> bool {
    certificate.names_issuer(revoked) && revoked.public_key().is_ok_and(|key| certificate.check_signed_by(&key).is_ok())
}
