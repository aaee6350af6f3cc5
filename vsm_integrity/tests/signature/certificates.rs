//! What may be in the key store, and how a certificate gets in later.

use vsm_integrity::keys::{Added, KeyStore, KeyStoreBuilder, MAX_REVOKED, MAX_SECONDARY, MAX_SYSTEM};
use vsm_integrity::signature::Unsupported;
use vsm_integrity::signature::certificate::MAX_CERTIFICATE_BYTES;
use vsm_integrity::signature::{Certificate, ErrorClass, SignatureError};

use crate::der::{Change, Node, element, reencodings};
use crate::openssl::{AUTHORITY, Identity, SIGNER};
use crate::support::{CONTENT, PKI, builder, judge, trusting};

fn trust(der: &[u8]) -> Result<(), SignatureError> {
    KeyStoreBuilder::new().trust(der)
}

#[test]
fn weak_and_odd_keys_are_not_trusted() {
    let openssl = &PKI.openssl;
    for (kind, expected) in [
        ("rsa:1024", SignatureError::WeakKey(1024)),
        ("rsa:2040", SignatureError::WeakKey(2040)),
        ("rsa:4104", SignatureError::Unsupported(Unsupported::RsaBits(4104))),
        ("curve:P-521", SignatureError::Unsupported(Unsupported::Curve(Some("P-521")))),
        ("curve:secp256k1", SignatureError::Unsupported(Unsupported::Curve(Some("secp256k1")))),
        ("curve:secp224r1", SignatureError::Unsupported(Unsupported::Curve(None))),
        ("ED25519", SignatureError::Unsupported(Unsupported::Key(Some("Ed25519")))),
        ("ED448", SignatureError::Unsupported(Unsupported::Key(Some("Ed448")))),
        ("RSA-PSS", SignatureError::Unsupported(Unsupported::Key(Some("RSA-PSS")))),
    ] {
        let arguments: &[&str] = if kind.starts_with("ED") { &[] } else { &["-sha256"] };
        let certificate = openssl.certificate_with(&openssl.key(kind), kind, SIGNER, None, "9", arguments);
        assert_eq!(trust(&certificate.der), Err(expected), "{kind}");
        // But such a certificate can be revoked.
        KeyStoreBuilder::new().revoke(&certificate.der).unwrap();
    }
}

#[test]
fn what_a_weak_key_signs_is_refused() {
    let openssl = &PKI.openssl;
    let weak = openssl.certificate(&openssl.key("rsa:1024"), "weak", SIGNER, Some(&PKI.root));
    let message = openssl.sign(CONTENT, &[&weak], &[&weak], &["-noattr"]);
    let refused = judge(&trusting(&[&PKI.root]), &message);
    assert_eq!(refused, Err(SignatureError::WeakKey(1024)));
}

