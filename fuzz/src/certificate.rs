//! Target: certificates of any bytes, and what becomes of them in a key store.

use vsm_integrity::der::sequences;
use vsm_integrity::keys::{Added, KeyStore, KeyStoreBuilder};
use vsm_integrity::signature::certificate::MAX_CERTIFICATE_BYTES;
use vsm_integrity::signature::marks::Marks;
use vsm_integrity::signature::{Certificate, DigestAlgorithm, ErrorClass};

use crate::fixtures::{AUTHORITY, OTHER, SIGNER};
use crate::input::Input;
use crate::tampered;

const CERTIFICATES: [&[u8]; 3] = [AUTHORITY, SIGNER, OTHER];

/// # Panics
/// When a rule is broken: a certificate is one DER element and made of the bytes that came; its parts are in it; it can be
/// trusted exactly when it can be parsed and its key is good; it is added later only if the authority has signed these very
/// bytes; a revoked key is not trusted; any bytes can be revoked, and revoke only what they are about; of a certificate all
/// marks are read; what is refused changes nothing.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (which, how) = (usize::from(input.byte()) % CERTIFICATES.len(), input.below(4));
    let der = match how {
        0 => CERTIFICATES[which].to_vec(),
        1 => tampered::bytes(&mut input, CERTIFICATES[which]),
        2 => tampered::elements(&mut input, CERTIFICATES[which]),
        _ => input.bytes(usize::MAX).to_vec(),
    };
    let parsed = Certificate::parse(&der[..]);
    if let Ok(certificate) = &parsed {
        check_parts(certificate, &der);
    }
    let sound = parsed.as_ref().map_or_else(|error| Err(*error), |one| one.check_key().map(|()| one));
    let mut builder = KeyStoreBuilder::new();
    let trusted = builder.trust(&der);
    assert_eq!(trusted, sound.map(|_| ()), "trusted and sound are not the same");
    assert_eq!(builder.finish().counts(), (usize::from(trusted.is_ok()), 0));
    check_added(&der);
    check_revoked(&der, trusted.is_ok());
}

fn check_parts(certificate: &Certificate<&[u8]>, der: &[u8]) {
    assert_eq!(certificate.raw(), der);
    assert!(der.len() <= MAX_CERTIFICATE_BYTES);
    assert_eq!(sequences(der).collect::<Vec<_>>(), [Ok(der)], "a certificate is one element");
    let within = |part: &[u8], whole: &[u8]| {
        let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
        whole.start <= part.start && part.end <= whole.end
    };
    let tbs = certificate.tbs();
    assert!(within(tbs, der));
    let parts = [certificate.serial(), certificate.issuer(), certificate.subject(), certificate.public_key_info()];
    let optional = [certificate.key_id(), certificate.issuer_key_id(), certificate.common_name().map(str::as_bytes)];
    for part in parts.into_iter().chain(optional.into_iter().flatten()) {
        assert!(within(part, tbs), "a part of the certificate is not in it");
    }
    let owned = certificate.to_owned().expect("memory");
    assert_eq!((owned.raw(), owned.tbs(), owned.to_string()), (der, tbs, certificate.to_string()));
    for algorithm in [DigestAlgorithm::Sha256, DigestAlgorithm::Sha384, DigestAlgorithm::Sha512] {
        assert_eq!(certificate.tbs_digest(algorithm), algorithm.digest(tbs));
    }
}

/// A store that trusts the authority takes what the authority has signed, twice, and nothing else.
fn check_added(der: &[u8]) {
    let mut keys = trusting(AUTHORITY);
    let expected =
        if der == AUTHORITY { Some(Added::Known) } else { (der == SIGNER || der == OTHER).then_some(Added::New) };
    let added = keys.add_secondary(der);
    assert_eq!(added.ok(), expected, "{added:?}");
    let again = keys.add_secondary(der);
    assert_eq!(again.ok(), expected.map(|_| Added::Known), "{again:?}, the second time");
    assert_eq!(keys.counts(), (1, usize::from(expected == Some(Added::New))));
    // Nothing here is signed by that one.
    let mut keys = trusting(SIGNER);
    let added = keys.add_secondary(der);
    assert_eq!(added.ok(), (der == SIGNER).then_some(Added::Known), "{added:?}");
    assert_eq!(keys.counts(), (1, 0));
    assert!(KeyStore::default().add_secondary(der).is_err());
}

fn check_revoked(der: &[u8], sound: bool) {
    let mut builder = KeyStoreBuilder::new();
    builder.revoke(der).expect("any bytes can be revoked");
    assert!(!Marks::read(der).to_string().is_empty());
    assert_eq!(builder.trust(der).is_ok(), sound);
    let mut keys = builder.finish();
    assert_eq!(keys.counts(), (0, 0), "revoked, and trusted");
    assert_eq!(keys.revoked_counts(), (1, 0));
    if sound {
        assert_eq!(keys.add_secondary(der).map_err(|error| error.class()), Err(ErrorClass::Rejected));
    }
    if let Ok(certificate) = Certificate::parse(der) {
        check_marks(&certificate);
    }
    // Of one of ours: the others are as they were. Of another: so they are, if nothing by which a certificate is known is
    // in it.
    let mut keys = KeyStoreBuilder::new();
    keys.trust(AUTHORITY).expect("the authority");
    keys.revoke(der).expect("any bytes can be revoked");
    let revoked = keys.finish().add_secondary(OTHER).is_err();
    if der == AUTHORITY || der == OTHER {
        assert!(revoked, "the certificate, or its issuer, is revoked");
    } else if der == SIGNER || !(has_mark_of(der, AUTHORITY) || has_mark_of(der, OTHER)) {
        assert!(!revoked, "revoked by another one: {der:02x?}");
    }
}

/// Of a certificate that can be parsed, all is read, and it is the same.
fn check_marks(certificate: &Certificate<&[u8]>) {
    let marks = Marks::read(certificate.raw());
    assert_eq!(marks.issuer, Some(certificate.issuer()));
    assert_eq!(marks.serial, Some(certificate.serial()));
    assert_eq!(marks.subject, Some(certificate.subject()));
    assert_eq!(marks.key, Some(certificate.public_key_info()));
    assert_eq!(marks.key_id, certificate.key_id());
}

/// Whether `bytes` have something of this certificate by which it is known.
fn has_mark_of(bytes: &[u8], der: &[u8]) -> bool {
    let certificate = Certificate::parse(der).expect("one of ours");
    let key = certificate.public_key_info();
    // Of a point its first coordinate: what is before it says of which curve it is.
    let marks = [Some(certificate.issuer()), certificate.key_id(), Some(&key[key.len() - 64..key.len() - 32])];
    marks.into_iter().flatten().any(|mark| bytes.windows(mark.len()).any(|window| window == mark))
}

fn trusting(certificate: &[u8]) -> KeyStore {
    let mut builder = KeyStoreBuilder::new();
    builder.trust(certificate).expect("a certificate that can be trusted");
    builder.finish()
}

/// Each certificate as it is, tampered with in both ways, and as bytes.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (which, der) in (0u8..).zip(CERTIFICATES) {
        all.push(vec![which, 0]);
        all.push([&[which, 1][..], &[0, 1, 3, 40, 0]].concat());
        for how in 0u8..7 {
            all.push([&[which, 2][..], &[0, how, 0, 7, 0, 0, 0xff, 0xff, 0xff, 1]].concat());
        }
        all.push([&[which, 3][..], der].concat());
    }
    all
}
