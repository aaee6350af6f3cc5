//! Keys and signatures in every wrong form. Right ones are compared with OpenSSL's in `tests/signature`.

use super::*;

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match u16::try_from(length).unwrap().to_be_bytes() {
        [0, short] if short < 0x80 => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [header, content.to_vec()].concat()
}

fn identifier(oid: ObjectIdentifier, parameters: &[u8]) -> Vec<u8> {
    element(tag::SEQUENCE, &[&element(tag::OID, oid.as_bytes()), parameters].concat())
}

fn info(oid: ObjectIdentifier, parameters: &[u8], bits: &[u8]) -> Vec<u8> {
    let bits = element(tag::BIT_STRING, &[&[0], bits].concat());
    element(tag::SEQUENCE, &[identifier(oid, parameters), bits].concat())
}

const NULL: &[u8] = &[tag::NULL, 0];

/// A number of so many bits, of which the lowest is as told.
fn number(bits: usize, odd: bool) -> Vec<u8> {
    let mut bytes = vec![0xa5; bits.div_ceil(8)];
    bytes[0] = 0xff >> ((8 - bits % 8) % 8);
    *bytes.last_mut().unwrap() = if odd { 0x11 } else { 0x10 };
    if bytes[0] >= 0x80 {
        bytes.insert(0, 0);
    }
    bytes
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = [element(tag::INTEGER, modulus), element(tag::INTEGER, exponent)].concat();
    info(RSA_ENCRYPTION, NULL, &element(tag::SEQUENCE, &numbers))
}

fn refused(info: &[u8]) -> SignatureError {
    match PublicKey::parse(info, 0) {
        Ok(_) => panic!("a bad key was accepted"),
        Err(error) => error,
    }
}

#[test]
fn rsa_keys() {
    let good = number(2048, true);
    for exponent in [&[3][..], &[17], &[1, 0, 1], &[0x7f, 0xff, 0xff, 0xff], &[0, 0xff, 0xff, 0xff, 0xff]] {
        assert!(matches!(PublicKey::parse(&rsa(&good, exponent), 0), Ok(PublicKey::Rsa(_))), "{exponent:x?}");
    }
    let bad_exponent = SignatureError::BadKey("an RSA exponent is even, 1, or longer than 32 bits");
    for exponent in [&[0][..], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1], &[0x7f; 32]] {
        assert_eq!(refused(&rsa(&good, exponent)), bad_exponent, "{exponent:x?}");
    }
    for bits in [2048, 2049, 3072, 4095, 4096] {
        assert!(PublicKey::parse(&rsa(&number(bits, true), &[3]), 0).is_ok(), "{bits} bits");
    }
    for bits in [512, 1024, 2040, 2047] {
        assert_eq!(refused(&rsa(&number(bits, true), &[3])), SignatureError::WeakKey(bits));
    }
    for bits in [4097, 8192, 16384] {
        let expected = SignatureError::Unsupported(Unsupported::RsaBits(bits));
        assert_eq!(refused(&rsa(&number(bits, true), &[3])), expected);
    }
    assert_eq!(refused(&rsa(&number(2048, false), &[3])), SignatureError::BadKey("an RSA modulus is even"));
    let not_der = SignatureError::BadKey("not an RSA key in DER");
    let padded = [&[0][..], &good].concat();
    let negative = &good[1..];
    for (modulus, exponent) in
        [(&padded[..], &[3][..]), (negative, &[3]), (&good, &[0, 3]), (&good, &[0x83]), (&[], &[3])]
    {
        assert_eq!(refused(&rsa(modulus, exponent)), not_der);
    }
    let key = element(tag::SEQUENCE, &[element(tag::INTEGER, &good), element(tag::INTEGER, &[3])].concat());
    assert_eq!(refused(&info(RSA_ENCRYPTION, NULL, &[&key[..], &[0]].concat())), not_der);
    assert_eq!(refused(&info(RSA_ENCRYPTION, NULL, &key[..key.len() - 1])), not_der);
    // RFC 8017 has NULL; to leave it out is met and harmless.
    assert!(PublicKey::parse(&info(RSA_ENCRYPTION, &[], &key), 0).is_ok());
    let odd = refused(&info(RSA_ENCRYPTION, &[tag::INTEGER, 1, 0], &key));
    assert_eq!(odd, SignatureError::Unsupported(Unsupported::Parameters("RSA")));
}

#[test]
fn points() {
    let curve = |oid: ObjectIdentifier| element(tag::OID, oid.as_bytes());
    // The generator of P-256 (SEC 2 §2.4.2).
    let generator: Vec<u8> = [
        0x6b17_d1f2_e12c_4247_f8bc_e6e5_63a4_40f2_u128,
        0x7703_7d81_2deb_33a0_f4a1_3945_d898_c296,
        0x4fe3_42e2_fe1a_7f9b_8ee7_eb4a_7c0f_9e16,
        0x2bce_3357_6b31_5ece_cbb6_4068_37bf_51f5,
    ]
    .iter()
    .flat_map(|word| word.to_be_bytes())
    .collect();
    let point = [&[4][..], &generator].concat();
    let key = |point: &[u8]| info(EC_PUBLIC_KEY, &curve(P256), point);
    assert!(matches!(PublicKey::parse(&key(&point), 0), Ok(PublicKey::P256(_))));
    let off = SignatureError::BadKey("not a point of the curve");
    let form = SignatureError::BadKey("a point is not in the uncompressed form");
    let mut other = point.clone();
    other[64] ^= 1;
    let compressed = [&[3][..], &generator[..32]].concat();
    let hybrid = [&[7][..], &generator].concat();
    for (point, expected) in [
        (&other[..], off),
        (&point[..64], off),
        (&[&point[..], &[0]].concat(), off),
        (&[4; 65], off),
        (&[4], off),
        (&compressed, form),
        (&hybrid, form),
        (&[0], form),
        (&[], form),
    ] {
        assert_eq!(refused(&key(point)), expected, "{point:x?}");
    }
    // A point of one curve is none of the other.
    assert_eq!(refused(&info(EC_PUBLIC_KEY, &curve(P384), &point)), off);
    // Explicit parameters, implicit ones, and none.
    for parameters in [&element(tag::SEQUENCE, &[2, 1, 1])[..], NULL, &[]] {
        let expected = SignatureError::Unsupported(Unsupported::Curve(None));
        assert_eq!(refused(&info(EC_PUBLIC_KEY, parameters, &point)), expected);
    }
    let dsa = info(oid("1.2.840.10040.4.1"), NULL, &[2, 1, 5]);
    assert_eq!(refused(&dsa), SignatureError::Unsupported(Unsupported::Key(Some("DSA"))));
}

