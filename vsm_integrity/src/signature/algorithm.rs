//! The algorithms: which are accepted, what the others are called, and checking a signature of a digest by a key.
//!
//! Accepted are RSA PKCS#1 v1.5 (RFC 8017 §8.2) with 2048 to 4096 bits, ECDSA (RFC 5480) with P-256 and P-384, and
//! SHA-256, SHA-384 and SHA-512. The arithmetic is that of the `rsa`, `p256` and `p384` crates. Only public keys are
//! used, so nothing here is secret and timing does not matter. Key and signature are not trusted: their sizes
//! are checked before anything is computed, so that a check costs a bounded time, less than 32 KiB of heap, and less
//! than 16 KiB of stack.

use der::asn1::ObjectIdentifier;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPublicKey};

use super::digest::{Digest, DigestAlgorithm};
use super::error::{SignatureError, Unsupported};
use super::reader::{self, Element, Reader, tag};
use crate::error::ParseError;
use crate::heap;

/// The fewest bits of an RSA modulus.
pub const MIN_RSA_BITS: usize = 2048;
/// The most bits of an RSA modulus (Linux's own keys have 4096).
pub const MAX_RSA_BITS: usize = 4096;

/// The two signature schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Rsa,
    Ecdsa,
}

/// How a signature was made: scheme, and the digest where the algorithm's name has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignatureAlgorithm {
    pub(crate) scheme: Scheme,
    pub(crate) digest: Option<DigestAlgorithm>,
}

/// Heap that checking one signature takes: measured 23 KiB with RSA-4096, freed again.
const HEAP_BYTES: usize = 32 << 10;

