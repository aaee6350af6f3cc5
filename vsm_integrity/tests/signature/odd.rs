//! Certificates of an odd encoding: revoked all the same, and passed over where nobody needs them.

use vsm_integrity::der::sequences;
use vsm_integrity::keys::{KeyStore, KeyStoreBuilder, MAX_REVOKED_BYTES};
use vsm_integrity::signature::marks::Marks;
use vsm_integrity::signature::message::MAX_CERTIFICATES;
use vsm_integrity::signature::{Certificate, SignatureError};

use crate::der::{Change, Content, Node, element};
use crate::openssl::{AUTHORITY, SIGNER};
use crate::support::{CONTENT, PKI, builder, judge, trusting};

fn bytes(tag: u8, content: &[u8]) -> Node {
    Node::only(&element(tag, content))
}

/// What can be parsed of the certificate `odd`: its number and its key, with all else of [`PKI`]'s signer.
pub fn number_of(odd: &[u8]) -> Vec<u8> {
    let marks = Marks::read(odd);
    let mut plain = Node::only(&PKI.signer.der);
    let named = [([0, 1], element(2, marks.serial.unwrap())), ([0, 3], marks.issuer.unwrap().to_vec())];
    for (at, part) in named {
        *plain.at(&at) = Node::only(&part);
    }
    plain.write()
}

/// [`PKI`]'s signer, oddly encoded. Fields of the to-be-signed part: version, serial, algorithm, issuer, validity, subject,
/// key, extensions.
fn odd_forms() -> Vec<(String, Vec<u8>)> {
    let changes: [(&str, Change); 16] = [
        ("version 1 written out", |c| *c.at(&[0, 0, 0]) = bytes(2, &[0])),
        ("no version", |c| drop(c.at(&[0]).nodes().remove(0))),
        ("a number with a zero too many", |c| {
            let Content::Bytes(serial) = &mut c.at(&[0, 1]).content else { panic!() };
            serial.insert(0, 0);
        }),
        ("no NULL inside", |c| c.at(&[0, 2]).nodes().truncate(1)),
        ("no NULL outside", |c| c.at(&[1]).nodes().truncate(1)),
        ("two algorithms", |c| *c.at(&[1, 0]) = bytes(6, &[1, 2, 3])),
        ("no time", |c| c.at(&[0, 4]).nodes().clear()),
        ("a time of another type", |c| c.at(&[0, 4, 1]).tag = 0x13),
        ("FALSE written out", |c| c.at(&[0, 7, 0, 0]).nodes()[1] = bytes(1, &[0])),
        ("TRUE as 1", |c| c.at(&[0, 7, 0, 0]).nodes()[1] = bytes(1, &[1])),
        ("an extension twice", |c| {
            let extensions = c.at(&[0, 7, 0]).nodes();
            extensions.push(extensions[0].clone());
        }),
        ("an empty value", |c| *c.at(&[0, 7, 0, 0]).nodes().last_mut().unwrap() = bytes(4, &[])),
        ("no extension", |c| c.at(&[0, 7, 0]).nodes().clear()),
        ("extensions that are none", |c| c.at(&[0, 7]).content = Content::Bytes(vec![0x30, 0x84, 0xff])),
        ("unused bits of the signature", |c| {
            let Content::Bytes(bits) = &mut c.at(&[2]).content else { panic!() };
            bits[0] = 3;
        }),
        ("no signature", |c| drop(c.nodes().pop())),
    ];
    let mut forms: Vec<(String, Vec<u8>)> = changes
        .iter()
        .map(|(what, change)| {
            let mut certificate = Node::only(&PKI.signer.der);
            change(&mut certificate);
            ((*what).to_owned(), certificate.write())
        })
        .collect();
    for (number, der) in crate::der::long_lengths(&PKI.signer.der).into_iter().enumerate() {
        forms.push((format!("length {number} in the long form"), der));
    }
    let der = &PKI.signer.der;
    forms.push(("bytes behind it".into(), [&der[..], &[0; 9]].concat()));
    forms.push(("no signature, and cut in it".into(), der[..der.len() - 100].to_vec()));
    forms
}

fn revoking(der: &[u8]) -> KeyStore {
    let mut builder = builder(&[&PKI.root]);
    builder.revoke(der).unwrap();
    builder.finish()
}

