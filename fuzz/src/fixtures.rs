//! Certificates, messages and a kernel image that OpenSSL has signed, as files: the private keys were thrown away. Those of
//! the made-up modules and of the kernel for kexec are the simulator's.
//!
//! `cargo test --manifest-path fuzz/Cargo.toml --lib renew -- --ignored` makes all of them anew, with new keys. That is needed
//! when the made-up modules of the simulator change, as their signatures are among the files.

pub use vsm_sim::vtl0::signed::{AUTHORITY, CALLED, KERNEL, KERNEL_FILE, KERNEL_SIGNER, MADE_UP, OTHER, SIGNER};

/// What the messages sign.
pub const CONTENT: &[u8] = &[0x5a; 1000];
/// The signer's message, as Linux's build makes it: no attributes, no certificates.
pub const PLAIN: &[u8] = include_bytes!("../fixtures/plain.cms");
/// The other's message, with attributes and SHA-384, that names them by their key.
pub const KEY_ID: &[u8] = include_bytes!("../fixtures/key_id.cms");
/// The other's message, with attributes, that carries their certificate.
pub const CHAIN: &[u8] = include_bytes!("../fixtures/chain.cms");
/// A PE file with the signer's signature, without a checksum.
pub const IMAGE: &[u8] = include_bytes!("../fixtures/image.pe");

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vsm_sim::vtl0::authenticode;
    use vsm_sim::vtl0::signed::unsigned;
    use vsm_sim::vtl0::signer::Signer;

    use super::*;
    use crate::openssl::{self, Openssl};
    use crate::pe::{Image, PE_IMAGE, description, entry, message};

    #[test]
    #[ignore = "makes the files anew"]
    fn renew() {
        let openssl = Openssl::new();
        let certificate = |key: &str, name: &str, extensions, issuer| {
            openssl.certificate(&openssl.key(key), name, extensions, issuer)
        };
        let authority = certificate("curve:P-256", "authority", openssl::AUTHORITY, None);
        let signer = certificate("rsa:2048", "signer", openssl::SIGNER, Some(&authority));
        let other = certificate("curve:P-256", "other", openssl::SIGNER, Some(&authority));
        let image = Image::new(true, &[(0x300, 0x180), (0x200, 0x100)], 24);
        let described = description(&PE_IMAGE, &image.hash());
        let whole = image.with_table(&[entry(&message(&openssl, &signer, &[], &described, &described))]);
        let mut image = Image { bytes: whole, ..image };
        image.put(image.optional + 64, 0);
        let [first, second] =
            unsigned().map(|module| openssl.sign(&module.file, &[&signer], &[], &["-noattr", "-md", "sha512"]));
        let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        let simulator = crate_directory.join("../vsm_sim/src/vtl0/fixtures");
        let kernels = Signer::authority("kernels").expect("openssl");
        let kernel = authenticode::sign(&authenticode::made_up(0x1234, 1), &kernels).expect("openssl");
        for (name, bytes) in [
            ("authority.der", &authority.der),
            ("signer.der", &signer.der),
            ("other.der", &other.der),
            ("first.cms", &first),
            ("second.cms", &second),
            ("kernel.pe", &kernel),
            ("kernel.der", &kernels.certificate().to_vec()),
        ] {
            std::fs::write(simulator.join(name), bytes).expect("a file");
        }
        let directory = crate_directory.join("fixtures");
        for (name, bytes) in [
            ("plain.cms", &openssl.sign(CONTENT, &[&signer], &[], &["-noattr"])),
            ("key_id.cms", &openssl.sign(CONTENT, &[&other], &[], &["-keyid", "-md", "sha384"])),
            ("chain.cms", &openssl.sign(CONTENT, &[&other], &[&other], &["-md", "sha256"])),
            ("image.pe", &image.bytes),
        ] {
            std::fs::write(directory.join(name), bytes).expect("a file");
        }
    }
}
