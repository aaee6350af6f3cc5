//! What the tests share: one set of keys, a module around a message, and the whole way of a module to its verdict.

use std::sync::{Arc, LazyLock};

use vsm_integrity::blocklist::Hashed;
use vsm_integrity::keys::{KeyStore, KeyStoreBuilder};
use vsm_integrity::signature::{CompressSha256, SignatureError, SignedMessage, trailer};

use crate::openssl::{AUTHORITY, Identity, Key, Openssl, SIGNER};

/// What is signed: more than one block of every hash.
pub const CONTENT: &[u8] = &[0x5a; 1000];

/// The keys that all tests use: making them takes a while.
pub struct Pki {
    pub openssl: Openssl,
    /// An authority with an RSA-2048 key.
    pub root: Identity,
    /// A signer that the authority has signed, with an RSA-2048 key.
    pub signer: Identity,
    /// Another key of the same kind.
    pub other: Key,
    /// Keys for tests that need many certificates.
    pub curve: [Key; 4],
}

pub static PKI: LazyLock<Arc<Pki>> = LazyLock::new(|| {
    let openssl = Openssl::new();
    let root = openssl.certificate(&openssl.key("rsa:2048"), "root", AUTHORITY, None);
    let signer = openssl.certificate(&openssl.key("rsa:2048"), "signer", SIGNER, Some(&root));
    let other = openssl.key("rsa:2048");
    let curve = core::array::from_fn(|_| openssl.key("curve:P-256"));
    Arc::new(Pki { openssl, root, signer, other, curve })
});

/// A store that trusts these.
pub fn trusting(certificates: &[&Identity]) -> KeyStore {
    builder(certificates).finish()
}

pub fn builder(certificates: &[&Identity]) -> KeyStoreBuilder {
    let mut builder = KeyStoreBuilder::new();
    for certificate in certificates {
        builder.trust(&certificate.der).expect("a certificate that can be trusted");
    }
    builder
}

/// A store that trusts `certificates`, and in which `hash` is blocked.
pub fn blocking(certificates: &[&Identity], of: Hashed, hash: &[u8]) -> KeyStore {
    let mut builder = builder(certificates);
    builder.block(of, hash).expect("a hash");
    builder.finish()
}

/// `content` with `message` behind it, as `sign-file` writes it.
pub fn module(content: &[u8], message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [content, message, &[0, 0, 2, 0, 0, 0, 0, 0], &length, trailer::MARKER].concat()
}

/// What a verdict says of the one who signed: the common name of the certificate that vouches.
pub fn verdict(keys: &KeyStore, file: &[u8]) -> Result<String, SignatureError> {
    verdict_with(keys, file, None)
}

/// As [`verdict`], hashing with `sha256`.
pub fn verdict_with(keys: &KeyStore, file: &[u8], sha256: Option<CompressSha256>) -> Result<String, SignatureError> {
    let tail = &file[file.len().saturating_sub(trailer::TAIL_BYTES)..];
    let layout = trailer::locate(file.len(), tail)?;
    let message = SignedMessage::parse(&file[layout.signature])?;
    let mut hasher = keys.content_hasher(&message, sha256)?;
    file[..layout.content].chunks(4096).for_each(|piece| hasher.update(piece));
    let verified = keys.verify_module(&message, &hasher.finish())?;
    Ok(verified.trusted.common_name().unwrap_or_default().to_owned())
}

/// The verdict on [`CONTENT`] with `message` behind it.
pub fn judge(keys: &KeyStore, message: &[u8]) -> Result<String, SignatureError> {
    verdict(keys, &module(CONTENT, message))
}
