//! Signed kernel images: made here, and real ones.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use vsm_integrity::blocklist::Hashed;
use vsm_integrity::keys::{KeyStore, KeyStoreBuilder};
use vsm_integrity::pe::{ImageLayout, ImageSignatures};
use vsm_integrity::signature::{ErrorClass, SignatureError, SignedMessage};

use crate::der::{Change, Node, element};
use crate::openssl::{AUTHORITY, Identity, SIGNER};
use crate::pe::{Image, PE_IMAGE, description, entry, judge_image, message};
use crate::support::{PKI, blocking, builder, trusting};

/// Sections in an order that is not that of their places; one is empty.
const SECTIONS: [(u32, u32); 4] = [(0x600, 0x400), (0x200, 0x100), (0, 0), (0x300, 0x300)];

fn image() -> Image {
    Image::new(true, &SECTIONS, 24)
}

/// A message by `signer` for `image`.
fn signature(image: &Image, signer: &Identity, carried: &[&Identity]) -> Vec<u8> {
    let described = description(&PE_IMAGE, &image.hash());
    message(&PKI.openssl, signer, carried, &described, &described)
}

fn signed(image: &Image, signer: &Identity, carried: &[&Identity]) -> Vec<u8> {
    image.with_table(&[entry(&signature(image, signer, carried))])
}

fn judge(keys: &KeyStore, file: &[u8]) -> Result<String, SignatureError> {
    judge_image(keys, file, 4096)
}

#[test]
fn a_signed_image_is_accepted() {
    for plus in [true, false] {
        for (sections, tail) in [(&SECTIONS[..], 24), (&SECTIONS[..], 0), (&[(512, 8)], 0), (&[], 8)] {
            let image = Image::new(plus, sections, tail);
            let file = signed(&image, &PKI.signer, &[]);
            for piece in [1, 7, 64, 4096] {
                assert_eq!(judge_image(&trusting(&[&PKI.signer]), &file, piece).as_deref(), Ok("signer"));
            }
            let carried = signed(&image, &PKI.signer, &[&PKI.signer]);
            assert_eq!(judge(&trusting(&[&PKI.root]), &carried).as_deref(), Ok("root"));
            let stranger = judge(&trusting(&[&PKI.root]), &file);
            assert_eq!(stranger, Err(SignatureError::UntrustedSigner));
            // No checksum is fine, and so is a wrong one.
            for wrong in [[0; 4], [1, 0, 0, 0], [0xff; 4]] {
                let mut unsummed = file.clone();
                unsummed[image.optional + 64..][..4].copy_from_slice(&wrong);
                assert_eq!(judge(&trusting(&[&PKI.signer]), &unsummed).as_deref(), Ok("signer"), "{wrong:x?}");
            }
        }
    }
}

#[test]
fn every_byte_counts() {
    let image = image();
    let file = signed(&image, &PKI.signer, &[&PKI.signer]);
    let keys = trusting(&[&PKI.root]);
    assert!(judge(&keys, &file).is_ok());
    let checksum = image.optional + 64..image.optional + 68;
    let mut digests = 0;
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        assert_eq!(judge(&keys, &changed).is_ok(), checksum.contains(&at), "byte {at:#x}");
        if !checksum.contains(&at) {
            // With a checksum that is right again: what refuses is the signature, or the format.
            let refused = judge(&keys, &image.settle(changed)).map_err(|error| error.class());
            assert!(refused.is_err(), "byte {at:#x} does not count");
            digests += usize::from(refused == Err(ErrorClass::Rejected));
        }
    }
    assert!(digests > image.bytes.len() * 9 / 10, "{digests}");
    for length in 0..file.len() {
        assert!(judge(&keys, &file[..length]).is_err());
    }
    for extra in [&[0][..], &[0; 8], &[0; 16], &file[file.len() - 8..]] {
        let longer = image.settle([&file, extra].concat());
        assert!(matches!(judge(&keys, &longer), Err(SignatureError::Image(_))));
    }
    assert_eq!(judge(&keys, &image.bytes), Err(SignatureError::NotSigned));
}

