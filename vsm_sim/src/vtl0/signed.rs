//! Two made-up modules and a kernel for kexec signed by a signer that a made-up kernel may trust, as files: with the
//! same bytes in every run, so that a run can be repeated. The private keys were thrown away.
//!
//! The fuzz targets use them too, and `cargo test --manifest-path fuzz/Cargo.toml --lib renew -- --ignored` makes the files
//! anew, which is needed when [`MadeUp`] changes.

use std::sync::LazyLock;

use super::kdata::KernelData;
use super::made_up::{FUNCTION, MODULES, MadeUp};
use super::modules::Module;
use super::signer::appended;

/// A P-256 certificate that signed itself, and may sign certificates.
pub const AUTHORITY: &[u8] = include_bytes!("fixtures/authority.der");
/// An RSA-2048 certificate that the authority has signed, and that may sign modules.
pub const SIGNER: &[u8] = include_bytes!("fixtures/signer.der");
/// A P-256 certificate of the same kind.
pub const OTHER: &[u8] = include_bytes!("fixtures/other.der");

/// A kernel that can be loaded for kexec, with a signature, and the P-256 certificate of who has signed it.
pub const KERNEL_FILE: &[u8] = include_bytes!("fixtures/kernel.pe");
/// See [`KERNEL_FILE`].
pub const KERNEL_SIGNER: &[u8] = include_bytes!("fixtures/kernel.der");

/// Symbols and seed of the made-up kernel that the made-up modules are for.
pub const KERNEL: (usize, u64) = (5, 1);

/// Two modules in memory, with their signed files: the second calls the first.
pub static MADE_UP: LazyLock<[Module; 2]> = LazyLock::new(|| {
    let messages = [&include_bytes!("fixtures/first.cms")[..], &include_bytes!("fixtures/second.cms")[..]];
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

/// The modules with the files that are to be signed.
///
/// # Panics
/// When the made-up kernel has changed so much that its function cannot be called.
pub fn unsigned() -> [Module; 2] {
    let [helper, function] = CALLED.clone();
    let first = MadeUp { name: "first".into(), calls: helper, start: MODULES, text_pages: 2 };
    let second = MadeUp { name: "second".into(), calls: function, start: MODULES + 0x100_0000, text_pages: 2 };
    [first, second].map(|made_up| made_up.build().expect("everything is within reach"))
}
