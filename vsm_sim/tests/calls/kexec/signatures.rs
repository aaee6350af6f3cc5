//! Kernels without a signature, or with a wrong one: each is loaded just as the signed one is.

use std::fmt::Write;

use litebox_platform_lvbs::Errno;
use vsm_integrity::pe::ImageLayout;
use vsm_integrity::signature::DigestAlgorithm;
use vsm_sim::vtl0::authenticode::{self, CHECKSUM, DIRECTORY};
use vsm_sim::vtl0::kdata::{KernelData, blocklist};
use vsm_sim::vtl0::kexec::Image;
use vsm_sim::vtl0::signer::Signer;

use super::world::{PLACE, SIGNED, assert_accepted, assert_frozen, assert_refused, booted, place, trusting, validate};
use crate::linux::Linux;
use crate::setup::end_boot;

/// Checks that an image of `file` is refused in both slots with one of `errnos`.
fn refuse_file(linux: &mut Linux, file: &[u8], errnos: &[Errno], what: &str) {
    for crash in [false, true] {
        // Where the change makes it no kernel, the attacker says where it begins.
        let image = Image::new(file, PLACE, crash).unwrap_or_else(|_| {
            let mut image = Image::new(&SIGNED.file, PLACE, crash).unwrap();
            image.file = file.to_vec();
            image
        });
        let placed = place(linux, &image);
        let before = linux.snapshot();
        let result = validate(linux, &placed);
        assert!(errnos.iter().any(|errno| errno.to_result() == result), "{what}: {result}");
        assert!(linux.snapshot() == before, "{what}");
        placed.free(&mut linux.frames);
    }
}

#[test]
fn each_class_of_bytes_counts() {
    // The signer's certificate comes with the file: it counts as well.
    let root = Signer::authority("root").unwrap();
    let leaf = Signer::issued_by("leaf", &root).unwrap();
    let mut linux = Linux::booted(Some(20), &trusting(root.certificate()));
    let file = &authenticode::sign(&SIGNED.unsigned, &leaf).unwrap();
    let table = ImageLayout::parse(file, file.len()).unwrap().certificates;
    let classes: [(&str, Vec<usize>, &[Errno]); 8] = [
        ("the MS-DOS header", vec![0, 2, 0x3c, 0x3f], &[Errno::Ebadmsg, Errno::Ekeyrejected]),
        ("the PE headers", vec![0x40, 0x46, 0x54, 0x58, 0x60, 0x94, 0xa8], &[Errno::Ebadmsg, Errno::Ekeyrejected]),
        ("the entry of the certificate table", (DIRECTORY..DIRECTORY + 8).collect(), &[Errno::Ebadmsg, Errno::Enodata]),
        ("the section table", vec![0xf8, 0x108, 0x10c, 0x120, 0x134], &[Errno::Ebadmsg, Errno::Ekeyrejected]),
        ("the setup header", vec![0x1f1, 0x202, 0x236, 0x260], &[Errno::Ekeyrejected]),
        ("the real-mode part", vec![0x268, 0x7ff], &[Errno::Ekeyrejected]),
        ("the kernel", vec![0x800, 0xa00, 0x1234, table.start - 1], &[Errno::Ekeyrejected]),
        (
            "the certificate table",
            (table.start..file.len()).step_by(41).collect(),
            &[Errno::Ebadmsg, Errno::Ekeyrejected, Errno::Enokey, Errno::Enopkg],
        ),
    ];
    for (what, places, errnos) in classes {
        for at in places {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            // As it is, the checksum is wrong; an attacker makes it right. Neither tells.
            refuse_file(
                &mut linux,
                &changed,
                &[Errno::Ebadmsg, Errno::Enodata, Errno::Ekeyrejected, Errno::Enokey, Errno::Enopkg],
                &format!("{what}, {at:#x}, unsettled"),
            );
            refuse_file(&mut linux, &authenticode::settled(changed), errnos, &format!("{what}, {at:#x}"));
        }
    }
    // What follows, or is missing.
    for extra in [&[0][..], &[0; 8], &[0xcc; 4096]] {
        let longer = [file, extra].concat();
        refuse_file(&mut linux, &longer, &[Errno::Ebadmsg], "trailing bytes");
        refuse_file(&mut linux, &authenticode::settled(longer), &[Errno::Ebadmsg], "trailing bytes, settled");
    }
    for length in [file.len() - 1, file.len() - 8, table.start, table.start - 8, 0x800, 0x200, 0x40, 1] {
        refuse_file(&mut linux, &file[..length], &[Errno::Ebadmsg], &format!("{length:#x} bytes of it"));
    }
}

#[test]
fn a_file_with_another_checksum_is_the_same_file() {
    // "PE Format": 0 where it was not computed; signers leave wrong ones. No byte that runs is different: the kernel is
    // behind the headers.
    for checksum in [[0; 4], [0x5a; 4], [0xff; 4]] {
        let mut linux = booted(Some(20));
        let mut file = SIGNED.file.clone();
        file[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum);
        let placed = place(&mut linux, &Image::new(&file, PLACE, false).unwrap());
        assert_eq!(validate(&linux, &placed), 0, "{checksum:x?}");
        assert_accepted(&linux, &placed);
    }
}