/// Checks that the heap has what the arithmetic takes: it comes from crates whose allocations cannot fail otherwise
/// than by a panic. Other processors could take it meanwhile: VTL1's allocator keeps it for the one that checks.
pub(crate) fn check_heap() -> Result<(), SignatureError> {
    heap::with_room::<u8>(HEAP_BYTES).map(drop).map_err(SignatureError::out_of("the arithmetic of a signature"))
}

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// RFC 8017 appendix C.
const RSA_ENCRYPTION: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
/// RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");
/// RFC 5480 §2.1.1.1.
const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
/// RFC 5480 §2.1.1.1.
const P384: ObjectIdentifier = oid("1.3.132.0.34");
/// RFC 4055 §2.1.
const DIGESTS: [(ObjectIdentifier, DigestAlgorithm); 3] = [
    (oid("2.16.840.1.101.3.4.2.1"), DigestAlgorithm::Sha256),
    (oid("2.16.840.1.101.3.4.2.2"), DigestAlgorithm::Sha384),
    (oid("2.16.840.1.101.3.4.2.3"), DigestAlgorithm::Sha512),
];
/// RFC 4055 §5, RFC 5758 §3.2.
const SIGNATURES: [(ObjectIdentifier, Scheme, DigestAlgorithm); 6] = [
    (oid("1.2.840.113549.1.1.11"), Scheme::Rsa, DigestAlgorithm::Sha256),
    (oid("1.2.840.113549.1.1.12"), Scheme::Rsa, DigestAlgorithm::Sha384),
    (oid("1.2.840.113549.1.1.13"), Scheme::Rsa, DigestAlgorithm::Sha512),
    (oid("1.2.840.10045.4.3.2"), Scheme::Ecdsa, DigestAlgorithm::Sha256),
    (oid("1.2.840.10045.4.3.3"), Scheme::Ecdsa, DigestAlgorithm::Sha384),
    (oid("1.2.840.10045.4.3.4"), Scheme::Ecdsa, DigestAlgorithm::Sha512),
];
/// Algorithms that are met and not accepted, so that an error can name them (Linux `include/linux/oid_registry.h`).
const NAMES: [(ObjectIdentifier, &str); 36] = [
    (oid("1.2.840.113549.2.4"), "MD4"),
    (oid("1.2.840.113549.2.5"), "MD5"),
    (oid("1.3.14.3.2.26"), "SHA-1"),
    (oid("2.16.840.1.101.3.4.2.4"), "SHA-224"),
    (oid("2.16.840.1.101.3.4.2.6"), "SHA-512/256"),
    (oid("2.16.840.1.101.3.4.2.8"), "SHA3-256"),
    (oid("2.16.840.1.101.3.4.2.9"), "SHA3-384"),
    (oid("2.16.840.1.101.3.4.2.10"), "SHA3-512"),
    (oid("1.2.156.10197.1.401"), "SM3"),
    (oid("1.2.643.7.1.1.2.2"), "Streebog-256"),
    (oid("1.2.643.7.1.1.2.3"), "Streebog-512"),
    (oid("1.2.840.113549.1.1.2"), "RSA with MD2"),
    (oid("1.2.840.113549.1.1.4"), "RSA with MD5"),
    (oid("1.2.840.113549.1.1.5"), "RSA with SHA-1"),
    (oid("1.2.840.113549.1.1.14"), "RSA with SHA-224"),
    (oid("1.2.840.113549.1.1.7"), "RSA-OAEP"),
    (oid("1.2.840.113549.1.1.10"), "RSA-PSS"),
    (oid("2.16.840.1.101.3.4.3.14"), "RSA with SHA3-256"),
    (oid("2.16.840.1.101.3.4.3.15"), "RSA with SHA3-384"),
    (oid("2.16.840.1.101.3.4.3.16"), "RSA with SHA3-512"),
    (oid("1.2.840.10040.4.1"), "DSA"),
    (oid("1.2.840.10040.4.3"), "DSA with SHA-1"),
    (oid("2.16.840.1.101.3.4.3.2"), "DSA with SHA-256"),
    (oid("1.2.840.10045.4.1"), "ECDSA with SHA-1"),
    (oid("1.2.840.10045.4.3.1"), "ECDSA with SHA-224"),
    (oid("1.3.101.112"), "Ed25519"),
    (oid("1.3.101.113"), "Ed448"),
    (oid("1.2.156.10197.1.301"), "SM2"),
    (oid("1.2.156.10197.1.501"), "SM2 with SM3"),
    (oid("1.2.643.7.1.1.1.1"), "GOST 2012"),
    (oid("2.16.840.1.101.3.4.3.17"), "ML-DSA-44"),
    (oid("2.16.840.1.101.3.4.3.18"), "ML-DSA-65"),
    (oid("2.16.840.1.101.3.4.3.19"), "ML-DSA-87"),
    (oid("1.2.840.10045.3.1.1"), "P-192"),
    (oid("1.3.132.0.35"), "P-521"),
    (oid("1.3.132.0.10"), "secp256k1"),
];

fn name(oid: &[u8]) -> Option<&'static str> {
    NAMES.iter().find_map(|(known, name)| (known.as_bytes() == oid).then_some(*name))
}

/// An AlgorithmIdentifier (RFC 5280 §4.1.1.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identifier<'a> {
    /// The whole element.
    pub(crate) raw: &'a [u8],
    oid: &'a [u8],
    parameters: Option<Element<'a>>,
}

impl<'a> Identifier<'a> {
    /// The one that is next.
    pub(crate) fn next(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let element = reader.require(tag::SEQUENCE, "an algorithm is a SEQUENCE")?;
        let mut fields = element.reader()?;
        let oid = fields.require(tag::OID, "an algorithm has an OBJECT IDENTIFIER")?.content;
        let parameters = if fields.is_empty() { None } else { Some(fields.any()?) };
        fields.finish("an algorithm has one element of parameters at most")?;
        Ok(Self { raw: element.raw, oid, parameters })
    }

    /// No parameters, or NULL: both are met (RFC 4055 §2.1).
    fn without_parameters(&self) -> bool {
        self.parameters.is_none_or(|parameters| parameters.raw == [tag::NULL, 0])
    }

