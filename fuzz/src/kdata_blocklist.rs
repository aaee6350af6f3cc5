//! Target: the records of the blacklist keyring, and the list of hashes that VTL1 keeps of them.

use litebox_platform_lvbs::vtl0::{BlockedHash, BlockedHashes, HashOf};
use vsm_integrity::blocklist::{Hashed, MAX_RECORDS, RECORD_BYTES, records};

/// What a hash is one of, and its bytes.
type Hash = (Hashed, Vec<u8>);

/// # Panics
/// When a rule is broken: the hashes are exactly those of the model, in their order; an error names the first record that
/// breaks a rule, and only such a one; the list that VTL1 keeps blocks those hashes.
pub fn run(data: &[u8]) {
    let (expected, sound) = model(data);
    let taken: Vec<_> = records(data).collect();
    assert_eq!(taken, records(data).collect::<Vec<_>>(), "the same bytes read twice");
    let hashes: Vec<Hash> =
        taken.iter().map_while(|item| item.as_ref().ok()).map(|hash| (hash.of, hash.bytes().to_vec())).collect();
    assert_eq!(hashes, expected);
    match &taken[hashes.len()..] {
        [] => assert_eq!(sound, data.len(), "a record that breaks a rule is taken"),
        [Err(error)] => assert!(error.offset == sound && sound < data.len(), "{error}, not {sound:#x}"),
        rest => panic!("something follows an error: {rest:?}"),
    }

    let mut kept = BlockedHashes::default();
    for (of, bytes) in &hashes {
        let hash = BlockedHash::new(kind(*of), bytes).expect("a hash that the parser takes");
        kept.push(hash).expect("memory");
    }
    assert_eq!(kept.len(), hashes.len());
    for (of, bytes) in &hashes {
        assert!(kept.contains(kind(*of), bytes), "{bytes:x?} is not blocked");
        let other = if *of == Hashed::Certificate { Hashed::Binary } else { Hashed::Certificate };
        assert_eq!(kept.contains(kind(other), bytes), hashes.contains(&(other, bytes.clone())), "{bytes:x?}");
        let shorter = &bytes[1..];
        assert_eq!(kept.contains(kind(*of), shorter), hashes.contains(&(*of, shorter.to_vec())), "{shorter:x?}");
    }
}

fn kind(of: Hashed) -> HashOf {
    match of {
        Hashed::Certificate => HashOf::Certificate,
        Hashed::Binary => HashOf::Binary,
    }
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
