//! Target: splitting concatenated certificates.

use vsm_integrity::der::sequences;

/// # Panics
/// When a rule is broken: the elements are exactly those of the model, they cover the bytes up to the end or to the
/// offset that the error names.
pub fn run(data: &[u8]) {
    let (expected, covered) = model(data);
    let split: Vec<_> = sequences(data).collect();
    assert_eq!(split, sequences(data).collect::<Vec<_>>(), "the same bytes split twice");
    let elements: Vec<&[u8]> = split.iter().map_while(|item| item.as_ref().ok().copied()).collect();
    assert_eq!(elements, expected);
    assert_eq!(elements.concat(), data[..covered], "the elements are not the bytes in their order");
    match &split[elements.len()..] {
        [] => assert_eq!(covered, data.len(), "bytes outside of every element are not refused"),
        [Err(error)] => assert!(error.offset == covered && covered < data.len(), "{error}, not {covered:#x}"),
        rest => panic!("something follows an error: {rest:?}"),
    }
    for element in &elements {
        assert_eq!(sequences(element).collect::<Vec<_>>(), [Ok(*element)], "an element is not its own split");
    }
}

/// The elements that `data` begin with, and how many bytes they have together.
fn model(data: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut elements, mut at) = (Vec::new(), 0);
    while let Some(element) = whole_len(&data[at..]).and_then(|len| data[at..].get(..len)) {
        elements.push(element);
        at += element.len();
    }
    (elements, at)
}

/// The length of the whole element that the header at the start of `bytes` announces, if it is a SEQUENCE's of a definite
/// length.
fn whole_len(bytes: &[u8]) -> Option<usize> {
    let [0x30, first, rest @ ..] = bytes else { return None };
    let digits = match usize::from(*first) {
        short @ 0..0x80 => return Some(2 + short),
        long => rest.get(..long - 0x80)?,
    };
    // Four bytes of length, 4 GiB, are more than VTL1 will ever hold.
    let definite = (1..=4).contains(&digits.len());
    let content = digits.iter().take(4).fold(0, |length, digit| length << 8 | usize::from(*digit));
    definite.then_some(2 + digits.len() + content)
}

/// Elements with lengths of every form, with garbage behind.
pub fn seeds() -> Vec<Vec<u8>> {
    let element = |header: &[u8], content: usize| [header, &vec![5; content]].concat();
    let short = element(&[0x30, 3], 3);
    let one = element(&[0x30, 0x81, 0x80], 128);
    let two = element(&[0x30, 0x82, 1, 2], 258);
    let lie = element(&[0x30, 0x83, 1, 0, 0], 30);
    vec![
        short.clone(),
        [short.clone(), one.clone(), two.clone()].concat(),
        [two, vec![0, 0]].concat(),
        [element(&[0x30, 0x82, 0, 3], 3), element(&[0x30, 0x81, 0], 0), short.clone()].concat(),
        [short, lie].concat(),
        [one, vec![0x30, 0x80, 0, 0]].concat(),
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
    ]
}
