//! Every accepted algorithm, every way to name a signer, and what each fault is called.

use vsm_integrity::blocklist::Hashed;
use vsm_integrity::signature::Unsupported;
use vsm_integrity::signature::{Digest, DigestAlgorithm};
use vsm_integrity::signature::{ErrorClass, SignatureError};

use crate::openssl::{Identity, SIGNER};
use crate::support::{CONTENT, PKI, blocking, builder, judge, module, trusting, verdict};

fn digest(algorithm: DigestAlgorithm) -> Digest {
    algorithm.digest(CONTENT)
}

#[test]
fn every_key_with_every_digest() {
    let openssl = &PKI.openssl;
    for kind in ["rsa:2048", "rsa:3072", "rsa:4096", "curve:P-256", "curve:P-384"] {
        let signer = openssl.certificate(&openssl.key(kind), kind, SIGNER, None);
        let keys = trusting(&[&PKI.root, &signer]);
        for md in ["sha256", "sha384", "sha512"] {
            for attributes in [&["-noattr"][..], &[]] {
                for name in [&[][..], &["-keyid"]] {
                    let arguments = [&["-md", md], attributes, name].concat();
                    let message = openssl.sign(CONTENT, &[&signer], &[], &arguments);
                    assert_eq!(judge(&keys, &message).as_deref(), Ok(kind), "{arguments:?}");
                    // The same over something else: an attribute says so, otherwise only the signature does.
                    let expected = if attributes.is_empty() {
                        SignatureError::DigestMismatch
                    } else {
                        SignatureError::BadSignature
                    };
                    let mut changed = CONTENT.to_vec();
                    changed[999] ^= 1;
                    assert_eq!(verdict(&keys, &module(&changed, &message)), Err(expected), "{arguments:?}");
                    let stranger = trusting(&[&PKI.root]);
                    assert_eq!(judge(&stranger, &message), Err(SignatureError::UntrustedSigner));
                }
            }
        }
    }
}

#[test]
fn a_signer_that_carries_its_certificate_is_not_trusted_for_that() {
    let alone = PKI.openssl.certificate(&PKI.curve[0], "alone", SIGNER, None);
    let message = PKI.openssl.sign(CONTENT, &[&alone], &[&alone], &["-noattr"]);
    assert_eq!(judge(&trusting(&[&alone]), &message).as_deref(), Ok("alone"));
    let refused = judge(&trusting(&[&PKI.root]), &message);
    assert_eq!(refused, Err(SignatureError::UntrustedSigner));
    assert_eq!(refused.unwrap_err().class(), ErrorClass::NoKey);
}

/// Two identities with one name and serial number and different keys.
fn twins() -> (Identity, Identity) {
    let make = |key| PKI.openssl.certificate_with(key, "twin", SIGNER, None, "77", &["-sha256"]);
    (make(&PKI.curve[0]), make(&PKI.curve[1]))
}

#[test]
fn another_key_under_the_same_name() {
    let (trusted, impostor) = twins();
    for arguments in [&["-noattr"][..], &[]] {
        let message = PKI.openssl.sign(CONTENT, &[&impostor], &[], arguments);
        assert_eq!(judge(&trusting(&[&trusted]), &message), Err(SignatureError::BadSignature));
        assert_eq!(SignatureError::BadSignature.class(), ErrorClass::Rejected);
        // Bringing the certificate along makes it another stranger.
        let message = PKI.openssl.sign(CONTENT, &[&impostor], &[&impostor], arguments);
        assert_eq!(judge(&trusting(&[&trusted]), &message), Err(SignatureError::UntrustedSigner));
        // Both are trusted: whichever signed is found.
        assert_eq!(judge(&trusting(&[&trusted, &impostor]), &message).as_deref(), Ok("twin"));
    }
}

#[test]
fn two_signers() {
    let openssl = &PKI.openssl;
    let known = openssl.certificate(&PKI.curve[0], "known", SIGNER, None);
    let unknown = openssl.certificate(&PKI.curve[1], "unknown", SIGNER, None);
    let (one, both) = (trusting(&[&known]), trusting(&[&known, &unknown]));
    for signers in [[&known, &unknown], [&unknown, &known]] {
        for attributes in [&["-noattr"][..], &[]] {
            let message = openssl.sign(CONTENT, &signers, &[], attributes);
            assert_eq!(judge(&one, &message).as_deref(), Ok("known"));
            assert!(judge(&both, &message).is_ok());
            assert_eq!(judge(&trusting(&[&PKI.root]), &message), Err(SignatureError::UntrustedSigner));
            // One who is revoked spoils it for both.
            let mut builder = builder(&[&known, &unknown]);
            builder.revoke(&unknown.der).unwrap();
            assert_eq!(judge(&builder.finish(), &message), Err(SignatureError::Revoked));
        }
    }
    // A wrong signature by a known signer spoils it as well.
    let (trusted, impostor) = twins();
    let message = openssl.sign(CONTENT, &[&known, &impostor], &[], &["-noattr"]);
    assert_eq!(judge(&trusting(&[&known, &trusted]), &message), Err(SignatureError::BadSignature));
    // As does one by a stranger whose certificate is in the message.
    let message = openssl.sign(CONTENT, &[&known, &impostor], &[&trusted], &["-noattr"]);
    assert_eq!(judge(&trusting(&[&known]), &message), Err(SignatureError::BadSignature));
    // A signer that is not understood does not count, and does not help.
    let odd = openssl.certificate(&openssl.key("curve:P-521"), "odd", SIGNER, None);
    let message = openssl.sign(CONTENT, &[&odd, &known], &[&odd], &["-noattr"]);
    assert_eq!(judge(&one, &message).as_deref(), Ok("known"));
    let refused = judge(&trusting(&[&PKI.root]), &message).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Unsupported);
}