#[test]
fn ecdsa_signatures_are_two_numbers() {
    let signature =
        |r: &[u8], s: &[u8]| element(tag::SEQUENCE, &[element(tag::INTEGER, r), element(tag::INTEGER, s)].concat());
    let (r, s) = ecdsa_numbers::<32>(&signature(&[5], &[0, 0x80])).unwrap();
    assert_eq!((r[31], s[31], r[30]), (5, 0x80, 0));
    assert!(ecdsa_numbers::<32>(&signature(&[0x7f; 32], &[1])).is_some());
    assert!(ecdsa_numbers::<32>(&signature(&[0x7f; 33], &[1])).is_none());
    assert!(ecdsa_numbers::<48>(&signature(&[0x7f; 33], &[1])).is_some());
    for (r, s) in [(&[0, 5][..], &[1][..]), (&[0x80], &[1]), (&[], &[1]), (&[1], &[])] {
        assert!(ecdsa_numbers::<32>(&signature(r, s)).is_none(), "{r:x?} {s:x?}");
    }
    let good = signature(&[5], &[6]);
    for end in 0..good.len() {
        assert!(ecdsa_numbers::<32>(&good[..end]).is_none());
    }
    assert!(ecdsa_numbers::<32>(&[&good[..], &[0]].concat()).is_none());
    let three = element(tag::SEQUENCE, &[2, 1, 5, 2, 1, 5, 2, 1, 5]);
    assert!(ecdsa_numbers::<32>(&three).is_none());
}

fn parsed(bytes: &[u8]) -> Result<Identifier<'_>, ParseError> {
    Identifier::next(&mut Reader::new(bytes).unwrap())
}

#[test]
fn identifiers_are_understood_or_named() {
    for (oid, expected) in DIGESTS {
        assert_eq!(parsed(&identifier(oid, NULL)).unwrap().digest(), Ok(expected));
        assert_eq!(parsed(&identifier(oid, &[])).unwrap().digest(), Ok(expected));
        let odd = identifier(oid, &[tag::OCTET_STRING, 0]);
        assert!(matches!(parsed(&odd).unwrap().digest(), Err(Unsupported::Parameters(_))));
        assert_eq!(parsed(&identifier(oid, NULL)).unwrap().signature(), Err(Unsupported::Signature(None)));
    }
    for (oid, scheme, digest) in SIGNATURES {
        let expected = SignatureAlgorithm { scheme, digest: Some(digest) };
        assert_eq!(parsed(&identifier(oid, &[])).unwrap().signature(), Ok(expected));
        assert_eq!(parsed(&identifier(oid, NULL)).unwrap().digest(), Err(Unsupported::Digest(None)));
    }
    for (oid, name) in NAMES {
        let bytes = identifier(oid, &[]);
        let identifier = parsed(&bytes).unwrap();
        assert_eq!(identifier.digest(), Err(Unsupported::Digest(Some(name))));
        assert_eq!(identifier.signature(), Err(Unsupported::Signature(Some(name))));
        assert!(SignatureError::from(Unsupported::Digest(Some(name))).to_string().contains(name));
    }
    assert!(parsed(&element(tag::SEQUENCE, &[])).is_err());
    assert!(parsed(&identifier(P256, &[5, 0, 5, 0])).is_err());
    let (with, without) = (identifier(RSA_ENCRYPTION, NULL), identifier(RSA_ENCRYPTION, &[]));
    assert!(parsed(&with).unwrap().same(&parsed(&without).unwrap()));
    assert!(!parsed(&with).unwrap().same(&parsed(&identifier(P256, NULL)).unwrap()));
    assert!(!parsed(&with).unwrap().same(&parsed(&identifier(RSA_ENCRYPTION, &[2, 1, 0])).unwrap()));
}

#[test]
fn a_key_of_one_scheme_makes_no_signature_of_the_other() {
    let key = PublicKey::parse(&rsa(&number(2048, true), &[3]), 0).unwrap();
    let digest = DigestAlgorithm::Sha256.digest(b"");
    assert!(!key.verifies(Scheme::Ecdsa, &digest, &[0; 256]));
    // Signatures that are out of range, or of another length (RFC 8017 §8.2.2).
    for signature in [vec![0xff; 256], vec![0; 256], vec![1; 255], vec![1; 257], vec![]] {
        assert!(!key.verifies(Scheme::Rsa, &digest, &signature));
    }
}
