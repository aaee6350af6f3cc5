//! Small files from the field, each with the answer that is right for it.
//!
//! They are test data that lie beside the repository, or in the directory that `VSM_INPUTS` names; where they are not, these
//! tests say so and show nothing.

use std::fs;
use std::path::{Path, PathBuf};

use vsm_integrity::keys::KeyStoreBuilder;
use vsm_integrity::pe::ImageLayout;
use vsm_integrity::signature::{Certificate, ErrorClass, SignatureError};

use crate::der::{Content, Node};
use crate::odd::number_of;
use crate::pe::judge_image;
use crate::support::{CONTENT, PKI, judge, module, trusting, verdict};

fn inputs() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/inputs");
    let place = std::env::var_os("VSM_INPUTS").map_or(beside, PathBuf::from);
    if place.join("README.md").is_file() {
        return Some(place);
    }
    eprintln!("skipped: there are no inputs at {}", place.display());
    None
}

fn builder(der: &[u8]) -> KeyStoreBuilder {
    let mut builder = KeyStoreBuilder::new();
    builder.trust(der).expect("a certificate that can be trusted");
    builder
}

#[test]
fn images_as_real_signers_make_them() {
    let Some(place) = inputs() else { return };
    let signer = fs::read(place.join("pe/signer.der")).unwrap();
    for name in ["plain_ok", "rounded_length", "pesign_oid", "wrong_checksum"] {
        let file = fs::read(place.join(format!("pe/{name}.pe"))).unwrap();
        for piece in [7, 4096] {
            assert_eq!(judge_image(&builder(&signer).finish(), &file, piece).as_deref(), Ok("qa-signer"), "{name}");
        }
        assert_eq!(judge_image(&trusting(&[&PKI.root]), &file, 4096), Err(SignatureError::UntrustedSigner), "{name}");
        // And not a byte of what is loaded is another.
        let table = ImageLayout::parse(&file, file.len()).unwrap().certificates;
        for at in (0x200..table.start).step_by(397) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(judge_image(&builder(&signer).finish(), &changed, 4096).is_err(), "{name}, {at:#x}");
        }
    }
}

#[test]
fn messages_as_they_are_met() {
    let Some(place) = inputs() else { return };
    let content = fs::read(place.join("messages/content")).unwrap();
    for (name, expected) in
        [("self_issued_pathlen", Ok("QA root".to_owned())), ("critical_ee", Err(SignatureError::CriticalExtension))]
    {
        let root = fs::read(place.join(format!("messages/{name}_root.der"))).unwrap();
        let message = fs::read(place.join(format!("messages/{name}.cms"))).unwrap();
        assert_eq!(verdict(&builder(&root).finish(), &module(&content, &message)), expected, "{name}");
        assert!(verdict(&builder(&root).finish(), &module(&content[1..], &message)).is_err(), "{name}");
    }
}

#[test]
fn certificates_as_vendors_ship_them() {
    let Some(place) = inputs() else { return };
    let plain = PKI.openssl.sign(CONTENT, &[&PKI.signer], &[&PKI.signer], &["-noattr"]);
    let mut seen = 0;
    for path in fs::read_dir(place.join("certificates")).unwrap().map(|entry| entry.unwrap().path()) {
        let der = fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        seen += 1;
        // Trusted is what is DER to the last byte, here only the control.
        let trusted = KeyStoreBuilder::new().trust(&der);
        assert_eq!(trusted.is_ok(), name == "plain", "{name}: {trusted:?}");
        assert!(trusted.is_ok() || trusted.unwrap_err().class() == ErrorClass::BadMessage, "{name}");
        // As a revoked one it takes no other away, and counts itself, in whatever form it comes again.
        for signer_too in [true, false] {
            let mut builder = builder(&PKI.root.der);
            builder.revoke(&der).unwrap_or_else(|error| panic!("{name}: {error}"));
            if signer_too {
                builder.revoke(&PKI.signer.der).unwrap();
            }
            let mut keys = builder.finish();
            assert_eq!(keys.revoked_counts().0, 1 + usize::from(signer_too));
            let refused = if signer_too { Err(SignatureError::Revoked) } else { Ok("root".to_owned()) };
            assert_eq!(judge(&keys, &plain), refused, "{name}");
            let again = number_of(&der);
            assert!(Certificate::parse(&again[..]).is_ok(), "{name}");
            assert_eq!(keys.add_secondary(&again), Err(SignatureError::Revoked), "{name}");
        }
        // As a needless one in a message it is passed over, wherever it lies.
        for first in [true, false] {
            let mut message = Node::only(&plain);
            let odd = Node { tag: der[0], content: Content::Bytes(der[4..].to_vec()) };
            assert_eq!(odd.write(), der, "{name}");
            let carried = message.at(&[1, 0, 3]).nodes();
            carried.insert(if first { 0 } else { carried.len() }, odd);
            assert_eq!(judge(&trusting(&[&PKI.root]), &message.write()).as_deref(), Ok("root"), "{name}");
        }
    }
    assert!(seen >= 7, "{seen} certificates");
}
