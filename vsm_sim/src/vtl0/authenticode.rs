//! Signs kernel images as `sbsign` does (Microsoft, "Windows Authenticode Portable Executable Signature Format"), and makes
//! a small kernel to sign: a PE file that is a bzImage, as Linux's are.

use anyhow::{Context, Result, ensure};
use vsm_integrity::pe::ImageLayout;
use vsm_integrity::signature::{DigestAlgorithm, SignedMessage};

use super::signer::Signer;
use crate::random::SplitMix;

/// Object identifiers, encoded.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 7, 2];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 9, 4];
const INDIRECT_DATA: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
const PE_IMAGE: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// Tags of DER.
const INTEGER: u8 = 2;
const OCTETS: u8 = 4;
const OBJECT: u8 = 6;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT: u8 = 0xa0;

/// Offsets in a made-up kernel's file.
const PE: usize = 0x40;
const OPTIONAL: usize = PE + 24;
/// The PE checksum.
pub const CHECKSUM: usize = OPTIONAL + 64;
/// The data directory of the certificate table.
pub const DIRECTORY: usize = OPTIONAL + 112 + 4 * 8;
const SECTIONS: usize = OPTIONAL + 112 + 6 * 8;
/// Where the kernel proper starts: the real-mode part has four sectors.
pub const KERNEL: usize = 0x800;

