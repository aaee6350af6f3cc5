//! What LoadKData leaves behind: certificates, blocked hashes, and what VTL1 must know of VTL0's kernel.
//!
//! All of it is VTL1's own copy, parsed and bounded before it came here. VTL0's kernel said it during boot, when it
//! still was what the firmware measured; nothing changes it afterwards.

use alloc::vec::Vec;
use core::fmt;

use crate::error::VsmError;

use super::patches::PatchDataMap;
use super::symbols::SymbolTable;

/// What VTL0's kernel said about itself, in one LoadKData.
#[derive(Debug, Default)]
pub struct KernelData {
    /// The certificates built into the kernel: who may sign modules and kexec images. At least one.
    pub system_certificates: CertificateList,
    /// The certificates that must not be trusted, whoever signed them.
    pub revoked_certificates: CertificateList,
    /// The hashes of what must not be trusted.
    pub blocked_hashes: BlockedHashes,
    /// The symbols that modules may use.
    pub symbols: SymbolTable,
    /// The rest of `struct heki_kinfo`, after the export tables: paravirt operations and thunks.
    pub arch: Vec<u64>,
    /// The sites of the kernel's jump labels.
    pub patches: PatchDataMap,
    /// Frames of the kexec trampoline, which VTL0 can only read.
    pub trampoline_frames: u64,
}

/// Counts only; fits a log line.
impl fmt::Display for KernelData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} certificates, {} revoked, {} blocked hashes, {} symbols ({} GPL), {} patch sites, {} trampoline pages",
            self.system_certificates.len(),
            self.revoked_certificates.len(),
            self.blocked_hashes.len(),
            self.symbols.len(),
            self.symbols.gpl_count(),
            self.patches.len(),
            self.trampoline_frames
        )
    }
}

/// DER certificates, all in one buffer.
#[derive(Debug, Default)]
pub struct CertificateList {
    bytes: Vec<u8>,
    /// Where each certificate ends in `bytes`, ascending.
    ends: Vec<usize>,
}

impl CertificateList {
    /// A list of the certificates that `bytes` are a concatenation of; `lengths` are theirs.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`]; [`VsmError::InvalidParameter`] when the lengths do not add up to that of `bytes`.
    pub fn new(bytes: Vec<u8>, lengths: impl Iterator<Item = usize>) -> Result<Self, VsmError> {
        let mut ends: Vec<usize> = Vec::new();
        for length in lengths {
            ends.try_reserve(1).map_err(|_| VsmError::OutOfMemory("the certificates"))?;
            ends.push(ends.last().copied().unwrap_or_default().saturating_add(length));
        }
        if ends.last().copied().unwrap_or_default() != bytes.len() {
            return Err(VsmError::InvalidParameter { name: "certificates", value: bytes.len() as u64 });
        }
        Ok(Self { bytes, ends })
    }

    /// How many certificates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The certificates, in the order VTL0 sent them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |end| self.bytes.get(core::mem::replace(&mut start, *end)..*end))
    }
}

/// What a blocked hash is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashOf {
    /// The to-be-signed part of a certificate.
    Certificate,
    /// A whole file.
    Binary,
}

/// A hash of something that must not be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockedHash {
    of: HashOf,
    len: u8,
    bytes: [u8; Self::MAX_BYTES],
}

impl BlockedHash {
    /// The most bytes of a hash.
    pub const MAX_BYTES: usize = 64;

    /// The hash `bytes` of what `of` says.
    ///
    /// # Errors
    /// [`VsmError::InvalidParameter`] when there are no bytes, or more than [`Self::MAX_BYTES`].
    pub fn new(of: HashOf, hash: &[u8]) -> Result<Self, VsmError> {
        let invalid = VsmError::InvalidParameter { name: "hash", value: hash.len() as u64 };
        let len = u8::try_from(hash.len()).map_err(|_| invalid)?;
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.get_mut(..hash.len()).filter(|place| !place.is_empty()).ok_or(invalid)?.copy_from_slice(hash);
        Ok(Self { of, len, bytes })
    }

    /// What the hash is one of.
    #[must_use]
    pub const fn of(&self) -> HashOf {
        self.of
    }

    /// The hash.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The hashes of what must not be trusted.
#[derive(Debug, Default)]
pub struct BlockedHashes {
    hashes: Vec<BlockedHash>,
}

impl BlockedHashes {
    /// Adds a hash.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`].
    pub fn push(&mut self, hash: BlockedHash) -> Result<(), VsmError> {
        self.hashes.try_reserve(1).map_err(|_| VsmError::OutOfMemory("the blocked hashes"))?;
        self.hashes.push(hash);
        Ok(())
    }

    /// How many hashes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether `hash`, of what `of` says, is among them.
    #[must_use]
    pub fn contains(&self, of: HashOf, hash: &[u8]) -> bool {
        self.hashes.iter().any(|blocked| blocked.of == of && blocked.bytes() == hash)
    }

    /// All hashes, in the order VTL0 sent them.
    pub fn iter(&self) -> impl Iterator<Item = &BlockedHash> {
        self.hashes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_come_out_as_they_went_in() {
        let list = CertificateList::new(b"onethree".to_vec(), [3, 0, 5].into_iter()).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert!(CertificateList::new(b"one".to_vec(), [2].into_iter()).is_err());
        assert!(CertificateList::new(b"one".to_vec(), [2, 2].into_iter()).is_err());
        assert!(CertificateList::new(Vec::new(), [].into_iter()).unwrap().is_empty());
    }

    #[test]
    fn a_hash_blocks_what_it_is_one_of() {
        let mut hashes = BlockedHashes::default();
        hashes.push(BlockedHash::new(HashOf::Binary, &[1, 2, 3]).unwrap()).unwrap();
        assert!(hashes.contains(HashOf::Binary, &[1, 2, 3]));
        assert!(!hashes.contains(HashOf::Certificate, &[1, 2, 3]));
        assert!(!hashes.contains(HashOf::Binary, &[1, 2]) && !hashes.contains(HashOf::Binary, &[1, 2, 3, 0]));
        assert!(BlockedHash::new(HashOf::Binary, &[]).is_err() && BlockedHash::new(HashOf::Binary, &[0; 65]).is_err());
        assert!(BlockedHash::new(HashOf::Binary, &[0; 64]).is_ok());
    }
}