#[test]
fn a_revoked_signer() {
    let signer = PKI.openssl.certificate(&PKI.curve[0], "revoked", SIGNER, Some(&PKI.root));
    // The same key with another number, under another name, and without a key id.
    let renewed = PKI.openssl.certificate(&PKI.curve[0], "renewed", "basicConstraints=CA:FALSE", Some(&PKI.root));
    let direct = PKI.openssl.sign(CONTENT, &[&signer], &[], &["-noattr"]);
    let carried = PKI.openssl.sign(CONTENT, &[&signer], &[&signer], &["-noattr"]);
    for (message, trusted) in [(&direct, &signer), (&carried, &PKI.root), (&carried, &signer)] {
        assert!(judge(&trusting(&[trusted]), message).is_ok());
        for revoked in [&signer, &renewed, &PKI.root] {
            let mut builder = builder(&[trusted]);
            builder.revoke(&revoked.der).unwrap();
            assert_eq!(judge(&builder.finish(), message), Err(SignatureError::Revoked));
        }
        let mut builder = builder(&[trusted]);
        builder.revoke(&PKI.openssl.certificate(&PKI.curve[1], "else", SIGNER, None).der).unwrap();
        assert!(judge(&builder.finish(), message).is_ok());
    }
    assert_eq!(SignatureError::Revoked.class(), ErrorClass::Rejected);
}

#[test]
fn a_certificate_whose_hash_is_blocked() {
    let signer = &PKI.signer;
    let direct = PKI.openssl.sign(CONTENT, &[signer], &[], &["-noattr"]);
    let carried = PKI.openssl.sign(CONTENT, &[signer], &[signer], &["-noattr"]);
    let parsed = vsm_integrity::signature::Certificate::parse(&signer.der[..]).unwrap();
    for algorithm in DigestAlgorithm::ALL {
        let hash = parsed.tbs_digest(algorithm);
        for (message, trusted) in [(&direct, signer), (&carried, &PKI.root)] {
            let keys = blocking(&[trusted], Hashed::Certificate, hash.as_bytes());
            assert_eq!(judge(&keys, message), Err(SignatureError::CertificateBlocked));
            // The hash of a certificate does not block a content, nor does half of it block anything.
            assert!(judge(&blocking(&[trusted], Hashed::Binary, hash.as_bytes()), message).is_ok());
            assert!(judge(&blocking(&[trusted], Hashed::Certificate, &hash.as_bytes()[..20]), message).is_ok());
        }
    }
}

#[test]
fn a_content_whose_hash_is_blocked() {
    let keys = |of, hash: &[u8]| blocking(&[&PKI.signer], of, hash);
    for md in ["sha256", "sha384", "sha512"] {
        for attributes in [&["-noattr"][..], &[]] {
            let arguments = [&["-md", md], attributes].concat();
            let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &arguments);
            for algorithm in DigestAlgorithm::ALL {
                let hash = digest(algorithm);
                // Whatever the signature was made with.
                let refused = judge(&keys(Hashed::Binary, hash.as_bytes()), &message);
                assert_eq!(refused, Err(SignatureError::ContentBlocked), "{md} {algorithm}");
                assert!(judge(&keys(Hashed::Certificate, hash.as_bytes()), &message).is_ok());
                let mut other = hash.as_bytes().to_vec();
                other[0] ^= 1;
                assert!(judge(&keys(Hashed::Binary, &other), &message).is_ok());
            }
        }
    }
}

#[test]
fn unsupported_digests() {
    for (md, name) in [("md5", "MD5"), ("sha1", "SHA-1"), ("sha224", "SHA-224"), ("sha3-256", "SHA3-256")] {
        for attributes in [&["-noattr"][..], &[]] {
            let arguments = [&["-md", md], attributes].concat();
            let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &arguments);
            let refused = judge(&trusting(&[&PKI.signer]), &message).unwrap_err();
            assert_eq!(refused, SignatureError::Unsupported(Unsupported::Digest(Some(name))));
            assert_eq!(refused.class(), ErrorClass::Unsupported);
        }
    }
}

#[test]
fn unsupported_signatures() {
    let arguments = ["-noattr", "-keyopt", "rsa_padding_mode:pss"];
    let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &arguments);
    let refused = judge(&trusting(&[&PKI.signer]), &message);
    assert_eq!(refused, Err(SignatureError::Unsupported(Unsupported::Signature(Some("RSA-PSS")))));
}

#[test]
fn a_message_with_its_content() {
    let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &["-noattr", "-nodetach"]);
    let refused = judge(&trusting(&[&PKI.signer]), &message).unwrap_err();
    // The command writes it without definite lengths; with them it is refused for what it is (see `hostile`).
    assert_eq!(refused.class(), ErrorClass::BadMessage);
}