#[test]
fn revoked_whatever_the_encoding() {
    let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[&PKI.signer], &["-noattr"]);
    // The key under another name and number, and the number with another key.
    let renewed = PKI.openssl.certificate(&PKI.signer.key, "renewed", "basicConstraints=CA:FALSE", Some(&PKI.root));
    let serial = Certificate::parse(&PKI.signer.der[..]).unwrap();
    let serial = serial.serial().iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)).to_string();
    let rekeyed = PKI.openssl.certificate_with(
        &PKI.curve[0],
        "rekeyed",
        "basicConstraints=CA:FALSE",
        Some(&PKI.root),
        &serial,
        &["-sha256"],
    );
    let other = PKI.openssl.certificate(&PKI.curve[1], "other", SIGNER, Some(&PKI.root));
    let forms = odd_forms();
    assert!(forms.len() > 40, "{}", forms.len());
    for (what, der) in &forms {
        // Lengths within a name are read by nobody, and stay what was signed.
        assert!(KeyStoreBuilder::new().trust(der).is_err() || what.starts_with("length"), "{what}");
        let mut keys = revoking(der);
        assert_eq!(judge(&keys, &message), Err(SignatureError::Revoked), "{what}");
        assert_eq!(keys.add_secondary(&other.der).map(drop), Ok(()), "{what}");
        assert_eq!(keys.add_secondary(&renewed.der), Err(SignatureError::Revoked), "{what}");
        // Lengths within the name make it another name to whoever compares bytes; the key is known all the same.
        if Marks::read(der).issuer == Some(Certificate::parse(&PKI.signer.der[..]).unwrap().issuer()) {
            assert_eq!(keys.add_secondary(&rekeyed.der), Err(SignatureError::Revoked), "{what}");
        }
    }
}

#[test]
fn an_oddly_encoded_authority_is_revoked_with_what_it_signed() {
    let authority = PKI.openssl.certificate(&PKI.curve[0], "authority", AUTHORITY, Some(&PKI.root));
    let child = PKI.openssl.certificate(&PKI.curve[1], "child", SIGNER, Some(&authority));
    let changes: [Change; 4] = [
        |c| c.at(&[1]).nodes().clear(),
        |c| c.at(&[0, 7, 0]).nodes().clear(),
        // The key cannot be read: whoever names this issuer may have been signed by it.
        |c| *c.at(&[0, 6]) = bytes(0x30, &[5, 0]),
        |c| c.at(&[0]).nodes().truncate(6),
    ];
    for change in changes {
        let mut odd = Node::only(&authority.der);
        change(&mut odd);
        let mut keys = KeyStoreBuilder::new();
        keys.trust(&child.der).unwrap();
        keys.trust(&PKI.root.der).unwrap();
        keys.revoke(&odd.write()).unwrap();
        assert_eq!(keys.finish().counts(), (1, 0));
    }
}

/// What nothing can be read of revokes nothing, and takes nothing away.
#[test]
fn what_cannot_be_read_at_all() {
    let other = PKI.openssl.certificate(&PKI.curve[1], "other", SIGNER, Some(&PKI.root));
    let long = vec![0x30; MAX_REVOKED_BYTES * 2];
    for der in [vec![], vec![0x30], vec![0x30, 0], vec![0xff; 200], element(0x30, &[0; 300]), long] {
        let marks = Marks::read(&der);
        assert_eq!(marks.to_string(), "its bytes");
        let mut builder = builder(&[&PKI.root]);
        builder.revoke(&der).unwrap();
        builder.revoke(&other.der).unwrap();
        let mut keys = builder.finish();
        assert_eq!(keys.revoked_counts().0, 2);
        assert_eq!(keys.add_secondary(&other.der), Err(SignatureError::Revoked));
        assert!(keys.add_secondary(&PKI.signer.der).is_ok());
    }
    let whole = Marks::read(&PKI.signer.der);
    assert_eq!(whole.to_string(), "issuer and number, key, key id");
}

