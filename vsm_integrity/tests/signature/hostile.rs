//! Messages that have been tampered with.

use proptest::prelude::*;

use vsm_integrity::keys::KeyStore;
use vsm_integrity::signature::message::MAX_MESSAGE_BYTES;
use vsm_integrity::signature::{Certificate, ErrorClass, SignatureError, SignedMessage};

use crate::der::{Change, Content, Node, element, reencodings};
use crate::openssl::{AUTHORITY, SIGNER};
use crate::support::{CONTENT, PKI, judge, module, trusting, verdict};

/// Messages of each shape, and who is trusted.
fn messages() -> Vec<(&'static str, KeyStore, Vec<u8>)> {
    let openssl = &PKI.openssl;
    let signer = &PKI.signer;
    let middle = openssl.certificate(&PKI.curve[0], "middle", AUTHORITY, Some(&PKI.root));
    let leaf = openssl.certificate(&PKI.curve[1], "leaf", SIGNER, Some(&middle));
    let known = || trusting(&[signer]);
    vec![
        ("as Linux makes it", known(), openssl.sign(CONTENT, &[signer], &[], &["-noattr"])),
        ("by key id", known(), openssl.sign(CONTENT, &[signer], &[], &["-noattr", "-keyid"])),
        ("with attributes", known(), openssl.sign(CONTENT, &[signer], &[], &["-md", "sha512"])),
        ("a chain", trusting(&[&PKI.root]), openssl.sign(CONTENT, &[&leaf], &[&leaf, &middle], &[])),
    ]
}

#[test]
fn every_bit_counts() {
    for (name, keys, message) in messages() {
        assert!(judge(&keys, &message).is_ok(), "{name}");
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let found = judge(&keys, &changed);
            assert!(found.is_err(), "{name}: bit {} of byte {:#x} does not count", bit % 8, bit / 8);
        }
    }
}

#[test]
fn truncated_extended_and_shifted() {
    for (name, keys, message) in messages() {
        for length in 0..message.len() {
            let refused = judge(&keys, &message[..length]).unwrap_err();
            assert_eq!(refused.class(), ErrorClass::BadMessage, "{name}: {length} bytes");
        }
        for extra in [&[0][..], &[0, 0], &message] {
            let refused = judge(&keys, &[&message, extra].concat()).unwrap_err();
            assert!(matches!(refused, SignatureError::Message(_)), "{name}: {refused}");
        }
        assert!(judge(&keys, &message[1..]).is_err());
        // Bytes between content and message belong to the content.
        let file = module(CONTENT, &message);
        let signed_less = [&CONTENT[..999], &file[1000..]].concat();
        let signed_more = [CONTENT, &[0], &file[1000..]].concat();
        for other in [signed_less, signed_more] {
            let refused = verdict(&keys, &other).unwrap_err();
            assert_eq!(refused.class(), ErrorClass::Rejected, "{name}: {refused}");
        }
        // Behind the marker, or signed twice.
        assert_eq!(verdict(&keys, &[&file[..], b"\n"].concat()), Err(SignatureError::NotSigned));
        assert_eq!(verdict(&keys, &module(&file, &message)).unwrap_err().class(), ErrorClass::Rejected);
        assert_eq!(verdict(&keys, CONTENT), Err(SignatureError::NotSigned));
    }
    assert_eq!(SignatureError::NotSigned.class(), ErrorClass::NoSignature);
}

#[test]
fn swapped() {
    for (name, keys, message) in messages() {
        let other = PKI.openssl.sign(b"something else", &[&PKI.signer], &[], &["-noattr"]);
        let refused = judge(&trusting(&[&PKI.signer]), &other).unwrap_err();
        assert_eq!(refused, SignatureError::BadSignature, "{name}");
        let refused = verdict(&keys, &module(b"something else", &message)).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Rejected, "{name}");
    }
}

#[test]
fn other_encodings_of_the_same() {
    for (name, keys, message) in messages() {
        let all = reencodings(&message);
        assert!(all.len() >= 30, "{name}: {}", all.len());
        for other in all {
            assert!(judge(&keys, &other).is_err(), "{name}: {other:x?}");
        }
    }
}

/// SignedData: version, algorithms, content, [certificates,] signers.
const SIGNED_DATA: [usize; 2] = [1, 0];

fn changed(message: &[u8], change: impl FnOnce(&mut Node)) -> Vec<u8> {
    let mut node = Node::only(message);
    change(&mut node);
    node.write()
}

fn bytes(tag: u8, content: &[u8]) -> Node {
    Node::only(&element(tag, content))
}

