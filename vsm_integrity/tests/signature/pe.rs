//! Writing PE files, and signing them with OpenSSL: what `sbsign` does, step by step.

use vsm_integrity::keys::KeyStore;
use vsm_integrity::pe::{ImageLayout, ImageSignatures};
use vsm_integrity::signature::{DigestAlgorithm, SignatureError};

use crate::der::{Node, element};
use crate::openssl::{Identity, Openssl};

/// `SPC_INDIRECT_DATA_OBJID`.
const INDIRECT_DATA: &str = "1.3.6.1.4.1.311.2.1.4";
/// `SPC_PE_IMAGE_DATAOBJ`, 1.3.6.1.4.1.311.2.1.15.
pub const PE_IMAGE: [u8; 10] = [0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];
/// `id-sha256`.
const SHA256: [u8; 9] = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// A PE file in the making.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    /// Where the optional header starts.
    pub optional: usize,
    /// Where the certificate table's data directory is.
    pub directory: usize,
}

impl Image {
    /// A file with headers of 512 bytes, sections as told (place and size, in the order of the table), and `tail` bytes
    /// behind the last one. `plus` is whether it is PE32+.
    pub fn new(plus: bool, sections: &[(u32, u32)], tail: usize) -> Self {
        let end = sections.iter().map(|(start, size)| start + size).max().unwrap_or(512).max(512);
        let length = usize::try_from(end).unwrap() + tail;
        let mut bytes: Vec<u8> = (0..length).map(|index| u8::try_from(index * 31 % 253).unwrap()).collect();
        let (pe, directories, count) = (0x42, if plus { 112 } else { 96 }, 6u32);
        let optional = pe + 24;
        let optional_size = directories + usize::try_from(count).unwrap() * 8;
        bytes[..2].copy_from_slice(b"MZ");
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x3c, &u32::try_from(pe).unwrap().to_le_bytes());
        put(pe, b"PE\0\0");
        put(pe + 6, &u16::try_from(sections.len()).unwrap().to_le_bytes());
        put(pe + 20, &u16::try_from(optional_size).unwrap().to_le_bytes());
        put(optional, &(if plus { 0x20bu16 } else { 0x10b }).to_le_bytes());
        put(optional + 60, &512u32.to_le_bytes());
        put(optional + 64, &[0; 4]);
        put(optional + directories - 4, &count.to_le_bytes());
        put(optional + directories + 32, &[0; 8]);
        for (index, (start, size)) in sections.iter().enumerate() {
            let entry = optional + optional_size + index * 40;
            put(entry + 16, &size.to_le_bytes());
            put(entry + 20, &start.to_le_bytes());
        }
        Self { bytes, optional, directory: optional + directories + 32 }
    }

    pub fn put(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// The Authenticode hash with SHA-256, as long as there is no certificate table.
    pub fn hash(&self) -> Vec<u8> {
        let checksum = self.optional + 64;
        let parts =
            [&self.bytes[..checksum], &self.bytes[checksum + 4..self.directory], &self.bytes[self.directory + 8..]];
        DigestAlgorithm::Sha256.digest(&parts.concat()).as_bytes().to_vec()
    }

    /// The file with a certificate table of these entries, each a whole one.
    pub fn with_table(&self, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut signed = self.clone();
        assert!(signed.bytes.len().is_multiple_of(8), "signers pad the file before they hash it");
        let start = signed.bytes.len();
        for entry in entries {
            signed.bytes.extend(entry);
        }
        signed.put(self.directory, u32::try_from(start).unwrap());
        signed.put(self.directory + 4, u32::try_from(signed.bytes.len() - start).unwrap());
        signed.set_checksum();
        signed.bytes
    }

    pub fn set_checksum(&mut self) {
        let at = self.optional + 64;
        self.put(at, 0);
        let mut sum: u32 = 0;
        for word in self.bytes.chunks(2) {
            sum += u32::from(u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or_default()]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        self.put(at, sum + u32::try_from(self.bytes.len()).unwrap());
    }

    /// `bytes`, a changed copy of this file with a table, with a checksum that is right again.
    pub fn settle(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut settled = Self { bytes, ..*self };
        settled.set_checksum();
        settled.bytes
    }
}

/// An entry of the certificate table.
pub fn entry(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len() + 8).unwrap().to_le_bytes();
    let mut entry = [&length[..], &[0, 2, 2, 0], message].concat();
    entry.resize(entry.len().next_multiple_of(8), 0);
    entry
}

/// The description of a file with this hash.
pub fn description(kind: &[u8], hash: &[u8]) -> Vec<u8> {
    let data = element(0x30, &[element(6, kind), element(0x30, &[3, 1, 0, 0xa0, 2, 0xa2, 0])].concat());
    let algorithm = element(0x30, &[element(6, &SHA256), element(5, &[])].concat());
    let digest = element(0x30, &[algorithm, element(4, hash)].concat());
    element(0x30, &[data, digest].concat())
}

/// A message with `description` that is signed as one of `signed_description`.
pub fn message(
    openssl: &Openssl,
    signer: &Identity,
    carried: &[&Identity],
    description: &[u8],
    signed_description: &[u8],
) -> Vec<u8> {
    // What is signed is the description without its tag and length, which takes less than 128 bytes.
    let message =
        openssl.sign(&signed_description[2..], &[signer], carried, &["-econtent_type", INDIRECT_DATA, "-nosmimecap"]);
    let mut message = Node::only(&message);
    *message.at(&[1, 0, 0]) = Node::only(&[2, 1, 1]);
    message.at(&[1, 0, 2]).nodes().push(Node::only(&element(0xa0, description)));
    message.write()
}

/// The whole way of an image to its verdict, read in pieces of `piece` bytes.
pub fn judge_image(keys: &KeyStore, file: &[u8], piece: usize) -> Result<String, SignatureError> {
    let layout = ImageLayout::parse(&file[..file.len().min(vsm_integrity::pe::layout::MAX_HEADER_BYTES)], file.len())?;
    let table = &file[layout.certificates.clone()];
    let signatures = ImageSignatures::parse(table, layout.certificates.start)?;
    let mut hasher = keys.image_hasher(&layout, &signatures, None);
    file.chunks(piece).for_each(|piece| hasher.update(piece));
    let verified = keys.verify_image(&signatures, &hasher.finish()?)?;
    Ok(verified.trusted.common_name().unwrap_or_default().to_owned())
}
