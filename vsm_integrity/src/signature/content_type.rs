//! What a signed message may sign (RFC 5652 §5.2, `eContentType`).

use der::asn1::ObjectIdentifier;

/// `id-data` (RFC 5652 §4).
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// `SPC_INDIRECT_DATA_OBJID` (Windows Authenticode Portable Executable Signature Format).
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");

/// What a message signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Bytes of any kind: a kernel module.
    Data,
    /// A description of a PE file.
    IndirectData,
}

impl ContentType {
    pub(crate) fn from_oid(oid: &[u8]) -> Option<Self> {
        match oid {
            oid if oid == DATA.as_bytes() => Some(Self::Data),
            oid if oid == INDIRECT_DATA.as_bytes() => Some(Self::IndirectData),
            _ => None,
        }
    }
}