#[test]
fn fields_are_what_they_must_be() {
    let keys = trusting(&[&PKI.signer]);
    let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &["-noattr"]);
    assert!(judge(&keys, &changed(&message, |_| ())).is_ok());
    // A signer: version, name, digest, algorithm, signature.
    let broken: [(&str, Change); 15] = [
        ("not signed data", |m| *m.at(&[0]) = bytes(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3])),
        ("two elements", |m| m.nodes().push(bytes(5, &[]))),
        ("otherwise 1", |m| *m.at(&[1, 0, 0]) = bytes(2, &[3])),
        ("not listed", |m| m.at(&[1, 0, 1]).nodes().clear()),
        ("has a signer", |m| m.at(&[1, 0, 3]).nodes().clear()),
        ("end with the signers", |m| m.at(&SIGNED_DATA).nodes().push(bytes(5, &[]))),
        ("SET of signers", |m| m.at(&SIGNED_DATA).nodes().insert(3, bytes(0xa1, &[]))),
        ("only X.509", |m| m.at(&SIGNED_DATA).nodes().insert(3, bytes(0xa0, &element(0xa1, &[])))),
        ("does not fit", |m| *m.at(&[1, 0, 3, 0, 0]) = bytes(2, &[3])),
        ("a name has two elements", |m| m.at(&[1, 0, 3, 0, 1]).nodes().push(bytes(5, &[]))),
        ("8 signers", |m| {
            let signers = m.at(&[1, 0, 3]).nodes();
            *signers = vec![signers[0].clone(); 9];
        }),
        ("ends with its attributes", |m| m.at(&[1, 0, 3, 0]).nodes().push(bytes(5, &[]))),
        ("an attribute is", |m| m.at(&[1, 0, 3, 0]).nodes().push(bytes(0xa1, &[5, 0]))),
        ("OCTET STRING", |m| m.at(&[1, 0, 3, 0, 4]).tag = 3),
        ("one element", |m| m.at(&[1, 0, 2]).nodes().push(bytes(0xa0, &[4, 0, 4, 0]))),
    ];
    for (rule, change) in broken {
        match judge(&keys, &changed(&message, change)) {
            Err(SignatureError::Message(error)) => {
                let rule = if rule.starts_with("a name") { "signer's name has two" } else { rule };
                assert!(error.rule.contains(rule), "{rule}: {error}");
            }
            other => panic!("{rule}: {other:?}"),
        }
    }
    let many = vec![Node::only(&PKI.signer.der); 17];
    let crowded = changed(&message, |m| {
        m.at(&SIGNED_DATA).nodes().insert(3, Node { tag: 0xa0, content: Content::Nodes(many) });
    });
    assert!(matches!(judge(&keys, &crowded), Err(SignatureError::Message(error)) if error.rule.contains("16")));
}

#[test]
fn content_belongs_outside_and_is_data() {
    let keys = trusting(&[&PKI.signer]);
    let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &["-noattr"]);
    let attached = changed(&message, |m| {
        m.at(&[1, 0, 2]).nodes().push(bytes(0xa0, &element(4, CONTENT)));
    });
    let refused = judge(&keys, &attached).unwrap_err();
    assert!(matches!(refused, SignatureError::Attachment(_)) && refused.class() == ErrorClass::BadMessage);
    let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 5];
    let other = changed(&message, |m| *m.at(&[1, 0, 2, 0]) = bytes(6, &oid));
    assert_eq!(judge(&keys, &other), Err(SignatureError::ContentType));
    // A message about a PE file does not sign a module.
    let pe = [0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
    let other = changed(&message, |m| *m.at(&[1, 0, 2, 0]) = bytes(6, &pe));
    assert_eq!(judge(&keys, &other), Err(SignatureError::ContentType));
}

/// The message with other signed attributes, signed anew by the signer's own key.
fn with_attributes(change: impl FnOnce(&mut Vec<Node>)) -> Vec<u8> {
    let message = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &[]);
    changed(&message, |m| {
        let signer = m.at(&[1, 0, 3, 0]);
        change(signer.at(&[3]).nodes());
        let mut set = signer.at(&[3]).clone();
        set.tag = 0x31;
        let signature = PKI.openssl.raw_signature(&PKI.signer.key, &set.write());
        *signer.at(&[5]) = bytes(4, &signature);
    })
}

/// The attribute with this last number of `1.2.840.113549.1.9`.
fn attribute(nodes: &mut [Node], number: u8) -> &mut Node {
    let id = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, number];
    let found = nodes.iter_mut().find(|node| node.write().windows(9).any(|part| part == id));
    found.expect("such an attribute")
}