#[test]
fn a_signature_of_another_image() {
    let image = image();
    let mut other = image.clone();
    other.bytes[0x400] ^= 1;
    let keys = trusting(&[&PKI.signer]);
    // As it is.
    let moved = other.with_table(&[entry(&signature(&image, &PKI.signer, &[]))]);
    assert_eq!(judge(&keys, &moved), Err(SignatureError::DigestMismatch));
    // With the file's hash in the description, but the signature of the former one.
    let (new, old) = (description(&PE_IMAGE, &other.hash()), description(&PE_IMAGE, &image.hash()));
    let replaced = other.with_table(&[entry(&message(&PKI.openssl, &PKI.signer, &[], &new, &old))]);
    assert_eq!(judge(&keys, &replaced), Err(SignatureError::DigestMismatch));
    // And the message digest replaced as well.
    let right = message(&PKI.openssl, &PKI.signer, &[], &new, &new);
    let wrong = message(&PKI.openssl, &PKI.signer, &[], &old, &old);
    let mut forged = Node::only(&right);
    *forged.at(&[1, 0, 3, 0, 5]) = Node::only(&wrong).at(&[1, 0, 3, 0, 5]).clone();
    let forged = other.with_table(&[entry(&forged.write())]);
    assert_eq!(judge(&keys, &forged), Err(SignatureError::BadSignature));
    assert!(judge(&keys, &other.with_table(&[entry(&right)])).is_ok());
}

#[test]
fn the_description_is_one_of_an_image() {
    let image = image();
    let keys = trusting(&[&PKI.signer]);
    let hash = image.hash();
    let judge_described = |described: &[u8]| {
        judge(&keys, &image.with_table(&[entry(&message(&PKI.openssl, &PKI.signer, &[], described, described))]))
    };
    assert!(judge_described(&description(&PE_IMAGE, &hash)).is_ok());
    // As pesign has it.
    let mut pesign = PE_IMAGE;
    pesign[9] = 21;
    assert!(judge_described(&description(&pesign, &hash)).is_ok());
    assert_eq!(judge_described(&description(&pesign, &hash[..31])), Err(SignatureError::DigestMismatch));
    let mut cabinet = PE_IMAGE;
    cabinet[9] = 25;
    assert!(matches!(judge_described(&description(&cabinet, &hash)), Err(SignatureError::Message(_))));
    assert_eq!(judge_described(&description(&PE_IMAGE, &hash[..31])), Err(SignatureError::DigestMismatch));
    assert_eq!(judge_described(&description(&PE_IMAGE, &[])), Err(SignatureError::DigestMismatch));
    let broken: [Change; 4] = [
        |d| d.nodes().push(Node::only(&[5, 0])),
        |d| d.at(&[1]).nodes().push(Node::only(&[5, 0])),
        |d| drop(d.nodes().pop()),
        |d| d.at(&[1, 1]).tag = 3,
    ];
    for change in broken {
        let mut described = Node::only(&description(&PE_IMAGE, &hash));
        change(&mut described);
        assert!(matches!(judge_described(&described.write()), Err(SignatureError::Message(_))));
    }
    // SHA-1, 1.3.14.3.2.26.
    let mut old = Node::only(&description(&PE_IMAGE, &hash[..20]));
    *old.at(&[1, 0, 0]) = Node::only(&element(6, &[0x2b, 14, 3, 2, 26]));
    assert_eq!(judge_described(&old.write()).unwrap_err().class(), ErrorClass::Unsupported);
}

