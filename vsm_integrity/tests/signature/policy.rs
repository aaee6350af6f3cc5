//! The policy, cell by cell: each rule at each place where a certificate may stand, by a message and by CopySecondaryKey.
//! A test is a row of the table in the book's page about trust. The paths are those of NIST's PKITS, sections 4.1, 4.5 to 4.7
//! and 4.16, where those are about rules that VTL1 has.

use vsm_integrity::blocklist::Hashed;
use vsm_integrity::keys::{Added, KeyStore, KeyStoreBuilder};
use vsm_integrity::signature::SignatureError::{
    self, CertificateBlocked, CertificateSignature, CriticalExtension, KeyUsage, NotCertificateAuthority, Revoked,
    Unsupported, UntrustedSigner,
};
use vsm_integrity::signature::{Certificate, DigestAlgorithm, ErrorClass};

use crate::der::{Node, element};
use crate::openssl::Identity;
use crate::pe::{Image, PE_IMAGE, description, entry, judge_image, message};
use crate::support::{CONTENT, PKI, judge, trusting};

/// Name and extensions.
type Link<'a> = (&'a str, &'a str);
type Verdict = Result<(), SignatureError>;

const CA: &str = "basicConstraints=critical,CA:TRUE";
const CA0: &str = "basicConstraints=critical,CA:TRUE,pathlen:0";
const CA1: &str = "basicConstraints=critical,CA:TRUE,pathlen:1";
const LEAF: &str = "basicConstraints=critical,CA:FALSE";
const UNKNOWN: &str = "basicConstraints=critical,CA:TRUE\n1.2.3.4=critical,DER:05:00";
const UNKNOWN_LEAF: &str = "basicConstraints=critical,CA:FALSE\n1.2.3.4=critical,DER:05:00";
const MODULES_ONLY: &str = "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=1.3.6.1.4.1.2312.16.1.2";
const OTHER_USE: &str = "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=serverAuth";
const FOR_CODE: &str = "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=codeSigning";
const SIGNS: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature";
const CERTIFIES: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign";