#[test]
fn a_certificate_has_one_encoding_and_one_end() {
    let der = &PKI.signer.der;
    assert_eq!(trust(der), Ok(()));
    for length in 0..der.len() {
        assert_eq!(trust(&der[..length]).unwrap_err().class(), ErrorClass::BadMessage, "{length} bytes");
    }
    assert!(matches!(trust(&[der, &[0][..]].concat()), Err(SignatureError::Certificate(_))));
    assert!(matches!(trust(&[&der[..], der].concat()), Err(SignatureError::Certificate(_))));
    let others = reencodings(der);
    assert!(others.len() > 60, "{}", others.len());
    let mut unread = 0;
    for other in others {
        match trust(&other) {
            Err(SignatureError::Certificate(_)) => {}
            // Inside of names, and of extensions that are not asked for, nothing is read; a signature covers it.
            Ok(()) => unread += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(unread < 20, "{unread}");
    let long = element(0x30, &vec![0; MAX_CERTIFICATE_BYTES]);
    assert!(matches!(trust(&long), Err(SignatureError::TooLong { .. })));
}

/// The signer's certificate with changes, and a new signature by the authority.
fn signed_anew(change: impl FnOnce(&mut Node)) -> Identity {
    let mut certificate = Node::only(&PKI.signer.der);
    change(&mut certificate);
    let tbs = certificate.at(&[0]).write();
    let signature = PKI.openssl.raw_signature(&PKI.root.key, &tbs);
    let algorithm = certificate.at(&[1]).write();
    let bits = element(3, &[&[0][..], &signature].concat());
    let der = element(0x30, &[tbs, algorithm, bits].concat());
    Identity { der, ..PKI.signer.clone() }
}

fn bytes(tag: u8, content: &[u8]) -> Node {
    Node::only(&element(tag, content))
}

#[test]
fn fields_are_what_they_must_be() {
    assert_eq!(trust(&signed_anew(|_| ()).der), Ok(()));
    // Fields of the to-be-signed part: version, serial, algorithm, issuer, validity, subject, key, extensions.
    let broken: [(&str, Change); 14] = [
        ("version 1, 2 or 3", |c| *c.at(&[0, 0, 0]) = bytes(2, &[0])),
        ("version 1, 2 or 3", |c| *c.at(&[0, 0, 0]) = bytes(2, &[3])),
        ("extensions are of version 3", |c| *c.at(&[0, 0, 0]) = bytes(2, &[1])),
        ("shortest form", |c| *c.at(&[0, 1]) = bytes(2, &[0, 1])),
        ("shortest form", |c| *c.at(&[0, 1]) = bytes(2, &[])),
        ("two signature algorithms", |c| *c.at(&[0, 2]) = bytes(0x30, &[6, 1, 1])),
        ("an issuer", |c| c.at(&[0, 3]).tag = 0x31),
        ("two times", |c| drop(c.at(&[0, 4]).nodes().pop())),
        ("two times", |c| c.at(&[0, 4, 1]).tag = 4),
        ("unknown fields", |c| c.at(&[0]).nodes().push(bytes(5, &[]))),
        ("comes twice", |c| {
            let extensions = c.at(&[0, 7, 0]).nodes();
            extensions.push(extensions[0].clone());
        }),
        ("no extension", |c| c.at(&[0, 7, 0]).nodes().clear()),
        ("leaves out a default", |c| c.at(&[0, 7, 0, 0]).nodes()[1] = bytes(1, &[0])),
        ("neither 00 nor FF", |c| c.at(&[0, 7, 0, 0]).nodes()[1] = bytes(1, &[1])),
    ];
    for (rule, change) in broken {
        match trust(&signed_anew(change).der) {
            Err(SignatureError::Certificate(error)) => assert!(error.rule.contains(rule), "{rule}: {error}"),
            other => panic!("{rule}: {other:?}"),
        }
    }
}

#[test]
fn times_do_not_matter() {
    let expired = signed_anew(|certificate| {
        *certificate.at(&[0, 4, 0]) = bytes(0x17, b"990101000000Z");
        *certificate.at(&[0, 4, 1]) = bytes(0x17, b"000101000000Z");
    });
    let expired = PKI.openssl.adopt(&PKI.signer.key, expired.der);
    let message = PKI.openssl.sign(CONTENT, &[&expired], &[&expired], &["-noattr"]);
    assert_eq!(judge(&trusting(&[&PKI.root]), &message).as_deref(), Ok("root"));
    assert_eq!(judge(&trusting(&[&expired]), &message).as_deref(), Ok("signer"));
}

#[test]
fn a_secondary_certificate_needs_a_trusted_authority() {
    let openssl = &PKI.openssl;
    let mut keys = trusting(&[&PKI.root]);
    assert_eq!(keys.counts(), (1, 0));
    let message = openssl.sign(CONTENT, &[&PKI.signer], &[], &["-noattr"]);
    assert_eq!(judge(&keys, &message), Err(SignatureError::UntrustedSigner));
    assert_eq!(keys.add_secondary(&PKI.signer.der), Ok(Added::New));
    assert_eq!(judge(&keys, &message).as_deref(), Ok("signer"));
    // Again is fine, and takes no room; so is one that was built in.
    assert_eq!(keys.add_secondary(&PKI.signer.der), Ok(Added::Known));
    assert_eq!(keys.add_secondary(&PKI.root.der), Ok(Added::Known));
    assert_eq!(keys.counts(), (1, 1));

    let own = openssl.certificate(&PKI.curve[0], "own", AUTHORITY, None);
    let impostor = openssl.certificate(&PKI.other, "root", AUTHORITY, None);
    let no_id = "basicConstraints=CA:FALSE\nauthorityKeyIdentifier=none";
    let forged = openssl.certificate(&PKI.curve[0], "forged", no_id, Some(&impostor));
    let below = openssl.certificate(&PKI.curve[1], "below", SIGNER, Some(&PKI.signer));
    for (certificate, expected) in [
        (&own.der[..], SignatureError::UntrustedSigner),
        (&forged.der, SignatureError::CertificateSignature),
        (&below.der, SignatureError::NotCertificateAuthority),
    ] {
        assert_eq!(keys.add_secondary(certificate), Err(expected));
        assert_eq!(keys.counts(), (1, 1));
    }
    for end in 0..PKI.signer.der.len() {
        assert!(keys.add_secondary(&PKI.signer.der[..end]).is_err());
    }
    // An authority that was added can add others.
    let authority = openssl.certificate(&PKI.curve[1], "authority", AUTHORITY, Some(&PKI.root));
    let child = openssl.certificate(&PKI.curve[2], "child", SIGNER, Some(&authority));
    assert_eq!(keys.add_secondary(&child.der), Err(SignatureError::UntrustedSigner));
    assert_eq!(keys.add_secondary(&authority.der), Ok(Added::New));
    assert_eq!(keys.add_secondary(&child.der), Ok(Added::New));
    assert_eq!(keys.counts(), (1, 3));
}

/// As an administrator adds a key: signed by the kernel's build key, whose certificate says CA:FALSE (LVBS contract §11.6).
#[test]
fn the_kernels_own_key_vouches_though_it_is_no_authority() {
    let openssl = &PKI.openssl;
    let build = openssl.certificate(&PKI.curve[0], "build", SIGNER, None);
    let added = openssl.certificate(&PKI.curve[1], "added", SIGNER, Some(&build));
    let below = openssl.certificate(&PKI.curve[2], "below", SIGNER, Some(&added));
    let mut keys = trusting(&[&build]);
    assert_eq!(keys.add_secondary(&added.der), Ok(Added::NewByBuiltIn));
    assert_eq!(keys.add_secondary(&added.der), Ok(Added::Known));
    let message = openssl.sign(CONTENT, &[&added], &[], &["-noattr"]);
    assert_eq!(judge(&keys, &message).as_deref(), Ok("added"));
    // What was added so is for modules, not for more keys.
    assert_eq!(keys.add_secondary(&below.der), Err(SignatureError::NotCertificateAuthority));
    assert_eq!(keys.counts(), (1, 1));
    // And it falls with the key that signed it.
    let mut builder = builder(&[&build]);
    builder.revoke(&build.der).unwrap();
    assert_eq!(builder.finish().add_secondary(&added.der), Err(SignatureError::Revoked));
}

#[test]
fn a_secondary_certificate_that_is_revoked_or_whose_issuer_is() {
    for revoked in [&PKI.root, &PKI.signer] {
        let mut builder = builder(&[&PKI.root]);
        builder.revoke(&revoked.der).unwrap();
        let mut keys = builder.finish();
        assert_eq!(keys.add_secondary(&PKI.signer.der), Err(SignatureError::Revoked));
        assert_eq!(keys.counts(), (usize::from(revoked.der != PKI.root.der), 0));
    }
    let usage = "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature";
    let unfit = PKI.openssl.certificate(&PKI.curve[0], "unfit", usage, None);
    let child = PKI.openssl.certificate(&PKI.curve[1], "child", SIGNER, Some(&unfit));
    assert_eq!(trusting(&[&unfit]).add_secondary(&child.der), Err(SignatureError::NotCertificateAuthority));
    // The store before LoadKData trusts no certificate.
    assert_eq!(KeyStore::default().add_secondary(&PKI.root.der), Err(SignatureError::UntrustedSigner));
}

#[test]
fn the_store_is_bounded() {
    let mut builder = KeyStoreBuilder::new();
    for _ in 0..MAX_SYSTEM {
        builder.trust(&PKI.root.der).unwrap();
    }
    assert_eq!(builder.trust(&PKI.root.der), Err(SignatureError::Full("system certificates")));
    let unrelated = PKI.openssl.certificate(&PKI.curve[3], "unrelated", SIGNER, None);
    for _ in 0..MAX_REVOKED {
        builder.revoke(&unrelated.der).unwrap();
    }
    assert_eq!(builder.revoke(&unrelated.der), Err(SignatureError::Full("revoked certificates")));
    let mut keys = builder.finish();
    for number in 0..=MAX_SECONDARY {
        let certificate = signed_anew(|certificate| {
            let number = u8::try_from(number).unwrap();
            *certificate.at(&[0, 1]) = bytes(2, &[1, number]);
        });
        let expected =
            if number < MAX_SECONDARY { Ok(Added::New) } else { Err(SignatureError::Full("secondary certificates")) };
        assert_eq!(keys.add_secondary(&certificate.der), expected);
    }
    assert_eq!(keys.counts(), (MAX_SYSTEM, MAX_SECONDARY));
    assert_eq!(SignatureError::Full("").class(), ErrorClass::NoSpace);
}

#[test]
fn a_log_line_names_a_certificate() {
    let certificate = Certificate::parse(&PKI.signer.der[..]).unwrap();
    let shown = certificate.to_string();
    assert!(shown.starts_with("\"signer\", serial 01"), "{shown}");
    assert_eq!(certificate.to_owned().unwrap().to_string(), shown);
}
