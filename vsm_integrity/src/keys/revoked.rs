//! What must not be trusted, whatever signed it: revoked certificates, and the blacklist's hashes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::blocklist::{Hashed, MAX_HASH_BYTES, MAX_RECORDS};
use crate::heap::{TryPush, with_room};
use crate::signature::algorithm::PublicKey;
use crate::signature::digest::{ContentDigests, DigestAlgorithm, DigestSet};
use crate::signature::marks::Marks;
use crate::signature::{Certificate, SignatureError};

/// The most certificates of the revocation list.
pub const MAX_REVOKED: usize = 256;
/// The most bytes of a revoked certificate that are kept. What could be trusted is shorter.
pub const MAX_REVOKED_BYTES: usize = 64 << 10;

/// The revocation list and the blacklist.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// As they came: each is read anew when it is asked for.
    certificates: Vec<Box<[u8]>>,
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
        let kept = der.get(..MAX_REVOKED_BYTES).unwrap_or(der);
        let out_of = SignatureError::out_of("the revoked certificates");
        let mut bytes = with_room(kept.len()).map_err(&out_of)?;
        bytes.extend_from_slice(kept);
        // The capacity is the length, so nothing is allocated for the box.
        self.certificates.try_push(bytes.into_boxed_slice()).map_err(out_of)
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
    /// public key (a certificate that was issued anew is as bad as the old one), or the one that signed it. Where a revoked
    /// certificate has the name of its issuer and nobody can tell whether it is, it counts as the one that signed it.
    pub(super) fn check<B: AsRef<[u8]>>(&self, certificate: &Certificate<B>) -> Result<(), SignatureError> {
        for revoked in &self.certificates {
            let marks = Marks::read(revoked);
            if **revoked == *certificate.raw() || same(&marks, certificate) || signed(&marks, certificate) {
                return Err(SignatureError::Revoked);
            }
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
fn same<B: AsRef<[u8]>>(revoked: &Marks<'_>, certificate: &Certificate<B>) -> bool {
    let same_id = revoked.key_id.is_some_and(|id| certificate.key_id() == Some(id));
    let same_number = revoked.has_number(certificate.issuer(), certificate.serial());
    same_number || same_id || revoked.has_key(certificate.public_key_info())
}

/// Whether the subject of `revoked` signed `certificate`, as far as anybody can tell.
fn signed<B: AsRef<[u8]>>(revoked: &Marks<'_>, certificate: &Certificate<B>) -> bool {
    if !revoked.subject.is_some_and(|subject| certificate.names(subject, revoked.key_id)) {
        return false;
    }
    // The key may be of a kind that VTL1 does not have, or unreadable, and so may the signature be.
    let key = revoked.key.map(|key| PublicKey::parse(key, 0));
    match key.unwrap_or(Err(SignatureError::Revoked)).and_then(|key| certificate.check_signed_by(&key)) {
        Ok(()) => true,
        Err(SignatureError::CertificateSignature) => false,
        // Another one of the same name signed it if it is of its own making.
        Err(_) => !certificate.is_self_signed(),
    }
}