#[test]
fn messages_of_another_kind() {
    let image = image();
    let keys = trusting(&[&PKI.signer]);
    // A module's signature, with and without the content.
    let module = PKI.openssl.sign(&image.bytes, &[&PKI.signer], &[], &["-noattr"]);
    let judge_message = |message: &[u8]| judge(&keys, &image.with_table(&[entry(message)]));
    assert_eq!(judge_message(&module), Err(SignatureError::ContentType));
    let mut detached = Node::only(&signature(&image, &PKI.signer, &[]));
    detached.at(&[1, 0, 2]).nodes().truncate(1);
    assert!(matches!(judge_message(&detached.write()), Err(SignatureError::Attachment(_))));
    // Without signed attributes; nor does such a message sign a module.
    let described = description(&PE_IMAGE, &image.hash());
    let arguments = ["-noattr", "-econtent_type", "1.3.6.1.4.1.311.2.1.4"];
    let plain = PKI.openssl.sign(&described[2..], &[&PKI.signer], &[], &arguments);
    let mut plain = Node::only(&plain);
    *plain.at(&[1, 0, 0]) = Node::only(&[2, 1, 1]);
    plain.at(&[1, 0, 2]).nodes().push(Node::only(&element(0xa0, &described)));
    // The command adds attributes to whatever is not plain data.
    let signer = plain.at(&[1, 0, 3, 0]).nodes();
    signer.retain(|node| node.tag != 0xa0);
    let signature = PKI.openssl.raw_signature(&PKI.signer.key, &described[2..]);
    *signer.last_mut().unwrap() = Node::only(&element(4, &signature));
    assert!(matches!(judge_message(&plain.write()), Err(SignatureError::Attributes(_))));
    // The signed attributes are about data, the message is about an image.
    let mut data = Node::only(&PKI.openssl.sign(&described[2..], &[&PKI.signer], &[], &[]));
    *data.at(&[1, 0, 2]) =
        Node::only(&message(&PKI.openssl, &PKI.signer, &[], &described, &described)).at(&[1, 0, 2]).clone();
    assert_eq!(judge_message(&data.write()), Err(SignatureError::ContentType));
    assert!(SignedMessage::parse(&data.write()).is_ok());
}

#[test]
fn signers_of_images_sign_code() {
    let image = image();
    for (usage, ok) in [
        ("extendedKeyUsage=codeSigning", true),
        ("extendedKeyUsage=serverAuth,codeSigning", true),
        ("extendedKeyUsage=anyExtendedKeyUsage", true),
        ("extendedKeyUsage=serverAuth", false),
        ("extendedKeyUsage=codeSigning,1.3.6.1.4.1.2312.16.1.2", false),
        ("keyUsage=keyCertSign", false),
        ("keyUsage=digitalSignature", true),
    ] {
        let signer = PKI.openssl.certificate(&PKI.curve[0], "usage", usage, Some(&PKI.root));
        for (keys, carried) in [(trusting(&[&signer]), &[][..]), (trusting(&[&PKI.root]), &[&signer])] {
            let found = judge(&keys, &signed(&image, &signer, carried));
            assert_eq!(found.is_ok(), ok, "{usage}: {found:?}");
            assert!(ok || found == Err(SignatureError::KeyUsage), "{usage}: {found:?}");
        }
    }
}

#[test]
fn revoked_and_blocked_images() {
    let image = image();
    let middle = PKI.openssl.certificate(&PKI.curve[0], "middle", AUTHORITY, Some(&PKI.root));
    let leaf = PKI.openssl.certificate(&PKI.curve[1], "leaf", SIGNER, Some(&middle));
    let file = signed(&image, &leaf, &[&leaf, &middle]);
    assert!(judge(&trusting(&[&PKI.root]), &file).is_ok());
    for revoked in [&leaf, &middle, &PKI.root] {
        let mut builder = builder(&[&PKI.root]);
        builder.revoke(&revoked.der).unwrap();
        assert_eq!(judge(&builder.finish(), &file), Err(SignatureError::Revoked));
    }
    let keys = blocking(&[&PKI.root], Hashed::Binary, &image.hash());
    assert_eq!(judge(&keys, &file), Err(SignatureError::ContentBlocked));
}

