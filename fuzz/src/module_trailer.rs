//! Target: finding content and signature of a module's file, from the end of it.

use vsm_integrity::signature::ErrorClass;
use vsm_integrity::signature::trailer::{MARKER, ModuleLayout, TAIL_BYTES, locate};

use crate::input::Input;

/// The longest message.
const MOST: u64 = 64 << 10;

/// # Panics
/// When a rule is broken: the parts are the model's, also when no more than the announced tail is looked at; they do not
/// overlap and end where the trailer starts.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    // Whole files are short ones; the length of a long one is told.
    let (length, mut tail) = if kind & 1 == 0 { (None, Vec::new()) } else { (Some(input.word()), Vec::new()) };
    if kind & 2 == 0 {
        let trailer = input.bytes(12);
        let content = input.bytes(usize::MAX);
        tail.extend(content);
        tail.extend(trailer);
        tail.extend(MARKER);
    } else {
        tail.extend(input.bytes(usize::MAX));
    }
    let shown = if kind & 4 == 0 { &tail[..] } else { &tail[tail.len().saturating_sub(TAIL_BYTES)..] };
    let length = length.map_or(tail.len(), |length| usize::try_from(length).unwrap_or(usize::MAX));
    let found = locate(length, shown);
    let expected = model(length as u64, shown);
    assert_eq!(
        found.as_ref().map_err(vsm_integrity::signature::SignatureError::class),
        expected.as_ref().map_err(|class| *class)
    );
    let enough = &shown[shown.len().saturating_sub(TAIL_BYTES)..];
    assert_eq!(locate(length, enough), found, "bytes before the tail count");
    if let Ok(ModuleLayout { content, signature }) = found {
        assert!(content > 0 && content == signature.start && !signature.is_empty());
        assert_eq!(signature.end + TAIL_BYTES, length);
    }
}

/// The parts of a file of `length` bytes that ends with `tail`.
fn model(length: u64, tail: &[u8]) -> Result<ModuleLayout, ErrorClass> {
    let Some(before) = tail.strip_suffix(b"~Module signature appended~\n") else { return Err(ErrorClass::NoSignature) };
    let Some(start) = before.len().checked_sub(12) else { return Err(ErrorClass::BadMessage) };
    let trailer = &before[start..];
    if trailer[2] != 2 {
        return Err(ErrorClass::Unsupported);
    }
    let signature = trailer[8..].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    let zero = [0, 1, 3, 4, 5, 6, 7].iter().all(|at| trailer[*at] == 0);
    let room = length.checked_sub(40).and_then(|room| room.checked_sub(signature));
    match room {
        Some(content) if zero && content > 0 && (1..=MOST).contains(&signature) => {
            let at = |offset: u64| usize::try_from(offset).expect("a file's length is one of memory");
            Ok(ModuleLayout { content: at(content), signature: at(content)..at(content + signature) })
        }
        _ => Err(ErrorClass::BadMessage),
    }
}

/// Signed files, one with a long signature, one of another kind, and one whose lengths do not fit.
pub fn seeds() -> Vec<Vec<u8>> {
    let file = |length: u32, kind: u8| {
        let trailer = [&[0, 0, kind, 0, 0, 0, 0, 0][..], &length.to_be_bytes()].concat();
        [&[0][..], &trailer, &[1; 60]].concat()
    };
    let raw = [&[2][..], &[7; 30], &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9], MARKER].concat();
    let long = |length: u64, signature: u32| {
        let trailer = [&[0, 0, 2, 0, 0, 0, 0, 0][..], &signature.to_be_bytes()].concat();
        [&[1][..], &length.to_le_bytes(), &trailer].concat()
    };
    vec![file(30, 2), file(60, 2), file(30, 1), file(61, 2), raw, long(1 << 26, 700), long(1 << 26, 1 << 17), vec![2]]
}
