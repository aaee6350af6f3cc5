//! Certificates between the signer's and a trusted one.

use vsm_integrity::keys::MAX_INTERMEDIATES;
use vsm_integrity::signature::{ErrorClass, SignatureError};

use crate::openssl::{AUTHORITY, Identity, Key, SIGNER};
use crate::support::{CONTENT, PKI, builder, judge, trusting};

fn certificate(key: &Key, name: &str, extensions: &str, issuer: &Identity) -> Identity {
    PKI.openssl.certificate(key, name, extensions, Some(issuer))
}

/// A signature by `signer`, with `carried` along.
fn signed(signer: &Identity, carried: &[&Identity]) -> Vec<u8> {
    PKI.openssl.sign(CONTENT, &[signer], carried, &["-noattr"])
}

fn under_root(signer: &Identity, carried: &[&Identity]) -> Result<String, SignatureError> {
    judge(&trusting(&[&PKI.root]), &signed(signer, carried))
}

#[test]
fn intermediates_lead_to_a_trusted_certificate() {
    let first = certificate(&PKI.curve[0], "first", AUTHORITY, &PKI.root);
    let second = certificate(&PKI.curve[1], "second", AUTHORITY, &first);
    let leaf = certificate(&PKI.curve[2], "leaf", SIGNER, &second);
    let all = [&leaf, &second, &first];
    assert_eq!(under_root(&leaf, &all).as_deref(), Ok("root"));
    // The order is of no account, and others do no harm. What is trusted further down ends the chain there.
    assert!(under_root(&leaf, &[&first, &PKI.signer, &leaf, &PKI.root, &second]).is_ok());
    assert_eq!(judge(&trusting(&[&PKI.root, &second]), &signed(&leaf, &all)).as_deref(), Ok("second"));
    assert_eq!(judge(&trusting(&[&PKI.root, &leaf]), &signed(&leaf, &all)).as_deref(), Ok("leaf"));
    // A link is missing.
    for missing in 0..3 {
        let mut some = all.to_vec();
        some.remove(missing);
        assert_eq!(under_root(&leaf, &some), Err(SignatureError::UntrustedSigner));
    }
    // The root in the message is no reason to trust it.
    let other = PKI.openssl.certificate(&PKI.curve[3], "other", SIGNER, None);
    let message = signed(&leaf, &[&leaf, &second, &first, &PKI.root]);
    assert_eq!(judge(&trusting(&[&other]), &message), Err(SignatureError::UntrustedSigner));
    // Each of them can be revoked.
    for revoked in [&leaf, &second, &first, &PKI.root] {
        let mut builder = builder(&[&PKI.root]);
        builder.revoke(&revoked.der).unwrap();
        assert_eq!(judge(&builder.finish(), &signed(&leaf, &all)), Err(SignatureError::Revoked));
    }
    // A revoked intermediate is so also where a certificate further down is trusted.
    let mut builder = builder(&[&second]);
    builder.revoke(&first.der).unwrap();
    assert_eq!(judge(&builder.finish(), &signed(&leaf, &all)), Err(SignatureError::Revoked));
}

#[test]
fn only_an_authority_signs_certificates() {
    for extensions in [
        SIGNER,
        "subjectKeyIdentifier=hash",
        "basicConstraints=CA:FALSE\nkeyUsage=keyCertSign",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature",
    ] {
        let middle = certificate(&PKI.curve[0], "middle", extensions, &PKI.root);
        let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
        let refused = under_root(&leaf, &[&leaf, &middle]);
        assert_eq!(refused, Err(SignatureError::NotCertificateAuthority), "{extensions}");
        // Nor does it when it is trusted itself: it is trusted to sign content.
        let refused = judge(&trusting(&[&middle]), &signed(&leaf, &[&leaf]));
        assert_eq!(refused, Err(SignatureError::NotCertificateAuthority), "{extensions}");
    }
    assert_eq!(SignatureError::NotCertificateAuthority.class(), ErrorClass::Rejected);
}

#[test]
fn path_lengths_are_kept() {
    for (limit, ok) in [(0, false), (1, true), (2, true)] {
        let extensions = format!("basicConstraints=critical,CA:TRUE,pathlen:{limit}");
        let root = PKI.openssl.certificate(&PKI.curve[3], "limited", &extensions, None);
        let middle = certificate(&PKI.curve[0], "middle", AUTHORITY, &root);
        let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
        let direct = certificate(&PKI.curve[2], "direct", SIGNER, &root);
        let keys = trusting(&[&root]);
        assert!(judge(&keys, &signed(&direct, &[&direct])).is_ok());
        let found = judge(&keys, &signed(&leaf, &[&leaf, &middle]));
        assert_eq!(found.is_ok(), ok, "{limit}");
        assert!(ok || found == Err(SignatureError::NotCertificateAuthority));
    }
}