#[test]
fn signed_attributes_say_what_is_signed() {
    let keys = trusting(&[&PKI.signer]);
    assert_eq!(judge(&keys, &with_attributes(|_| ())).as_deref(), Ok("signer"));
    // Others are signed too, and of no account.
    let more = with_attributes(|all| all.push(bytes(0x30, &[6, 2, 0x2a, 3, 0x31, 2, 5, 0])));
    assert!(judge(&keys, &more).is_ok());
    let (kind, digest) = (3, 4);
    let without = |number| {
        with_attributes(move |all| {
            let unwanted = attribute(all, number).write();
            all.retain(|node| node.write() != unwanted);
        })
    };
    let twice = |number| {
        with_attributes(move |all| {
            let again = attribute(all, number).clone();
            all.push(again);
        })
    };
    for (message, expected) in [
        (without(kind), SignatureError::Attributes("there is no content type")),
        (without(digest), SignatureError::Attributes("there is no message digest")),
        (twice(kind), SignatureError::Attributes("the content type comes twice")),
        (twice(digest), SignatureError::Attributes("the message digest comes twice")),
        (with_attributes(Vec::clear), SignatureError::Attributes("there is no content type")),
        (with_attributes(|all| *attribute(all, 3).at(&[1, 0]) = bytes(6, &[0x2a, 3])), SignatureError::ContentType),
        (with_attributes(|all| *attribute(all, 4).at(&[1, 0]) = bytes(4, &[0; 32])), SignatureError::DigestMismatch),
        (with_attributes(|all| *attribute(all, 4).at(&[1, 0]) = bytes(4, &[])), SignatureError::DigestMismatch),
    ] {
        assert_eq!(judge(&keys, &message), Err(expected));
    }
    for message in [
        with_attributes(|all| attribute(all, 4).at(&[1]).nodes().clear()),
        with_attributes(|all| {
            let values = attribute(all, 4).at(&[1]).nodes();
            values.push(values[0].clone());
        }),
        with_attributes(|all| attribute(all, 4).at(&[1, 0]).tag = 3),
    ] {
        assert!(matches!(judge(&keys, &message), Err(SignatureError::Message(_))));
    }
    // The signature of the attributes is not one of the content, and the other way round.
    let plain = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &["-noattr"]);
    let with = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &[]);
    let stripped = changed(&with, |m| drop(m.at(&[1, 0, 3, 0]).nodes().remove(3)));
    assert_eq!(judge(&keys, &stripped), Err(SignatureError::BadSignature));
    let attributes = Node::only(&with).at(&[1, 0, 3, 0, 3]).clone();
    let dressed = changed(&plain, |m| m.at(&[1, 0, 3, 0]).nodes().insert(3, attributes));
    assert_eq!(judge(&keys, &dressed), Err(SignatureError::BadSignature));
    // Nor are the attributes a content: signed as such, they would sign whatever they name.
    let mut set = Node::only(&with).at(&[1, 0, 3, 0, 3]).clone();
    set.tag = 0x31;
    assert_eq!(verdict(&keys, &module(&set.write(), &with)), Err(SignatureError::DigestMismatch));
}

#[test]
fn a_message_is_bounded() {
    let padded = changed(&PKI.openssl.sign(CONTENT, &[&PKI.signer], &[], &["-noattr"]), |m| {
        m.at(&[1, 0, 3, 0]).nodes().push(bytes(0xa1, &element(0x30, &vec![0; MAX_MESSAGE_BYTES])));
    });
    assert!(matches!(SignedMessage::parse(&padded), Err(SignatureError::TooLong { .. })));
    assert!(matches!(judge(&trusting(&[&PKI.signer]), &padded), Err(SignatureError::TooLong { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is done to a message and its certificates: a verdict, and never that it is fine.
    #[test]
    fn mutations_are_refused(
        which in 0usize..4,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        static MESSAGES: std::sync::LazyLock<Vec<(&'static str, KeyStore, Vec<u8>)>> =
            std::sync::LazyLock::new(messages);
        let (name, keys, message) = &MESSAGES[which];
        let mut changed = message.clone();
        for (at, byte, how) in edits {
            let at = at.index(changed.len());
            match how {
                0 => changed[at] = byte,
                1 => changed.insert(at, byte),
                2 if changed.len() > 1 => drop(changed.remove(at)),
                _ => changed[at] = changed[at].wrapping_add(byte & 3),
            }
        }
        if changed != *message {
            prop_assert!(judge(keys, &changed).is_err(), "{}", name);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(SignedMessage::parse(&bytes).is_err());
        prop_assert!(Certificate::parse(&bytes[..]).is_err());
    }

    /// A certificate that was changed may still be one; using it must not panic.
    #[test]
    fn changed_certificates_do_no_harm(at in any::<prop::sample::Index>(), byte: u8) {
        let mut der = PKI.signer.der.clone();
        let at = at.index(der.len());
        der[at] = byte;
        if let Ok(certificate) = Certificate::parse(&der[..]) {
            let _ = certificate.check_key();
            let _ = certificate.to_string();
            let mut keys = trusting(&[&PKI.root]);
            prop_assert!(keys.add_secondary(&der).is_err() || der == PKI.signer.der);
        }
    }
}
