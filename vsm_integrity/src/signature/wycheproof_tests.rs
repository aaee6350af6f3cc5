//! Signatures of Project Wycheproof: RSA PKCS#1 v1.5, and ECDSA with P-256 and P-384, by VTL1's own check of a key and
//! of a signature. Every vector with SHA-256, SHA-384 or SHA-512 counts; other hashes, and other curves, VTL1 does not have.

use ::wycheproof::{HashFunction, TestResult, ecdsa, rsa_pkcs1_verify};

use super::*;

/// How many vectors were looked at.
#[derive(Default)]
struct Tally {
    agree: usize,
    /// Vectors that one may accept or refuse, and that are refused. Decided: of a DigestInfo there is one form (RFC 8017
    /// §9.2), with the NULL that those leave out.
    stricter: usize,
}

impl Tally {
    fn judge(&mut self, what: &str, expected: TestResult, accepted: bool) {
        match (expected, accepted) {
            (TestResult::Valid, true) | (TestResult::Invalid, false) => self.agree += 1,
            (TestResult::Acceptable, false) => self.stricter += 1,
            _ => panic!("{what}: {expected:?}, and accepted: {accepted}"),
        }
    }
}

fn supported(hash: HashFunction) -> Option<DigestAlgorithm> {
    match hash {
        HashFunction::Sha2_256 => Some(DigestAlgorithm::Sha256),
        HashFunction::Sha2_384 => Some(DigestAlgorithm::Sha384),
        HashFunction::Sha2_512 => Some(DigestAlgorithm::Sha512),
        _ => None,
    }
}

#[test]
fn rsa_signatures_are_judged_as_wycheproof_does() {
    let (mut tally, mut too_long) = (Tally::default(), 0);
    for name in rsa_pkcs1_verify::TestName::all() {
        let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
        for group in set.test_groups {
            let Some(algorithm) = supported(group.hash) else { continue };
            let key = match PublicKey::parse(&group.der, 0) {
                Ok(key) => key,
                Err(error) => {
                    // Decided: no key beyond the limit that bounds what a check costs.
                    assert_eq!(error, Unsupported::RsaBits(8192).into(), "{name:?}");
                    too_long += group.tests.len();
                    continue;
                }
            };
            for test in group.tests {
                let accepted = key.verifies(Scheme::Rsa, &algorithm.digest(&test.msg), &test.sig);
                tally.judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), test.result, accepted);
            }
        }
    }
    let Tally { agree, stricter } = tally;
    println!(
        "RSA: {agree} agree, {stricter} that one may refuse are refused, and {too_long} with keys of 8192 bits; {} in all",
        agree + stricter + too_long
    );
    assert!(agree >= 2321, "{agree}");
}

#[test]
fn ecdsa_signatures_are_judged_as_wycheproof_does() {
    let mut tally = Tally::default();
    for name in ecdsa::TestName::all() {
        let set = ecdsa::TestSet::load(name).unwrap();
        for group in set.test_groups {
            let (Some(algorithm), ecdsa::TestGroupTypeId::Ecdsa) = (supported(group.hash), group.test_type) else {
                continue;
            };
            let key = match PublicKey::parse(&group.der, 0) {
                Ok(key) => key,
                Err(SignatureError::Unsupported(Unsupported::Curve(_))) => continue,
                Err(error) => panic!("{name:?}: {error}"),
            };
            for test in group.tests {
                let accepted = key.verifies(Scheme::Ecdsa, &algorithm.digest(&test.msg), &test.sig);
                tally.judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), test.result, accepted);
            }
        }
    }
    let Tally { agree, stricter } = tally;
    println!("ECDSA with P-256 and P-384: {agree} agree, {stricter} that one may refuse are refused");
    assert!(agree >= 2556, "{agree}");
}
