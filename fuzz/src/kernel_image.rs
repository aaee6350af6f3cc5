//! Target: PE files: where the signed parts are, and images that OpenSSL signed and that were then tampered with.

use std::sync::LazyLock;

use vsm_integrity::keys::{KeyStore, KeyStoreBuilder};
use vsm_integrity::pe::layout::MAX_HEADER_BYTES;
use vsm_integrity::pe::{ImageLayout, ImageSignatures};
use vsm_integrity::signature::SignatureError;

use crate::fixtures::{IMAGE, SIGNER};
use crate::input::Input;
use crate::tampered;

/// The longest certificate table.
const MOST: u64 = 128 << 10;
/// Where in the fixture the checksum is.
const CHECKSUM: std::ops::Range<usize> = 0x42 + 24 + 64..0x42 + 24 + 68;

static KEYS: LazyLock<KeyStore> = LazyLock::new(|| {
    let mut builder = KeyStoreBuilder::new();
    builder.trust(SIGNER).expect("a certificate that can be trusted");
    builder.finish()
});

/// # Panics
/// When a rule is broken: a file has a layout exactly when the model finds one, and it is the model's; an image is
/// accepted, in pieces of any size, exactly when it is the signed one, whatever its checksum.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let piece = 1 + usize::try_from(input.short()).unwrap_or_default() % 5000;
    let file = match kind % 4 {
        0 => input.bytes(usize::MAX).to_vec(),
        1 => fields(&mut input, IMAGE.to_vec()),
        2 => tampered::bytes(&mut input, IMAGE),
        _ => IMAGE.to_vec(),
    };
    let file = if kind & 8 == 0 { file } else { with_checksum(file) };
    let head = &file[..file.len().min(MAX_HEADER_BYTES)];
    // The length is told: a file of any length may start like this.
    let length = if kind & 0x70 == 0x70 { input.word() } else { file.len() as u64 };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let layout = ImageLayout::parse(head, length);
    let expected = table(head, length as u64);
    match (&layout, &expected) {
        (Ok(layout), Some((start, end))) => {
            let found = (layout.certificates.start as u64, layout.certificates.end as u64);
            assert_eq!(found, (*start, *end));
        }
        (Err(_), None) => {}
        (layout, expected) => panic!("{layout:?}, the model has {expected:x?}"),
    }
    if length != file.len() {
        return;
    }
    let verdict = judge(&file, piece);
    let mut unsummed = file.clone();
    if let Some(checksum) = unsummed.get_mut(CHECKSUM) {
        checksum.fill(0);
    }
    assert_eq!(verdict.is_ok(), unsummed == IMAGE, "{verdict:?}");
}

/// The whole way of an image to its verdict.
fn judge(file: &[u8], piece: usize) -> Result<String, SignatureError> {
    let layout = ImageLayout::parse(&file[..file.len().min(MAX_HEADER_BYTES)], file.len())?;
    let signatures = ImageSignatures::parse(&file[layout.certificates.clone()], layout.certificates.start)?;
    let mut hasher = KEYS.image_hasher(&layout, &signatures, None);
    file.chunks(piece).for_each(|piece| hasher.update(piece));
    Ok(KEYS.verify_image(&signatures, &hasher.finish()?)?.trusted.to_string())
}

/// The file with some fields of its headers changed.
fn fields(input: &mut Input<'_>, mut file: Vec<u8>) -> Vec<u8> {
    for _ in 0..=input.below(4) {
        let (how, at) = (input.byte(), usize::try_from(input.short()).unwrap_or_default() % 0x200);
        let value = if how & 4 == 0 { u32::from(input.byte()) << (how >> 3) } else { u32::MAX >> (how >> 3) };
        let width = 1 << (how & 3).min(2);
        for (into, byte) in file[at..].iter_mut().zip(value.to_le_bytes()).take(width) {
            *into = byte;
        }
    }
    file
}

/// The file with the checksum of "PE Format", where the fixture has it.
fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let Some(checksum) = file.get_mut(CHECKSUM) else { return file };
    checksum.fill(0);
    let word = |pair: &[u8]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or_default()) << 8;
    let mut sum: u64 = file.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u32::try_from(sum + file.len() as u64).unwrap_or_default();
    file[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    file
}

/// Start and end of the certificate table of a file of `length` bytes, if all others are signed, once each.
fn table(head: &[u8], length: u64) -> Option<(u64, u64)> {
    let number = |at: u64, width: u64| {
        let at = usize::try_from(at).ok()?;
        let bytes = head.get(at..at + usize::try_from(width).ok()?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let pe = number(0x3c, 4)?;
    let has_place = (0x40..=64 << 10).contains(&pe) && pe.is_multiple_of(2);
    if number(0, 2)? != 0x5a4d || !has_place || number(pe, 4)? != 0x4550 {
        return None;
    }
    let (sections, optional, size) = (number(pe + 6, 2)?, pe + 24, number(pe + 20, 2)?);
    let directories = optional + if number(optional, 2)? == 0x20b { 112 } else { 96 };
    let known = [0x10b, 0x20b].contains(&number(optional, 2)?);
    let count = number(directories - 4, 4)?;
    if !known || sections > 96 || count < 5 || directories + count * 8 > optional + size {
        return None;
    }
    let (start, bytes) = (number(directories + 32, 4)?, number(directories + 36, 4)?);
    let headers = number(optional + 60, 4)?;
    number(optional + 64, 4)?;
    let sound = bytes > 0 && bytes <= MOST && start + bytes == length && start.is_multiple_of(8);
    if !sound || headers > 64 << 10 || headers < optional + size + sections * 40 {
        return None;
    }
    let mut parts = Vec::new();
    for entry in (0..sections).map(|index| optional + size + index * 40) {
        parts.push((number(entry + 20, 4)?, number(entry + 16, 4)?));
    }
    parts.retain(|(_, bytes)| *bytes > 0);
    parts.sort_unstable();
    let end = parts.iter().try_fold(headers, |end, (start, bytes)| (*start == end).then_some(end + bytes))?;
    (end <= start).then_some((start, start + bytes))
}

/// The signed file as it is and with each field of its headers changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = vec![vec![3], vec![11, 1, 0], [&[0, 0, 0][..], IMAGE].concat(), [&[0x70, 0, 0][..], IMAGE].concat()];
    for at in (0x3cu8..0xff).step_by(3) {
        all.push(vec![1, 0, 1, 0, at & 3 | 0x10, at, 0, at]);
        all.push(vec![9, 0, 1, 0, at & 7, at, 1, 1]);
        all.push(vec![10, 0, 1, 0, 1, at, at, 1]);
    }
    all
}
