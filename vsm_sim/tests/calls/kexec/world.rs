//! A signed kernel, a machine that trusts its signer, and what must hold for an image.

use litebox_platform_lvbs::Errno;
use std::sync::LazyLock;

use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::kexec::{Image, Placed};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::signer::Signer;

use crate::linux::Linux;
use crate::setup::call_with_list;

/// Where images go: free memory, as everything is but VTL1's.
pub const PLACE: u64 = 0x300_0000;

/// A signer, and the kernel it has signed.
pub struct Signed {
    pub signer: Signer,
    /// Without signature.
    pub unsigned: Vec<u8>,
    pub file: Vec<u8>,
}

/// A kernel of three pages and a bit, signed.
pub static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let signer = Signer::authority("kernels").unwrap();
    let unsigned = authenticode::made_up(0x3456, 1);
    let file = authenticode::sign(&unsigned, &signer).unwrap();
    Signed { signer, unsigned, file }
});

/// Kernel data that trust a certificate.
pub fn trusting(certificate: &[u8]) -> KernelData {
    KernelData { certificates: certificate.to_vec(), ..KernelData::default() }
}

/// A machine at the end of its boot, which trusts the signer.
pub fn booted(seed: Option<u64>) -> Linux {
    Linux::booted(seed, &trusting(SIGNED.signer.certificate()))
}

/// The image of the signed kernel.
pub fn image(crash: bool) -> Image {
    Image::new(&SIGNED.file, if crash { PLACE + 0x100_0000 } else { PLACE }, crash).unwrap()
}

pub fn place(linux: &mut Linux, image: &Image) -> Placed {
    image.place(linux.machine.memory(), &mut linux.frames).unwrap()
}

pub fn validate_ranges(linux: &Linux, ranges: &[Range], crash: bool) -> i64 {
    call_with_list(&linux.machine, VsmFunction::KexecValidate, ranges, u64::from(crash))
}

pub fn validate(linux: &Linux, placed: &Placed) -> i64 {
    validate_ranges(linux, &placed.ranges, placed.flag() == 1)
}

pub fn invalidate(linux: &Linux, crash: bool) -> i64 {
    linux.machine.vtl_call(0, VsmFunction::KexecValidate.id(), 0, 0, u64::from(crash))
}

/// Checks that VTL0 can write none of the image's pages, and all of the file's.
pub fn assert_accepted(linux: &Linux, placed: &Placed) {
    assert_frozen(linux, placed);
    linux.assert_free(&placed.file);
}

/// Checks that VTL0 can write none of the image's pages.
pub fn assert_frozen(linux: &Linux, placed: &Placed) {
    let owner = Owner::Kexec { crash: placed.flag() == 1 };
    for page in placed.frozen() {
        assert_eq!(linux.page(page), (owner, Permission::R), "page {page:#x}");
    }
}

/// Checks that VTL0 has all of the image's pages.
pub fn assert_free(linux: &Linux, placed: &Placed) {
    linux.assert_free(&placed.frozen());
    linux.assert_free(&placed.file);
}

/// Checks that an image is refused with `errno` and nothing has changed.
pub fn assert_refused(linux: &Linux, ranges: &[Range], crash: bool, errno: Errno, what: &str) {
    let before = linux.snapshot();
    let result = validate_ranges(linux, ranges, crash);
    assert_eq!(result, errno.to_result(), "{what}");
    assert!(linux.snapshot() == before, "{what}: something has changed");
}