/// Certificates of which each has signed the next; the first has signed itself.
fn path(links: &[Link<'_>]) -> Vec<Identity> {
    let mut path: Vec<Identity> = Vec::new();
    for (number, (name, extensions)) in links.iter().enumerate() {
        let ids = if number == 0 { "" } else { "\nauthorityKeyIdentifier=keyid" };
        let extensions = format!("{extensions}\nsubjectKeyIdentifier=hash{ids}");
        path.push(PKI.openssl.certificate(&PKI.curve[number % 4], name, &extensions, path.last()));
    }
    path
}

/// A module signed by the last of a path, with all but the first in the message; `keys` trust whom they trust.
fn module_by(keys: &KeyStore, path: &[Identity]) -> Verdict {
    let carried: Vec<&Identity> = path.iter().skip(1).collect();
    judge(keys, &PKI.openssl.sign(CONTENT, &[path.last().unwrap()], &carried, &["-noattr"])).map(drop)
}

/// The same of a kernel image.
fn image_by(keys: &KeyStore, path: &[Identity]) -> Verdict {
    let image = Image::new(true, &[(512, 64)], 0);
    let described = description(&PE_IMAGE, &image.hash());
    let carried: Vec<&Identity> = path.iter().skip(1).collect();
    let signature = message(&PKI.openssl, path.last().unwrap(), &carried, &described, &described);
    judge_image(keys, &image.with_table(&[entry(&signature)]), 4096).map(drop)
}

/// The first of the path is built in, the last signs a module, those between are in the message.
fn carried(links: &[Link<'_>]) -> Verdict {
    let path = path(links);
    module_by(&trusting(&[&path[0]]), &path)
}

/// The first is built in, all others are added, one after the other; what became of the last.
fn added(links: &[Link<'_>]) -> Result<Added, SignatureError> {
    let path = path(links);
    add_all(&path).1
}

fn add_all(path: &[Identity]) -> (KeyStore, Result<Added, SignatureError>) {
    let mut keys = trusting(&[&path[0]]);
    let mut last = Ok(Added::Known);
    for one in &path[1..] {
        last = keys.add_secondary(&one.der);
    }
    (keys, last)
}

/// The first is built in, the second added; the last signs a module with all others in the message.
fn under_secondary(links: &[Link<'_>]) -> Verdict {
    let path = path(links);
    let (keys, taken) = add_all(&path[..2]);
    taken.unwrap_or_else(|error| panic!("{links:?}: {error}"));
    module_by(&keys, &path[1..])
}

#[test]
fn the_flag_of_an_authority() {
    // Anchor: it signs whatever it is; it must be one to certify in a message, and need not be one to vouch.
    for flag in [CA, LEAF, ""] {
        assert_eq!(carried(&[("anchor", flag)]), Ok(()));
    }
    for flag in [LEAF, ""] {
        assert_eq!(carried(&[("anchor", flag), ("signer", LEAF)]), Err(NotCertificateAuthority));
        assert_eq!(added(&[("anchor", flag), ("key", LEAF)]), Ok(Added::NewByBuiltIn));
        // Of what it vouches for comes no authority.
        let taken = [("anchor", flag), ("key", CA)];
        assert_eq!(added(&taken), Ok(Added::NewByBuiltIn));
        assert_eq!(under_secondary(&taken), Ok(()));
        assert_eq!(under_secondary(&[taken[0], taken[1], ("signer", LEAF)]), Err(NotCertificateAuthority));
        assert_eq!(added(&[taken[0], taken[1], ("below", LEAF)]), Err(NotCertificateAuthority));
        // Intermediate and secondary: they must be one for both.
        let links = [("anchor", CA), ("middle", flag), ("signer", LEAF)];
        assert_eq!(carried(&links), Err(NotCertificateAuthority));
        assert_eq!(under_secondary(&links), Err(NotCertificateAuthority));
        assert_eq!(added(&links), Err(NotCertificateAuthority));
    }
    let links = [("anchor", CA), ("middle", CA), ("signer", LEAF)];
    assert_eq!((carried(&links), under_secondary(&links), added(&links)), (Ok(()), Ok(()), Ok(Added::New)));
    // Signer: either.
    assert_eq!(carried(&[("anchor", CA), ("signer", CA)]), Ok(()));
}

#[test]
fn path_lengths() {
    for (anchor, middle, ok) in [(CA0, CA, false), (CA1, CA, true), (CA1, CA0, true), (CA0, CA1, false)] {
        let links = [("anchor", anchor), ("middle", middle), ("signer", LEAF)];
        assert_eq!(carried(&links), if ok { Ok(()) } else { Err(NotCertificateAuthority) }, "{links:?}");
        // The same at enrolment, and nothing comes of a key that is refused there.
        let whom = [&links[..2], &links[..]];
        let expected = if ok { [Ok(Added::New); 2] } else { [Err(NotCertificateAuthority), Err(UntrustedSigner)] };
        assert_eq!(whom.map(added), expected, "{links:?}");
    }
    // Intermediate: two of them below one that allows one, and one that allows none.
    for (first, second, ok) in [(CA0, CA, false), (CA1, CA, true), (CA1, CA0, true)] {
        let links = [("anchor", CA), ("first", first), ("second", second), ("signer", LEAF)];
        let refused = Err(NotCertificateAuthority);
        assert_eq!(carried(&links), if ok { Ok(()) } else { refused }, "{links:?}");
        assert_eq!(under_secondary(&links), if ok { Ok(()) } else { refused }, "{links:?}");
        assert_eq!(added(&links[..3]).is_ok(), ok, "{links:?}");
    }
    // A signer is not counted, whatever it says of itself.
    assert_eq!(carried(&[("anchor", CA0), ("signer", CA)]), Ok(()));
    assert_eq!(added(&[("anchor", CA0), ("key", LEAF)]), Ok(Added::New));
    // Secondary: what those above it have left goes down with it, and its own may only be less.
    for (anchor, own) in [(CA1, CA), (CA1, CA1), (CA, CA0)] {
        let links = [("anchor", anchor), ("added", own), ("middle", CA), ("signer", LEAF)];
        assert_eq!(under_secondary(&links[..2]), Ok(()));
        assert_eq!(under_secondary(&[links[0], links[1], links[3]]), Ok(()));
        assert_eq!(under_secondary(&links), Err(NotCertificateAuthority), "{links:?}");
        assert_eq!(added(&[links[0], links[1], links[3]]), Ok(Added::New));
        assert_eq!(added(&links[..3]), Err(NotCertificateAuthority), "{links:?}");
    }
}

#[test]
fn self_issued_certificates_do_not_count() {
    // A key roll-over under the anchor's own name, and under an intermediate's.
    for links in [
        &[("anchor", CA0), ("anchor", CA), ("signer", LEAF)][..],
        &[("anchor", CA1), ("middle", CA0), ("middle", CA0), ("signer", LEAF)],
        &[("anchor", CA1), ("anchor", CA1), ("middle", CA), ("signer", LEAF)],
    ] {
        assert_eq!(carried(links), Ok(()), "{links:?}");
        assert_eq!(under_secondary(links), Ok(()), "{links:?}");
        assert_eq!(added(links), Ok(Added::New), "{links:?}");
    }
    // They keep their own limit, and what is below them counts.
    for links in [
        &[("anchor", CA0), ("anchor", CA), ("middle", CA), ("signer", LEAF)][..],
        &[("anchor", CA), ("anchor", CA0), ("middle", CA), ("signer", LEAF)],
        &[("anchor", CA1), ("middle", CA), ("middle", CA), ("below", CA), ("signer", LEAF)],
    ] {
        assert_eq!(carried(links), Err(NotCertificateAuthority), "{links:?}");
        assert!(added(&links[..links.len() - 1]).is_err(), "{links:?}");
    }
    // As a signer it is a signer.
    assert_eq!(carried(&[("anchor", CA0), ("anchor", LEAF)]), Ok(()));
    // Two ways lead to one authority, and that which fewer of count on is found, whichever comes first.
    let openssl = &PKI.openssl;
    let ids = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
    let make = |key, name: &str, flag: &str, issuer| openssl.certificate(key, name, &format!("{flag}\n{ids}"), issuer);
    let anchor = make(&PKI.curve[0], "anchor", "basicConstraints=critical,CA:TRUE,pathlen:2", None);
    let shared = make(&PKI.curve[1], "shared", CA, Some(&anchor));
    let middle = make(&PKI.curve[2], "middle", CA, Some(&shared));
    let counted = make(&PKI.curve[3], "last", CA, Some(&middle));
    let old = make(&PKI.other, "last", CA, Some(&shared));
    let renewed = make(&PKI.curve[3], "last", CA, Some(&old));
    let signer = make(&PKI.signer.key, "signer", LEAF, Some(&counted));
    for (last, ok) in
        [(&[&counted, &middle][..], false), (&[&renewed, &old], true), (&[&counted, &middle, &renewed, &old], true)]
    {
        for reversed in [false, true] {
            let mut carried = [&[&signer, &shared], last].concat();
            if reversed {
                carried.reverse();
            }
            let message = openssl.sign(CONTENT, &[&signer], &carried, &["-noattr"]);
            let found = judge(&trusting(&[&anchor]), &message).map(drop);
            assert_eq!(found, if ok { Ok(()) } else { Err(NotCertificateAuthority) }, "{}, {reversed}", last.len());
        }
    }
}

#[test]
fn key_usages() {
    // To sign: anchor, signer, secondary.
    for (usage, expected) in [(SIGNS, Ok(())), (CERTIFIES, Err(KeyUsage))] {
        assert_eq!(carried(&[("anchor", usage)]), expected);
        assert_eq!(carried(&[("anchor", CA), ("signer", usage)]), expected);
        assert_eq!(under_secondary(&[("anchor", CA), ("added", usage)]), expected);
    }
    // To certify, and to vouch: anchor, intermediate, secondary.
    for (usage, ok) in [(SIGNS, false), (CERTIFIES, true)] {
        let expected = if ok { Ok(()) } else { Err(NotCertificateAuthority) };
        assert_eq!(carried(&[("anchor", usage), ("signer", LEAF)]), expected);
        assert_eq!(added(&[("anchor", usage), ("key", LEAF)]).map(drop), expected);
        let links = [("anchor", CA), ("middle", usage), ("signer", LEAF)];
        assert_eq!(carried(&links), expected);
        assert_eq!(under_secondary(&links), expected);
        assert_eq!(added(&links).map(drop), expected);
    }
    // The build key, which is no authority, vouches without.
    assert_eq!(added(&[("anchor", "keyUsage=digitalSignature"), ("key", LEAF)]), Ok(Added::NewByBuiltIn));
}

#[test]
fn extended_key_usages_go_down() {
    for (usage, image) in [(MODULES_ONLY, Err(KeyUsage)), (OTHER_USE, Err(KeyUsage)), (FOR_CODE, Ok(())), (CA, Ok(()))]
    {
        // Anchor, intermediate, signer; a module may be signed under all of them.
        for at in 0..3 {
            let mut links = [("anchor", CA), ("middle", CA), ("signer", LEAF)];
            links[at].1 = usage;
            let path = path(&links);
            let keys = trusting(&[&path[0]]);
            assert_eq!((module_by(&keys, &path), image_by(&keys, &path)), (Ok(()), image), "{links:?}");
            // Secondaries: the second, and the third below it; each signs itself too.
            let (keys, taken) = add_all(&path);
            assert_eq!(taken, Ok(Added::New), "{links:?}");
            assert_eq!(module_by(&keys, &path[2..]), Ok(()), "{links:?}");
            assert_eq!(image_by(&keys, &path[2..]), image, "{links:?}");
            let (keys, _) = add_all(&path[..2]);
            assert_eq!(module_by(&keys, &path[1..]), Ok(()), "{links:?}");
            assert_eq!(image_by(&keys, &path[1..]), image, "{links:?}");
        }
        let alone = path(&[("anchor", usage)]);
        assert_eq!(image_by(&trusting(&[&alone[0]]), &alone), image, "{usage}");
    }
}

#[test]
fn critical_extensions_that_are_unknown() {
    // Anchor: it signs as it is, and certifies and vouches for nobody.
    assert_eq!(carried(&[("anchor", UNKNOWN)]), Ok(()));
    assert_eq!(carried(&[("anchor", UNKNOWN), ("signer", LEAF)]), Err(CriticalExtension));
    assert_eq!(added(&[("anchor", UNKNOWN), ("key", LEAF)]), Err(CriticalExtension));
    assert_eq!(added(&[("anchor", UNKNOWN_LEAF), ("key", LEAF)]), Err(CriticalExtension));
    // Intermediate, signer, secondary.
    assert_eq!(carried(&[("anchor", CA), ("middle", UNKNOWN), ("signer", LEAF)]), Err(CriticalExtension));
    for unknown in [UNKNOWN, UNKNOWN_LEAF] {
        assert_eq!(carried(&[("anchor", CA), ("signer", unknown)]), Err(CriticalExtension));
        assert_eq!(added(&[("anchor", CA), ("key", unknown)]), Err(CriticalExtension));
    }
    assert_eq!(added(&[("anchor", CA), ("key", UNKNOWN), ("below", CA)]), Err(UntrustedSigner));
}

/// What is asked of a path with something against one of its certificates: by a message, with a secondary, at enrolment.
fn against(path: &[Identity], against: impl Fn(&mut KeyStoreBuilder)) -> [Verdict; 3] {
    let keys = || {
        let mut builder = KeyStoreBuilder::new();
        builder.trust(&path[0].der).unwrap();
        against(&mut builder);
        builder.finish()
    };
    let mut with_secondary = keys();
    let added = with_secondary.add_secondary(&path[1].der);
    [module_by(&keys(), path), added.and_then(|_| module_by(&with_secondary, &path[1..])), added.map(drop)]
}

#[test]
fn revoked_and_blocked() {
    let path = path(&[("anchor", CA), ("middle", CA), ("signer", LEAF)]);
    assert_eq!(against(&path, |_| ()), [Ok(()); 3]);
    for (at, one) in path.iter().enumerate() {
        let by_number = against(&path, |keys| keys.revoke(&one.der).unwrap());
        let hash = Certificate::parse(&one.der[..]).unwrap().tbs_digest(DigestAlgorithm::Sha384);
        let by_hash = against(&path, |keys| keys.block(Hashed::Certificate, hash.as_bytes()).unwrap());
        // The signer is no matter of the enrolment of what is above it.
        let all = |error| [Err(error), Err(error), if at == 2 { Ok(()) } else { Err(error) }];
        assert_eq!(by_number, all(Revoked), "{at}");
        assert_eq!(by_hash, all(CertificateBlocked), "{at}");
    }
}

#[test]
fn algorithms_that_are_not_supported() {
    let openssl = &PKI.openssl;
    let odd = openssl.certificate(&openssl.key("curve:P-521"), "odd", CA, None);
    let below = |name: &str, issuer: &Identity| openssl.certificate(&PKI.curve[1], name, CA, Some(issuer));
    // Anchor and secondary: they are not trusted.
    assert!(matches!(KeyStoreBuilder::new().trust(&odd.der), Err(Unsupported(_))));
    let odd_below = |issuer| openssl.certificate(&odd.key, "odd below", CA, Some(issuer));
    assert!(matches!(trusting(&[&PKI.root]).add_secondary(&odd_below(&PKI.root).der), Err(Unsupported(_))));
    // Intermediate: there is no way over it. Signer: it does not count.
    let path = [PKI.root.clone(), odd_below(&PKI.root)];
    let signer = below("signer", &path[1]);
    let refused = module_by(&trusting(&[&PKI.root]), &[path[0].clone(), path[1].clone(), signer]).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Unsupported);
    assert_eq!(module_by(&trusting(&[&PKI.root]), &path).unwrap_err().class(), ErrorClass::Unsupported);
}

#[test]
fn a_revoked_issuer_that_cannot_be_asked_counts_as_the_issuer() {
    let openssl = &PKI.openssl;
    for kind in ["curve:P-521", "curve:secp256k1", "ED25519", "rsa:1024"] {
        let arguments: &[&str] = if kind == "ED25519" { &[] } else { &["-sha256"] };
        let plain = "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none";
        let odd = openssl.certificate_with(&openssl.key(kind), "odd", plain, None, "7", arguments);
        let child = openssl.certificate_with(&PKI.curve[0], "child", plain, Some(&odd), "8", arguments);
        let signer = openssl.certificate(&PKI.curve[1], "signer", plain, Some(&child));
        let revoking = |trusted: &Identity| {
            let mut builder = KeyStoreBuilder::new();
            builder.trust(&trusted.der).unwrap();
            builder.revoke(&odd.der).unwrap();
            builder.finish()
        };
        // Anchor: it signs no more, and certifies no more. Signer and intermediate: as soon as they are on the way.
        assert_eq!(module_by(&revoking(&child), std::slice::from_ref(&child)), Err(Revoked), "{kind}");
        assert_eq!(module_by(&revoking(&child), &[child.clone(), signer.clone()]), Err(Revoked), "{kind}");
        assert_eq!(revoking(&child).counts(), (0, 0));
        assert_eq!(module_by(&revoking(&PKI.root), &[PKI.root.clone(), child.clone()]), Err(Revoked));
        let all = [PKI.root.clone(), child.clone(), signer.clone()];
        assert_eq!(module_by(&revoking(&PKI.root), &all), Err(Revoked));
        // Secondary.
        assert_eq!(revoking(&PKI.root).add_secondary(&child.der), Err(Revoked));
        // Another authority of the same name, that can be asked: what signed itself is not the other's. What it has signed is
        // told apart by key ids only.
        let renewed = openssl.certificate(&PKI.curve[2], "odd", CA, None);
        let unnamed = openssl.certificate(&PKI.curve[3], "unnamed", plain, Some(&renewed));
        assert_eq!(revoking(&renewed).counts(), (1, 0), "{kind}");
        assert_eq!(revoking(&renewed).add_secondary(&unnamed.der), Err(Revoked), "{kind}");
    }
    // With a key of a kind that VTL1 has, a signature that is not its own is another's.
    let odd = openssl.certificate(&PKI.other, "root", "subjectKeyIdentifier=none", None);
    let mut builder = KeyStoreBuilder::new();
    builder.trust(&PKI.root.der).unwrap();
    builder.revoke(&odd.der).unwrap();
    assert_eq!(builder.finish().add_secondary(&PKI.signer.der), Ok(Added::New));
}

/// A certificate with other times, signed anew by `issuer`.
fn expired(one: &Identity, issuer: &Identity) -> Identity {
    let mut certificate = Node::only(&one.der);
    for (at, time) in [(0, b"990101000000Z"), (1, b"000101000000Z")] {
        *certificate.at(&[0, 4, at]) = Node::only(&element(0x17, time));
    }
    let tbs = certificate.at(&[0]).write();
    let signature = PKI.openssl.raw_signature(&issuer.key, &tbs);
    let bits = element(3, &[&[0][..], &signature].concat());
    let der = element(0x30, &[tbs, certificate.at(&[1]).write(), bits].concat());
    PKI.openssl.adopt(&one.key, der)
}

#[test]
fn validity_is_not_looked_at() {
    let fresh = path(&[("anchor", CA), ("middle", CA), ("signer", LEAF)]);
    let old = [expired(&fresh[0], &fresh[0]), expired(&fresh[1], &fresh[0]), expired(&fresh[2], &fresh[1])];
    assert_eq!(against(&old, |_| ()), [Ok(()); 3]);
    // But the times are signed as all else is.
    let forged = expired(&fresh[1], &fresh[2]);
    assert_eq!(trusting(&[&fresh[0]]).add_secondary(&forged.der), Err(CertificateSignature));
}