#[test]
fn several_signatures() {
    let image = image();
    let unknown = PKI.openssl.certificate(&PKI.curve[0], "unknown", SIGNER, None);
    let (good, other) = (signature(&image, &PKI.signer, &[]), signature(&image, &unknown, &[]));
    let keys = trusting(&[&PKI.signer]);
    for entries in [[&good, &other], [&other, &good]] {
        let file = image.with_table(&entries.map(|message| entry(message)));
        assert_eq!(judge(&keys, &file).as_deref(), Ok("signer"));
        assert_eq!(judge(&trusting(&[&PKI.root]), &file), Err(SignatureError::UntrustedSigner));
    }
    let five = vec![entry(&good); 5];
    assert!(judge(&keys, &image.with_table(&five[..4])).is_ok());
    assert!(matches!(judge(&keys, &image.with_table(&five)), Err(SignatureError::Image(_))));
}

#[test]
fn entries_are_what_they_must_be() {
    let image = image();
    let keys = trusting(&[&PKI.signer]);
    let good = signature(&image, &PKI.signer, &[]);
    // A length that counts the padding is met as well.
    let mut counted = entry(&good);
    let whole = u32::try_from(counted.len()).unwrap().to_le_bytes();
    counted[..4].copy_from_slice(&whole);
    assert!(judge(&keys, &image.with_table(&[counted])).is_ok());
    let broken: [fn(&mut Vec<u8>); 10] = [
        |entry| entry[4] = 1,
        |entry| entry[5] = 1,
        |entry| entry[6] = 1,
        |entry| entry[..4].fill(0),
        |entry| entry[..4].copy_from_slice(&7u32.to_le_bytes()),
        |entry| entry[..4].copy_from_slice(&8u32.to_le_bytes()),
        |entry| entry[..4].fill(0xff),
        |entry| entry[1] += 1,
        |entry| entry.extend([0; 8]),
        |entry| {
            let padded = entry.len() + 8;
            entry[..4].copy_from_slice(&u32::try_from(padded).unwrap().to_le_bytes());
            entry.resize(padded, 0);
        },
    ];
    for (number, change) in broken.iter().enumerate() {
        let mut changed = entry(&good);
        change(&mut changed);
        let refused = judge(&keys, &image.with_table(&[changed]));
        assert!(matches!(refused, Err(SignatureError::Image(_))), "{number}: {refused:?}");
    }
    // Padding is zero.
    let mut padded = entry(&[&good[..], &[]].concat());
    if !good.len().is_multiple_of(8) {
        *padded.last_mut().unwrap() = 1;
        assert!(matches!(judge(&keys, &image.with_table(&[padded])), Err(SignatureError::Image(_))));
    }
}

#[test]
fn no_byte_is_left_out() {
    // Each signed for what it is.
    for (sections, rule) in [
        (&[(0x200, 0x100), (0x308, 0x100)][..], "bytes lie between"),
        (&[(0x208, 0x100)], "bytes lie between"),
        (&[(0x200, 0x100), (0x2f8, 0x100)], "bytes lie between"),
        (&[(0x200, 0x100), (0x200, 0x200)], "two sections"),
        (&[(0x1f8, 0x108)], "in the headers"),
    ] {
        let image = Image::new(true, sections, 0);
        let refused = judge(&trusting(&[&PKI.signer]), &signed(&image, &PKI.signer, &[]));
        assert!(matches!(refused, Err(SignatureError::Image(error)) if error.rule.contains(rule)), "{refused:?}");
    }
    let image = image();
    let good = signed(&image, &PKI.signer, &[]);
    let optional = image.optional;
    for (at, value, rule) in [
        (0x3c, 0x41, "place"),
        (0x3c, 0x3e, "place"),
        (0x3c, 0x4000, "no PE signature"),
        (0x3c, u32::MAX, "place"),
        (optional, 0x107, "neither"),
        (optional + 108, 7, "more data directories"),
        (optional + 108, u32::MAX, "more data directories"),
        (optional + 60, 0x100, "not within the headers"),
        (image.directory, 8, "not end where"),
        (image.directory + 4, 8, "not end where"),
        (image.directory, u32::MAX, "not end where"),
    ] {
        let mut changed = Image { bytes: good.clone(), ..image };
        changed.put(at, value);
        let refused = judge(&trusting(&[&PKI.signer]), &changed.bytes);
        assert!(
            matches!(refused, Err(SignatureError::Image(error)) if error.rule.contains(rule)),
            "{rule}: {refused:?}"
        );
    }
    // A table within a section would not be hashed with it.
    let mut inside = Image { bytes: good.clone(), ..image };
    inside.put(optional + 160 + 16, 0x1000);
    let refused = judge(&trusting(&[&PKI.signer]), &inside.bytes);
    assert!(matches!(refused, Err(SignatureError::Image(error)) if error.rule.contains("in a section")), "{refused:?}");
}

