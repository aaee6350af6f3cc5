//! Certificates, messages and a kernel image that OpenSSL has signed, as files: the private keys were thrown away.
//!
//! `cargo test --manifest-path fuzz/Cargo.toml --lib renew -- --ignored` makes all of them anew, with new keys. That is needed
//! when the made-up modules of the simulator change, as their signatures are among the files.

use std::sync::LazyLock;

use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::made_up::{FUNCTION, MODULES, MadeUp};
use vsm_sim::vtl0::modules::Module;
use vsm_sim::vtl0::signer::appended;

/// A P-256 certificate that signed itself, and may sign certificates.
pub const AUTHORITY: &[u8] = include_bytes!("../fixtures/authority.der");
/// An RSA-2048 certificate that the authority has signed, and that may sign modules.
pub const SIGNER: &[u8] = include_bytes!("../fixtures/signer.der");
/// A P-256 certificate of the same kind.
pub const OTHER: &[u8] = include_bytes!("../fixtures/other.der");
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

/// A kernel that can be loaded for kexec, with a signature, and the P-256 certificate of who has signed it.
pub const KERNEL_FILE: &[u8] = include_bytes!("../fixtures/kernel.pe");
/// See [`KERNEL_FILE`].
pub const KERNEL_SIGNER: &[u8] = include_bytes!("../fixtures/kernel.der");

/// Symbols and seed of the made-up kernel that the made-up modules are for.
pub const KERNEL: (usize, u64) = (5, 1);

/// Two modules in memory, with their signed files: the second calls the first.
pub static MADE_UP: LazyLock<[Module; 2]> = LazyLock::new(|| {
    let messages = [&include_bytes!("../fixtures/first.cms")[..], &include_bytes!("../fixtures/second.cms")[..]];
    let [first, second] = unsigned();
    [(first, messages[0]), (second, messages[1])]
        .map(|(module, message)| Module { file: appended(&module.file, message), ..module })
});

/// What the modules call: names and values of a function of the kernel's and of one of the first module's.
pub static CALLED: LazyLock<[(String, u64); 2]> = LazyLock::new(|| {
    let (_, exports) = KernelData::made_up(KERNEL.0, KERNEL.1);
    let helper = exports.into_iter().find(|export| export.value > 1 << 63).expect("the kernel exports a function");
    [(helper.name, helper.value), ("first_function".to_owned(), MODULES + FUNCTION)]
});

fn unsigned() -> [Module; 2] {
    let [helper, function] = CALLED.clone();
    let first = MadeUp { name: "first".into(), calls: helper, start: MODULES, text_pages: 2 };
    let second = MadeUp { name: "second".into(), calls: function, start: MODULES + 0x100_0000, text_pages: 2 };
    [first, second].map(|made_up| made_up.build().expect("everything is within reach"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vsm_sim::vtl0::authenticode;
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
        let kernels = Signer::authority("kernels").expect("openssl");
        let kernel = authenticode::sign(&authenticode::made_up(0x1234, 1), &kernels).expect("openssl");
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        for (name, bytes) in [
            ("authority.der", &authority.der),
            ("signer.der", &signer.der),
            ("other.der", &other.der),
            ("plain.cms", &openssl.sign(CONTENT, &[&signer], &[], &["-noattr"])),
            ("key_id.cms", &openssl.sign(CONTENT, &[&other], &[], &["-keyid", "-md", "sha384"])),
            ("chain.cms", &openssl.sign(CONTENT, &[&other], &[&other], &["-md", "sha256"])),
            ("first.cms", &first),
            ("second.cms", &second),
            ("image.pe", &image.bytes),
            ("kernel.pe", &kernel),
            ("kernel.der", &kernels.certificate().to_vec()),
        ] {
            std::fs::write(directory.join(name), bytes).expect("a file");
        }
    }
}