    /// The hash algorithm that this is.
    pub(crate) fn digest(&self) -> Result<DigestAlgorithm, Unsupported> {
        let known = DIGESTS.iter().find(|(oid, _)| oid.as_bytes() == self.oid);
        let (_, digest) = known.ok_or_else(|| Unsupported::Digest(name(self.oid)))?;
        if self.without_parameters() { Ok(*digest) } else { Err(Unsupported::Parameters("a SHA-2 algorithm")) }
    }

    /// The signature algorithm that this is. RSA without a digest is met in messages, which name the digest apart.
    pub(crate) fn signature(&self) -> Result<SignatureAlgorithm, Unsupported> {
        let known = SIGNATURES.iter().find(|(oid, ..)| oid.as_bytes() == self.oid);
        let algorithm = match known {
            Some((_, scheme, digest)) => SignatureAlgorithm { scheme: *scheme, digest: Some(*digest) },
            None if RSA_ENCRYPTION.as_bytes() == self.oid => SignatureAlgorithm { scheme: Scheme::Rsa, digest: None },
            None => return Err(Unsupported::Signature(name(self.oid))),
        };
        if self.without_parameters() { Ok(algorithm) } else { Err(Unsupported::Parameters("a signature algorithm")) }
    }

    /// Whether both name the same algorithm with the same parameters; none and NULL are the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let plain = self.without_parameters() && other.without_parameters();
        self.raw == other.raw || (plain && self.oid == other.oid)
    }

    fn is(&self, oid: ObjectIdentifier) -> bool {
        oid.as_bytes() == self.oid
    }
}

/// A public key that has been checked: it can be used, whatever it is used for.
pub(crate) enum PublicKey {
    Rsa(RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// The key in a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), which starts at `base` of its certificate.
    pub(crate) fn parse(info: &[u8], base: usize) -> Result<Self, SignatureError> {
        let (identifier, bits) = subject_public_key(info, base).map_err(SignatureError::Certificate)?;
        if identifier.is(RSA_ENCRYPTION) {
            if !identifier.without_parameters() {
                return Err(Unsupported::Parameters("RSA").into());
            }
            return rsa_key(bits);
        }
        if !identifier.is(EC_PUBLIC_KEY) {
            return Err(Unsupported::Key(name(identifier.oid)).into());
        }
        let curve = identifier.parameters.filter(|curve| curve.tag == tag::OID);
        let curve = curve.ok_or(Unsupported::Curve(None))?.content;
        let not_a_point = |_| SignatureError::BadKey("not a point of the curve");
        // SEC 1 §2.3.3: 04, then both coordinates. The compressed form is not used in certificates.
        if bits.first() != Some(&4) {
            return Err(SignatureError::BadKey("a point is not in the uncompressed form"));
        }
        if curve == P256.as_bytes() {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bits).map_err(not_a_point)?;
            Ok(Self::P256(key))
        } else if curve == P384.as_bytes() {
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(bits).map_err(not_a_point)?;
            Ok(Self::P384(key))
        } else {
            Err(Unsupported::Curve(name(curve)).into())
        }
    }

    /// Whether `signature` is one of `digest` by this key.
    pub(crate) fn verifies(&self, scheme: Scheme, digest: &Digest, signature: &[u8]) -> bool {
        match (self, scheme) {
            (Self::Rsa(key), Scheme::Rsa) => {
                signature.len() == key.size()
                    && key.verify(pkcs1(digest.algorithm()), digest.as_bytes(), signature).is_ok()
            }
            (Self::P256(key), Scheme::Ecdsa) => p256_verifies(key, digest, signature),
            (Self::P384(key), Scheme::Ecdsa) => p384_verifies(key, digest, signature),
            _ => false,
        }
    }
}

/// Algorithm and bits of a SubjectPublicKeyInfo.
fn subject_public_key(info: &[u8], base: usize) -> Result<(Identifier<'_>, &[u8]), ParseError> {
    let mut fields = reader::only_at(info, base, tag::SEQUENCE, "a public key is a SEQUENCE")?.reader()?;
    let identifier = Identifier::next(&mut fields)?;
    let bits = fields.require(tag::BIT_STRING, "a public key is a BIT STRING")?.whole_bits()?;
    fields.finish("a public key has two elements")?;
    Ok((identifier, bits))
}

