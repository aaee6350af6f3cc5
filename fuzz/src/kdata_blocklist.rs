//! Target: the records of the blacklist keyring, and how many of the hashes the key store keeps.

use vsm_integrity::blocklist::{Hashed, MAX_RECORDS, RECORD_BYTES, records};
use vsm_integrity::keys::KeyStoreBuilder;

/// What a hash is one of, and its bytes.
type Hash = (Hashed, Vec<u8>);

/// # Panics
/// When a rule is broken: the hashes are exactly those of the model, in their order; an error names the first record that
/// breaks a rule, and only such a one; the key store takes all of them.
pub fn run(data: &[u8]) {
    let (expected, sound) = model(data);
    let taken: Vec<_> = records(data).collect();
    assert_eq!(taken, records(data).collect::<Vec<_>>(), "the same bytes read twice");
    let hashes: Vec<Hash> =
        taken.iter().map_while(|item| item.as_ref().ok()).map(|hash| (hash.of, hash.bytes().to_vec())).collect();
    assert_eq!(hashes, expected);
    match &taken[hashes.len()..] {
        [] => assert_eq!(sound, data.len().min(MAX_RECORDS * RECORD_BYTES), "a record that breaks a rule is taken"),
        [Err(error)] => assert!(error.offset == sound && sound < data.len(), "{error}, not {sound:#x}"),
        rest => panic!("something follows an error: {rest:?}"),
    }

    let mut keys = KeyStoreBuilder::new();
    for (of, bytes) in &hashes {
        keys.block(*of, bytes).expect("a hash that the parser takes");
    }
    let (certificates, blocked) = keys.finish().revoked_counts();
    assert_eq!(certificates, 0);
    assert!(blocked <= hashes.len() && (blocked > 0) != hashes.is_empty(), "{blocked} of {} are kept", hashes.len());
}

/// The hashes of the records that `data` begin with, up to the first that breaks a rule, and where that is.
fn model(data: &[u8]) -> (Vec<Hash>, usize) {
    let mut hashes = Vec::new();
    let mut sound = 0;
    for record in data.chunks(RECORD_BYTES).take(MAX_RECORDS) {
        match hash(record) {
            Ok(hash) => hashes.extend(hash),
            Err(Broken) => break,
        }
        sound += record.len();
    }
    (hashes, sound)
}

/// A record breaks a rule.
struct Broken;

/// A sound record's hash, if it is of a known kind.
fn hash(record: &[u8]) -> Result<Option<Hash>, Broken> {
    let end = record.iter().position(|byte| *byte == 0).filter(|_| record.len() == RECORD_BYTES).ok_or(Broken)?;
    let (of, digits) = match &record[..end] {
        [b't', b'b', b's', b':', digits @ ..] => (Hashed::Certificate, digits),
        [b'b', b'i', b'n', b':', digits @ ..] => (Hashed::Binary, digits),
        _ => return Ok(None),
    };
    let sound = digits.iter().all(u8::is_ascii_hexdigit) && digits.len().is_multiple_of(2);
    let digits = std::str::from_utf8(digits).ok().filter(|_| sound && (2..=128).contains(&digits.len()));
    let digits = digits.ok_or(Broken)?;
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| Broken);
    Ok(Some((of, (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>()?)))
}

/// Records of both kinds, an unknown one, a long one, and broken ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let record = |text: &str| {
        let mut record = text.as_bytes().to_vec();
        record.resize(RECORD_BYTES, 0);
        record
    };
    let long = record(&format!("bin:{}", "0aF9".repeat(32)));
    vec![
        record("tbs:00ff"),
        [record("bin:12"), record("xyz:1"), long].concat(),
        [record("tbs:0123456789abcdef"), record("tbs:0g")].concat(),
        [record("bin:aa"), record("tbs:123")].concat(),
        vec![b'b'; RECORD_BYTES],
    ]
}