#[test]
fn sizes_are_bounded() {
    let mut wide = image();
    wide.put(wide.optional + 60, 0x1_0001);
    wide.put(wide.directory + 4, 8);
    let refused = ImageLayout::parse(&wide.bytes, wide.bytes.len());
    assert!(matches!(refused, Err(SignatureError::TooLong { .. })), "{refused:?}");
    let image = image();
    let long = image.with_table(&[vec![0; 0x2_0008]]);
    assert!(matches!(ImageLayout::parse(&long, long.len()), Err(SignatureError::TooLong { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutations_are_refused(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), fix: bool) {
        static FILE: std::sync::LazyLock<(Image, Vec<u8>, KeyStore)> = std::sync::LazyLock::new(|| {
            let file = signed(&image(), &PKI.signer, &[&PKI.signer]);
            (image(), file, trusting(&[&PKI.root]))
        });
        let (image, file, keys) = &*FILE;
        let mut changed = file.clone();
        for (at, byte) in edits {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        let checksum = image.optional + 64..image.optional + 68;
        let same = |at: usize| checksum.contains(&at) || changed[at] == file[at];
        if !(0..file.len()).all(same) {
            let changed = if fix { image.settle(changed) } else { changed };
            prop_assert!(judge(keys, &changed).is_err());
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ImageLayout::parse(&bytes, bytes.len()).is_err());
        prop_assert!(ImageSignatures::parse(&bytes, 0).is_err());
        let start = [b"MZ".as_slice(), &bytes].concat();
        prop_assert!(ImageLayout::parse(&start, start.len()).is_err());
    }
}

/// Signed kernel images that `cargo xtask doctor --fix` has fetched, or those in the directory that `VSM_IMAGES` names.
fn real_images() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kernels");
    let place = std::env::var_os("VSM_IMAGES").map_or(beside, PathBuf::from);
    let entries = fs::read_dir(&place).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let images: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .collect();
    if images.is_empty() {
        eprintln!("skipped: there are no signed kernel images (vmlinuz*) at {}", place.display());
    }
    images
}

#[test]
fn real_images_are_signed_by_the_certificate_they_carry() {
    for path in real_images() {
        let file = fs::read(&path).unwrap();
        let layout = ImageLayout::parse(&file, file.len()).unwrap();
        let entry = &file[layout.certificates.clone()];
        let message = vsm_integrity::der::sequences(&entry[8..]).next().unwrap().unwrap();
        let message = SignedMessage::parse(message).unwrap();
        let mut builder = KeyStoreBuilder::new();
        builder.trust(message.certificates()[0].raw()).unwrap();
        let keys = builder.finish();
        let name = judge(&keys, &file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        eprintln!("{}: signed by {name}", path.display());
        assert_eq!(judge(&trusting(&[&PKI.root]), &file), Err(SignatureError::UntrustedSigner));
        // A sample of every part, but for the certificate that the message carries: the trusted one is taken.
        let carried = message.certificates()[0].raw();
        let at = file.windows(carried.len()).rposition(|bytes| bytes == carried).unwrap();
        let carried = at..at + carried.len();
        let step = file.len() / 40;
        let headers = (0..0x400).step_by(37);
        let places =
            headers.chain((0..file.len()).step_by(step)).chain((layout.certificates.start..file.len()).step_by(29));
        for at in places.filter(|at| !carried.contains(at)) {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            assert!(judge(&keys, &changed).is_err(), "byte {at:#x}");
        }
    }
}