/// RFC 8017 appendix A.1.1.
fn rsa_key(bits: &[u8]) -> Result<PublicKey, SignatureError> {
    let (modulus, exponent) = rsa_numbers(bits).map_err(|_| SignatureError::BadKey("not an RSA key in DER"))?;
    let leading = modulus.first().map_or(8, |first| first.leading_zeros());
    let size = modulus.len().saturating_mul(8).saturating_sub(usize::try_from(leading).unwrap_or(8));
    if size < MIN_RSA_BITS {
        return Err(SignatureError::WeakKey(size));
    }
    if size > MAX_RSA_BITS {
        return Err(Unsupported::RsaBits(size).into());
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !odd(modulus) {
        return Err(SignatureError::BadKey("an RSA modulus is even"));
    }
    if !odd(exponent) || exponent == [1] || exponent.len() > 4 {
        return Err(SignatureError::BadKey("an RSA exponent is even, 1, or longer than 32 bits"));
    }
    RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent))
        .map(PublicKey::Rsa)
        .map_err(|_| SignatureError::BadKey("an RSA key has impossible numbers"))
}

fn rsa_numbers(bits: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let mut fields = reader::only(bits, tag::SEQUENCE, "an RSA key is a SEQUENCE")?.reader()?;
    let modulus = fields.require(tag::INTEGER, "a modulus")?.unsigned()?;
    let exponent = fields.require(tag::INTEGER, "an exponent")?.unsigned()?;
    fields.finish("an RSA key has two numbers")?;
    Ok((modulus, exponent))
}

fn pkcs1(algorithm: DigestAlgorithm) -> Pkcs1v15Sign {
    match algorithm {
        DigestAlgorithm::Sha256 => Pkcs1v15Sign::new::<sha2::Sha256>(),
        DigestAlgorithm::Sha384 => Pkcs1v15Sign::new::<sha2::Sha384>(),
        DigestAlgorithm::Sha512 => Pkcs1v15Sign::new::<sha2::Sha512>(),
    }
}

/// The two numbers of an ECDSA signature (RFC 3279 §2.2.3), each `N` bytes.
fn ecdsa_numbers<const N: usize>(signature: &[u8]) -> Option<([u8; N], [u8; N])> {
    let mut fields = reader::only(signature, tag::SEQUENCE, "two numbers").ok()?.reader().ok()?;
    let mut number = || {
        let bytes = fields.require(tag::INTEGER, "a number").ok()?.unsigned().ok()?;
        let mut number = [0; N];
        number.get_mut(N.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
        Some(number)
    };
    let (r, s) = (number()?, number()?);
    fields.is_empty().then_some((r, s))
}

// Not inlined: the frames of the two curves need not be on the stack at once, nor during anything else.
#[inline(never)]
fn p256_verifies(key: &p256::ecdsa::VerifyingKey, digest: &Digest, signature: &[u8]) -> bool {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    ecdsa_numbers::<32>(signature)
        .and_then(|(r, s)| p256::ecdsa::Signature::from_scalars(r, s).ok())
        .is_some_and(|signature| key.verify_prehash(digest.as_bytes(), &signature).is_ok())
}

#[inline(never)]
fn p384_verifies(key: &p384::ecdsa::VerifyingKey, digest: &Digest, signature: &[u8]) -> bool {
    use p384::ecdsa::signature::hazmat::PrehashVerifier as _;
    ecdsa_numbers::<48>(signature)
        .and_then(|(r, s)| p384::ecdsa::Signature::from_scalars(r, s).ok())
        .is_some_and(|signature| key.verify_prehash(digest.as_bytes(), &signature).is_ok())
}

#[cfg(test)]
#[path = "algorithm_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "wycheproof_tests.rs"]
mod wycheproof;