/// A bzImage that is a PE file, without signature; its kernel proper has `kernel` bytes, drawn from `seed`.
#[must_use]
pub fn made_up(kernel: usize, seed: u64) -> Vec<u8> {
    let length = (KERNEL + kernel).next_multiple_of(8);
    let mut random = SplitMix(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes[..KERNEL].fill(0);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    put(0, b"MZ");
    put(0x3c, &word(PE));
    put(PE, b"PE\0\0\x64\x86\x02\0");
    put(PE + 20, &[160, 0]);
    put(OPTIONAL, &[0x0b, 2]);
    put(OPTIONAL + 60, &word(0x200));
    put(OPTIONAL + 108, &word(6));
    for (entry, name, start, end) in [(0, b".setup\0\0", 0x200, KERNEL), (1, b".text\0\0\0", KERNEL, length)] {
        let at = SECTIONS + entry * 40;
        put(at, name);
        put(at + 8, &word(end - start));
        put(at + 16, &word(end - start));
        put(at + 20, &word(start));
    }
    // The setup header, as Documentation/arch/x86/boot.rst has it.
    put(0x1f1, &[3]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x236, &[3, 0]);
    // Its bytes, and what unpacking takes.
    put(0x260, &word((length - KERNEL).next_multiple_of(4096) + 0x5000));
    bytes
}

/// The Authenticode hash of a file without certificate table.
fn image_hash(image: &[u8]) -> Vec<u8> {
    let parts = [&image[..CHECKSUM], &image[CHECKSUM + 4..DIRECTORY], &image[DIRECTORY + 8..]];
    DigestAlgorithm::Sha256.digest(&parts.concat()).as_bytes().to_vec()
}

/// `image`, a file that [`made_up`] made, signed with a P-256 key.
///
/// # Errors
/// When `openssl` fails.
pub fn sign(image: &[u8], signer: &Signer) -> Result<Vec<u8>> {
    with_messages(image, &[message(&description(&image_hash(image)), signer)?])
}

/// What a message says of a file with this hash.
fn description(hash: &[u8]) -> Vec<u8> {
    let data = element(SEQUENCE, &[&element(OBJECT, &[PE_IMAGE]), &element(SEQUENCE, &[&[3, 1, 0, 0xa0, 2, 0xa2, 0]])]);
    let digest = element(SEQUENCE, &[&algorithm(SHA256, true), &element(OCTETS, &[hash])]);
    element(SEQUENCE, &[&data, &digest])
}

/// A signed message that carries `description`.
fn message(description: &[u8], signer: &Signer) -> Result<Vec<u8>> {
    // The header of less than 128 bytes is not hashed.
    let digest = DigestAlgorithm::Sha256.digest(&description[2..]);
    let attribute = |name, value: &[u8]| element(SEQUENCE, &[&element(OBJECT, &[name]), &element(SET, &[value])]);
    let attributes = [
        attribute(CONTENT_TYPE, &element(OBJECT, &[INDIRECT_DATA])),
        attribute(MESSAGE_DIGEST, &element(OCTETS, &[digest.as_bytes()])),
    ]
    .concat();
    let signature = signer.sign_raw(&element(SET, &[&attributes]))?;
    let (serial, issuer) = serial_and_issuer(signer.certificate()).context("the signer's certificate")?;
    let info = element(
        SEQUENCE,
        &[
            &element(INTEGER, &[&[1]]),
            &element(SEQUENCE, &[issuer, serial]),
            &algorithm(SHA256, true),
            &element(CONTEXT, &[&attributes]),
            &algorithm(ECDSA_WITH_SHA256, false),
            &element(OCTETS, &[&signature]),
        ],
    );
    let data = element(
        SEQUENCE,
        &[
            &element(INTEGER, &[&[1]]),
            &element(SET, &[&algorithm(SHA256, true)]),
            &element(SEQUENCE, &[&element(OBJECT, &[INDIRECT_DATA]), &element(CONTEXT, &[description])]),
            &element(CONTEXT, &[signer.certificate()]),
            &element(SET, &[&info]),
        ],
    );
    Ok(element(SEQUENCE, &[&element(OBJECT, &[SIGNED_DATA]), &element(CONTEXT, &[&data])]))
}

/// The file with a certificate table of these messages, and the right checksum.
fn with_messages(image: &[u8], messages: &[Vec<u8>]) -> Result<Vec<u8>> {
    ensure!(image.len().is_multiple_of(8), "signers pad a file before they hash it");
    let mut signed = image.to_vec();
    for message in messages {
        signed.extend(u32::try_from(message.len() + 8)?.to_le_bytes());
        signed.extend([0, 2, 2, 0]);
        signed.extend(message);
        signed.resize(signed.len().next_multiple_of(8), 0);
    }
    signed[DIRECTORY..DIRECTORY + 4].copy_from_slice(&u32::try_from(image.len())?.to_le_bytes());
    let table = u32::try_from(signed.len() - image.len())?;
    signed[DIRECTORY + 4..DIRECTORY + 8].copy_from_slice(&table.to_le_bytes());
    Ok(settled(signed))
}

/// `image`, which has a certificate table, with the signatures of `other` and the hash in them replaced by its own: what a
/// forger can do without a key.
///
/// # Errors
/// When there is no hash in `other`'s table.
pub fn transplanted(image: &[u8], other: &[u8]) -> Result<Vec<u8>> {
    let table = |file: &[u8]| ImageLayout::parse(file, file.len()).map(|layout| layout.certificates);
    let (own, others) = (table(image)?, table(other)?);
    ensure!(own.len() == others.len() && own == others, "files of different lengths");
    let unsigned = |file: &[u8]| file[..own.start].to_vec();
    let (old, new) = (image_hash(&unsigned(other)), image_hash(&unsigned(image)));
    let mut forged = [unsigned(image), other[others].to_vec()].concat();
    let at = forged.windows(old.len()).rposition(|window| window == old).context("no hash in the table")?;
    forged[at..at + new.len()].copy_from_slice(&new);
    Ok(settled(forged))
}

/// The file with the checksum of "PE Format", where a made-up one has it.
#[must_use]
pub fn settled(mut file: Vec<u8>) -> Vec<u8> {
    file[CHECKSUM..CHECKSUM + 4].fill(0);
    let word = |pair: &[u8]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or_default()) << 8;
    let mut sum: u64 = file.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u32::try_from(sum + file.len() as u64).unwrap_or_default();
    file[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
    file
}

/// The certificate that a signed file's first signer carries.
///
/// # Errors
/// When the file is not signed, or its signer carries none.
pub fn signer_of(file: &[u8]) -> Result<Vec<u8>> {
    let layout = ImageLayout::parse(file, file.len())?;
    let entry = file.get(layout.certificates).and_then(|table| table.get(8..)).context("a certificate table")?;
    let message = vsm_integrity::der::sequences(entry).next().context("a message")??;
    let message = SignedMessage::parse(message)?;
    Ok(message.certificates().first().context("a certificate")?.raw().to_vec())
}

/// An element of DER, of parts.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let header = match content.len() {
        0..128 => vec![tag, length[7]],
        _ => [&[tag, 0x80 | digits.len().to_le_bytes()[0]], digits.as_slice()].concat(),
    };
    [header, content].concat()
}

fn algorithm(name: &[u8], null: bool) -> Vec<u8> {
    let parameters: &[u8] = if null { &[5, 0] } else { &[] };
    element(SEQUENCE, &[&element(OBJECT, &[name]), parameters])
}

/// Serial number and issuer of a certificate, each a whole element.
fn serial_and_issuer(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, outer) = split(certificate)?;
    let (_, signed) = split(outer)?;
    // Version, serial number, algorithm, issuer.
    let (version, _) = whole(signed)?;
    let rest = signed.get(version.len()..)?;
    let (serial, _) = whole(rest)?;
    let rest = rest.get(serial.len()..)?;
    let (algorithm, _) = whole(rest)?;
    let (issuer, _) = whole(rest.get(algorithm.len()..)?)?;
    Some((serial, issuer))
}

/// The first element of `bytes`: its tag, and its content.
fn split(bytes: &[u8]) -> Option<(u8, &[u8])> {
    whole(bytes).map(|(element, header)| (element[0], &element[header..]))
}

/// The first element of `bytes`, and how long its header is.
fn whole(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let first = *bytes.get(1)?;
    let (header, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let count = usize::from(first & 0x7f);
        let digits = bytes.get(2..2 + count)?;
        (2 + count, digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
    };
    Some((bytes.get(..header + length)?, header))
}