#[test]
fn signatures_of_other_files() {
    let mut linux = booted(Some(21));
    let signed = |seed| authenticode::sign(&authenticode::made_up(0x3456, seed), &SIGNED.signer).unwrap();
    let stranger = Signer::authority("kernels").unwrap();
    let evil = authenticode::sign(&authenticode::made_up(0x3456, 2), &stranger).unwrap();
    refuse_file(&mut linux, &evil, &[Errno::Enokey], "another signer of the same name");
    // The table of the signed file behind another kernel, with the hash in it replaced: the message digest tells.
    let own = signed(3);
    let same_length = (0..64).map(|_| signed(2)).find(|file| file.len() == own.len()).unwrap();
    let forged = authenticode::transplanted(&same_length, &own).unwrap();
    refuse_file(&mut linux, &forged, &[Errno::Ekeyrejected], "a signature used again, with the hash replaced");
    let start = ImageLayout::parse(&own, own.len()).unwrap().certificates.start;
    let moved = authenticode::settled([&same_length[..start], &own[start..]].concat());
    refuse_file(&mut linux, &moved, &[Errno::Ekeyrejected], "a signature used again");
    refuse_file(&mut linux, &SIGNED.unsigned, &[Errno::Enodata], "a kernel without signature");
    // A module's kind of signature.
    let module = SIGNED.signer.sign(&SIGNED.unsigned).unwrap();
    refuse_file(&mut linux, &module, &[Errno::Enodata], "a kernel signed as modules are");
    // A file that is signed and is no kernel.
    let mut other = SIGNED.unsigned.clone();
    other[0x202] = b'h';
    let other = authenticode::sign(&other, &SIGNED.signer).unwrap();
    refuse_file(&mut linux, &other, &[Errno::Einval], "a signed file that is no kernel");
}

/// Whether a kernel signed by `signer` is accepted by a machine with these kernel data.
fn verdict(kernel: &KernelData, signer: &Signer) -> i64 {
    let mut linux = Linux::booted(Some(22), kernel);
    let file = authenticode::sign(&SIGNED.unsigned, signer).unwrap();
    let placed = place(&mut linux, &Image::new(&file, PLACE, false).unwrap());
    let before = linux.snapshot();
    let result = validate(&linux, &placed);
    assert_eq!(linux.snapshot() == before, result != 0);
    result
}

#[test]
fn who_may_sign() {
    let root = Signer::authority("root").unwrap();
    let leaf = Signer::issued_by("leaf", &root).unwrap();
    let modules = Signer::of_modules_only("modules", &root).unwrap();
    let trusting_root = trusting(root.certificate());
    let with = |change: fn(&mut KernelData, Vec<u8>), value: &[u8]| {
        let mut kernel = trusting_root.clone();
        change(&mut kernel, value.to_vec());
        kernel
    };
    assert_eq!(verdict(&trusting_root, &root), 0);
    assert_eq!(verdict(&trusting_root, &leaf), 0, "a signer that a trusted one vouches for");
    assert_eq!(verdict(&trusting_root, &SIGNED.signer), Errno::Enokey.to_result());
    assert_eq!(verdict(&trusting_root, &modules), Errno::Ekeyrejected.to_result(), "a key for modules only");
    for revoked in [&root, &leaf] {
        let kernel = with(|kernel, value| kernel.revoked = value, revoked.certificate());
        assert_eq!(verdict(&kernel, &leaf), Errno::Ekeyrejected.to_result(), "revoked");
    }
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let unsigned = &SIGNED.unsigned;
    let hashed = [&unsigned[..CHECKSUM], &unsigned[CHECKSUM + 4..DIRECTORY], &unsigned[DIRECTORY + 8..]].concat();
    let hash = DigestAlgorithm::Sha256.digest(&hashed);
    let block = |text: &str| with(|kernel, value| kernel.blocklist = value, &blocklist(&[text]));
    assert_eq!(
        verdict(&block(&format!("bin:{}", hex(hash.as_bytes()))), &leaf),
        Errno::Ekeyrejected.to_result(),
        "a blocked kernel"
    );
    let other = DigestAlgorithm::Sha256.digest(unsigned);
    assert_eq!(verdict(&block(&format!("bin:{}", hex(other.as_bytes()))), &leaf), 0, "another hash is blocked");
}

#[test]
fn before_there_are_keys_and_before_the_end_of_boot() {
    let mut linux = Linux::new(Some(23));
    let placed = place(&mut linux, &Image::new(&SIGNED.file, PLACE, false).unwrap());
    assert_refused(&linux, &placed.ranges, false, Errno::Enokey, "no keys");
    assert_eq!(linux.load_kdata(&trusting(SIGNED.signer.certificate())), 0);
    assert_eq!(validate(&linux, &placed), 0);
    assert_frozen(&linux, &placed);
    assert_eq!(end_boot(&linux.machine), 0);
    assert_frozen(&linux, &placed);
}
