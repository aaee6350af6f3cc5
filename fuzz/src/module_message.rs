//! Target: PKCS#7 messages, made by OpenSSL and then tampered with, and what they are worth to a key store.

use std::sync::LazyLock;

use vsm_integrity::blocklist::Hashed;
use vsm_integrity::keys::{KeyStore, KeyStoreBuilder};
use vsm_integrity::signature::{DigestAlgorithm, SignatureError, SignedMessage};

use crate::fixtures::{AUTHORITY, CHAIN, CONTENT, KEY_ID, OTHER, PLAIN, SIGNER};
use crate::input::Input;
use crate::tampered;

/// The messages.
const MESSAGES: [&[u8]; 3] = [PLAIN, KEY_ID, CHAIN];
/// As many bytes from the end of a message are the end of its signature.
const SIGNATURE: usize = 48;

/// The key store that needs the certificate in the third message.
const AUTHORITY_ONLY: usize = 1;

/// Key stores, and which of the messages hold by them.
static STORES: LazyLock<Vec<(KeyStore, [bool; 3])>> = LazyLock::new(|| {
    let store = |trusted: &[&[u8]], revoked: &[&[u8]]| {
        let mut builder = KeyStoreBuilder::new();
        for der in trusted {
            builder.trust(der).expect("a certificate that can be trusted");
        }
        for der in revoked {
            builder.revoke(der).expect("a certificate that can be revoked");
        }
        builder
    };
    let mut blocked = store(&[AUTHORITY, SIGNER, OTHER], &[]);
    blocked.block(Hashed::Binary, DigestAlgorithm::Sha256.digest(CONTENT).as_bytes()).expect("a hash");
    vec![
        (store(&[AUTHORITY, SIGNER, OTHER], &[]).finish(), [true; 3]),
        (store(&[AUTHORITY], &[]).finish(), [false, false, true]),
        (store(&[SIGNER], &[]).finish(), [true, false, false]),
        (store(&[OTHER], &[]).finish(), [false, true, true]),
        (store(&[AUTHORITY, SIGNER, OTHER], &[OTHER]).finish(), [true, false, false]),
        (store(&[AUTHORITY, SIGNER], &[AUTHORITY]).finish(), [false; 3]),
        (blocked.finish(), [false; 3]),
        (KeyStore::default(), [false; 3]),
    ]
});

/// # Panics
/// When a rule is broken: a message that was not tampered with holds exactly where its signer is trusted, for the content
/// that was signed; one with bytes changed only where they
/// are an unneeded certificate; one with elements added, removed or exchanged, or of any bytes, only
/// for the signed content and with the signature in it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (which, how) = (usize::from(input.byte()) % MESSAGES.len(), input.below(4));
    let store = usize::from(input.byte()) % STORES.len();
    let (keys, trusted) = &STORES[store];
    let mut content = CONTENT.to_vec();
    let spoil = usize::try_from(input.short()).unwrap_or_default();
    if let Some(byte) = content.get_mut(spoil) {
        *byte ^= 1;
    }
    let original = MESSAGES[which];
    let message = match how {
        0 => original.to_vec(),
        1 => tampered::bytes(&mut input, original),
        2 => tampered::elements(&mut input, original),
        _ => input.bytes(usize::MAX).to_vec(),
    };
    let verdict = judge(keys, &message, &content);
    if message == original {
        assert_eq!(verdict.is_ok(), trusted[which] && content == CONTENT, "message {which}: {verdict:?}");
        return;
    }
    if verdict.is_ok() {
        assert_eq!(content, CONTENT, "another content");
        let unused = which == 2 && store != AUTHORITY_ONLY && is_unused(&message);
        assert!(how != 1 || unused, "message {which} with other bytes: {message:02x?}");
        let signed = MESSAGES.iter().any(|original| {
            let signature = &original[original.len() - SIGNATURE..];
            message.windows(SIGNATURE).any(|window| window == signature)
        });
        assert!(signed, "this was never signed: {message:02x?}");
    }
}

/// Whether no more of the third message has changed than the certificate in it, which is not needed once the signer is trusted.
fn is_unused(message: &[u8]) -> bool {
    let start = CHAIN.windows(OTHER.len()).position(|window| window == OTHER).expect("the signer's certificate");
    message.starts_with(&CHAIN[..start]) && message.ends_with(&CHAIN[start + OTHER.len()..])
}

/// The whole way of a message to its verdict: who vouches for it.
fn judge(keys: &KeyStore, message: &[u8], content: &[u8]) -> Result<String, SignatureError> {
    let judged = (|| {
        let message = SignedMessage::parse(message)?;
        for certificate in message.certificates() {
            assert!(!certificate.to_string().is_empty());
        }
        let mut hasher = keys.content_hasher(&message, None)?;
        content.chunks(100).for_each(|piece| hasher.update(piece));
        Ok(keys.verify_module(&message, &hasher.finish())?.trusted.to_string())
    })();
    if let Err(error) = &judged {
        let error: &SignatureError = error;
        assert!(!error.to_string().is_empty());
        let _ = error.class();
    }
    judged
}

/// Each message as it is, tampered with in both ways, and as bytes.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (which, message) in (0u8..).zip(MESSAGES) {
        for store in 0u8..8 {
            all.push(vec![which, 0, store, 0xff, 0xff]);
        }
        all.push(vec![which, 0, 0, 7, 0]);
        all.push([&[which, 1, 0, 0xff, 0xff][..], &[0, 1, 3, 40, 0]].concat());
        for how in 0u8..7 {
            all.push([&[which, 2, 0, 0xff, 0xff][..], &[0, how, 1, 0, 3, 0, 0xff, 0xff, 0xff, 1]].concat());
        }
        all.push([&[which, 3, 0, 0xff, 0xff][..], message].concat());
    }
    all
}