#[test]
fn a_key_in_another_form_is_the_same_key() {
    let signer = PKI.openssl.certificate(&PKI.curve[0], "point", "basicConstraints=CA:FALSE", Some(&PKI.root));
    let other = PKI.openssl.certificate(&PKI.curve[1], "point", "basicConstraints=CA:FALSE", Some(&PKI.root));
    // Compressed (SEC 1 §2.3.3), under another number and name.
    let mut compressed = Node::only(&signer.der);
    *compressed.at(&[0, 1]) = bytes(2, &[99]);
    *compressed.at(&[0, 5]) = bytes(0x30, &[]);
    compressed.at(&[0]).nodes().truncate(7);
    let Content::Bytes(bits) = &mut compressed.at(&[0, 6, 1]).content else { panic!() };
    bits.truncate(34);
    bits[1] = 2;
    let mut keys = revoking(&compressed.write());
    assert_eq!(keys.add_secondary(&signer.der), Err(SignatureError::Revoked));
    assert!(keys.add_secondary(&other.der).is_ok());
    // RSA's modulus with zeros before it, and no exponent.
    let mut padded = Node::only(&PKI.signer.der);
    *padded.at(&[0, 1]) = bytes(2, &[99]);
    padded.at(&[0]).nodes().truncate(7);
    let Content::Bytes(bits) = padded.at(&[0, 6, 1]).content.clone() else { panic!() };
    let Content::Bytes(modulus) = Node::only(&bits[1..]).at(&[0]).content.clone() else { panic!() };
    let key = element(0x30, &element(2, &[&[0, 0], &modulus[..]].concat()));
    *padded.at(&[0, 6, 1]) = bytes(3, &[&[0][..], &key].concat());
    assert_eq!(revoking(&padded.write()).add_secondary(&PKI.signer.der), Err(SignatureError::Revoked));
}

#[test]
fn a_needless_odd_certificate_in_a_message_is_passed_over() {
    let middle = PKI.openssl.certificate(&PKI.curve[0], "middle", AUTHORITY, Some(&PKI.root));
    let leaf = PKI.openssl.certificate(&PKI.curve[1], "leaf", SIGNER, Some(&middle));
    let plain = PKI.openssl.sign(CONTENT, &[&leaf], &[&leaf, &middle], &["-noattr"]);
    let keys = trusting(&[&PKI.root]);
    let with = |odd: &[u8], at: usize| {
        let mut message = Node::only(&plain);
        // The element as it is: only its outermost length must be DER.
        let header = if odd[1] < 0x80 { 2 } else { 2 + usize::from(odd[1] & 0x7f) };
        let odd = Node { tag: odd[0], content: Content::Bytes(odd[header..].to_vec()) };
        message.at(&[1, 0, 3]).nodes().insert(at, odd);
        judge(&keys, &message.write())
    };
    let long = element(0x30, &vec![0; 9000]);
    let forms = odd_forms();
    let odd = forms.iter().map(|(_, der)| &der[..]).filter(|der| der.len() > 100).chain([&[0x30, 0][..], &long]);
    for der in odd {
        for at in 0..3 {
            assert_eq!(with(der, at).as_deref(), Ok("root"));
        }
    }
    // One that is needed is missing then; and they count.
    let mut needed = Node::only(&plain);
    needed.at(&[1, 0, 3, 0, 0, 7, 0, 0]).nodes()[1] = bytes(1, &[0]);
    let mut both = needed.clone();
    both.at(&[1, 0, 3, 1, 0, 7, 0, 0]).nodes()[1] = bytes(1, &[0]);
    for message in [needed, both] {
        assert_eq!(judge(&keys, &message.write()), Err(SignatureError::UntrustedSigner));
    }
    let mut crowded = Node::only(&plain);
    crowded.at(&[1, 0, 3]).nodes().extend(vec![bytes(0x30, &[]); MAX_CERTIFICATES - 1]);
    assert!(matches!(judge(&keys, &crowded.write()), Err(SignatureError::Message(error)) if error.rule.contains("16")));
}

#[test]
fn a_list_is_split_whatever_the_form_of_a_length() {
    let list = [&PKI.root.der[..], &[0x30, 0x83, 0, 0, 1, 7], &PKI.signer.der].concat();
    let split: Vec<&[u8]> = sequences(&list).collect::<Result<_, _>>().unwrap();
    assert_eq!(split, [&PKI.root.der[..], &[0x30, 0x83, 0, 0, 1, 7], &PKI.signer.der]);
}