#[test]
fn a_certificate_that_its_issuer_did_not_sign() {
    // Same name and, for the second, same key id as the real one.
    let impostor = PKI.openssl.certificate(&PKI.curve[3], "root", AUTHORITY, None);
    let plain = "basicConstraints=critical,CA:TRUE\nauthorityKeyIdentifier=none";
    let middle = certificate(&PKI.curve[0], "middle", plain, &impostor);
    let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
    assert_eq!(under_root(&leaf, &[&leaf, &middle]), Err(SignatureError::CertificateSignature));
    // With key ids the impostor is not even the one that is named.
    let middle = certificate(&PKI.curve[0], "middle", AUTHORITY, &impostor);
    let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
    assert_eq!(under_root(&leaf, &[&leaf, &middle]), Err(SignatureError::UntrustedSigner));
    // Any bit of an intermediate certificate counts.
    let middle = certificate(&PKI.curve[0], "middle", AUTHORITY, &PKI.root);
    let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
    let message = signed(&leaf, &[&leaf, &middle]);
    let keys = trusting(&[&PKI.root]);
    assert!(judge(&keys, &message).is_ok());
    let at = message.windows(middle.der.len()).position(|part| part == middle.der).unwrap();
    for bit in 0..middle.der.len() * 8 {
        let mut changed = message.clone();
        changed[at + bit / 8] ^= 1 << (bit % 8);
        let refused = judge(&keys, &changed);
        assert!(refused.is_err(), "bit {bit} of an intermediate certificate does not count");
    }
}

#[test]
fn signers_have_usages() {
    for (usage, ok) in [
        ("digitalSignature", true),
        ("digitalSignature,keyCertSign", true),
        ("nonRepudiation", false),
        ("keyCertSign,cRLSign", false),
        ("keyEncipherment", false),
    ] {
        let signer = certificate(&PKI.curve[0], "usage", &format!("keyUsage={usage}"), &PKI.root);
        let expected = |name: &str| if ok { Ok(name.to_owned()) } else { Err(SignatureError::KeyUsage) };
        assert_eq!(judge(&trusting(&[&signer]), &signed(&signer, &[])), expected("usage"), "{usage}");
        assert_eq!(under_root(&signer, &[&signer]), expected("root"), "{usage}");
    }
    assert_eq!(SignatureError::KeyUsage.class(), ErrorClass::Rejected);
}

#[test]
fn critical_extensions_must_be_understood() {
    let unknown = format!("{AUTHORITY}\nnameConstraints=critical,permitted;DNS:example.org");
    let middle = certificate(&PKI.curve[0], "middle", &unknown, &PKI.root);
    let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
    assert_eq!(under_root(&leaf, &[&leaf, &middle]), Err(SignatureError::CriticalExtension));
    // One that was built in signs as it is, but certifies nobody: whom it may, the extension may say.
    assert_eq!(judge(&trusting(&[&middle]), &signed(&leaf, &[&leaf])), Err(SignatureError::CriticalExtension));
    let harmless = format!("{AUTHORITY}\nnameConstraints=permitted;DNS:example.org");
    let middle = certificate(&PKI.curve[0], "middle", &harmless, &PKI.root);
    let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &middle);
    assert!(under_root(&leaf, &[&leaf, &middle]).is_ok());
}

/// A chain of `intermediates` certificates below the root, signer first.
fn chain(intermediates: usize) -> Vec<Identity> {
    let mut chain = vec![PKI.root.clone()];
    for number in 0..intermediates {
        let key = &PKI.curve[number % 4];
        let next = certificate(key, &format!("link {number}"), AUTHORITY, &chain[0]);
        chain.insert(0, next);
    }
    let leaf = certificate(&PKI.other, "leaf", SIGNER, &chain[0]);
    chain.insert(0, leaf);
    chain.pop();
    chain
}

#[test]
fn chains_are_bounded() {
    for (intermediates, ok) in [(1, true), (MAX_INTERMEDIATES, true), (MAX_INTERMEDIATES + 1, false)] {
        let chain = chain(intermediates);
        let carried: Vec<&Identity> = chain.iter().collect();
        let found = under_root(&chain[0], &carried);
        assert_eq!(found.is_ok(), ok, "{intermediates} intermediates");
        assert!(ok || found == Err(SignatureError::ChainTooLong), "{found:?}");
    }
    assert_eq!(SignatureError::ChainTooLong.class(), ErrorClass::Rejected);
}

#[test]
fn cycles_end() {
    // Two authorities that have signed each other, and no trusted certificate has signed either.
    let first = PKI.openssl.certificate(&PKI.curve[0], "first", AUTHORITY, None);
    let second = certificate(&PKI.curve[1], "second", AUTHORITY, &first);
    let first_again = certificate(&PKI.curve[0], "first", AUTHORITY, &second);
    let leaf = certificate(&PKI.curve[2], "leaf", SIGNER, &first);
    let carried = [&leaf, &first, &second, &first_again];
    assert_eq!(under_root(&leaf, &carried), Err(SignatureError::UntrustedSigner));
    // A third way leads out.
    let way_out = certificate(&PKI.curve[1], "second", AUTHORITY, &PKI.root);
    assert!(under_root(&leaf, &[&leaf, &first, &second, &first_again, &way_out]).is_ok());
}

#[test]
fn many_authorities_of_one_name_cost_a_bounded_time() {
    // Every one of these could be everyone's issuer.
    let plain = "basicConstraints=critical,CA:TRUE\nauthorityKeyIdentifier=none";
    let own = PKI.openssl.certificate(&PKI.curve[0], "same", plain, None);
    let all: Vec<Identity> = (0..14).map(|_| certificate(&PKI.curve[0], "same", plain, &own)).collect();
    let leaf = certificate(&PKI.curve[1], "leaf", SIGNER, &own);
    let mut carried: Vec<&Identity> = all.iter().collect();
    carried.push(&leaf);
    let refused = under_root(&leaf, &carried).unwrap_err();
    assert!(matches!(refused, SignatureError::ChainTooLong | SignatureError::UntrustedSigner), "{refused}");
}
