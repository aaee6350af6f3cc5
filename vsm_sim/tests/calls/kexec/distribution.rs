//! A distribution's signed kernel, which `cargo xtask doctor --fix` fetches.

use std::fs;

use litebox_platform_lvbs::Errno;
use vsm_integrity::pe::ImageLayout;
use vsm_sim::vtl0::kexec::{Image, KERNEL, distribution_kernels};
use vsm_sim::vtl0::{authenticode, bytes};

use super::world::{SIGNED, assert_accepted, assert_free, assert_refused, invalidate, place, trusting, validate};
use crate::linux::Linux;

/// Where its segments go: some 52 MiB below VTL1.
const AT: u64 = 0x280_0000;

#[test]
fn a_distribution_s_kernel_is_accepted_and_nothing_else_in_its_place() {
    let kernels = distribution_kernels();
    if kernels.is_empty() {
        println!("SKIPPED: there is no signed kernel in target/kernels; `cargo xtask doctor --fix` fetches one");
    }
    for path in kernels {
        let file = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let certificate = authenticode::signer_of(&file).unwrap();
        let mut linux = Linux::booted(None, &trusting(&certificate));
        let table = ImageLayout::parse(&file, file.len()).unwrap().certificates;
        let pe = usize::try_from(u32::from_le_bytes(file[0x3c..0x40].try_into().unwrap())).unwrap();
        let checksum = pe + 24 + 64;
        let mut image = Image::new(&file, AT, false).unwrap();
        let placed = place(&mut linux, &image);
        assert_eq!(validate(&linux, &placed), 0, "{name}");
        assert_accepted(&linux, &placed);
        let (all, links) = (placed.frozen().len(), placed.links.len());
        println!("{name}: {} KiB, {all} pages, {links} of the page list", file.len() >> 10);
        assert_eq!(invalidate(&linux, false), 0);
        assert_free(&linux, &placed);
        let poke = |linux: &Linux, at: u64, byte: u8| bytes::write(linux.machine.memory(), at, &[byte]).unwrap();
        // Other bytes in the kernel's pages: in the middle, and the last byte of all.
        let pages = &placed.sources[KERNEL];
        for (page, byte) in [(pages[pages.len() / 4], None), (pages[pages.len() - 1] + 0xfff, Some(0))] {
            let mut was = [0];
            bytes::read(linux.machine.memory(), page, &mut was).unwrap();
            assert!(byte.is_none_or(|byte| byte == was[0]));
            poke(&linux, page, was[0] ^ 1);
            assert_refused(&linux, &placed.ranges, false, Errno::Einval, "a byte of the kernel's pages");
            poke(&linux, page, was[0]);
        }
        // Other bytes in the file, a byte of each class. The checksum is of no account.
        let place_of = |at: usize| placed.file[at / 4096] + at as u64 % 4096;
        (0..4).for_each(|byte| poke(&linux, place_of(checksum + byte), 0x5a));
        for (at, what) in [
            (2, "the MS-DOS header"),
            (pe + 24 + 16, "the PE headers"),
            (pe + 24 + 112 + 32, "the entry of the certificate table"),
            (0x1f4, "the setup header"),
            (0x1000, "the real-mode part"),
            (file.len() / 2, "the kernel"),
            (table.start + 4, "an entry of the certificate table"),
            (table.end - 100, "the signature"),
        ] {
            let was = file[at];
            poke(&linux, place_of(at), was ^ 4);
            let before = linux.snapshot();
            let result = validate(&linux, &placed);
            assert!(
                [Errno::Ebadmsg.to_result(), Errno::Ekeyrejected.to_result()].contains(&result),
                "{name}, {what}: {result}"
            );
            assert!(linux.snapshot() == before, "{name}, {what}");
            poke(&linux, place_of(at), was);
        }
        assert_eq!(validate(&linux, &placed), 0, "{name} once more");
        assert_eq!(invalidate(&linux, false), 0);
        placed.free(&mut linux.frames);
        image.file.extend([0; 8]);
        let longer = place(&mut linux, &image);
        assert_refused(&linux, &longer.ranges, false, Errno::Ebadmsg, "trailing bytes");
        image.file.clone_from(&file);
        let mut linux = Linux::booted(None, &trusting(SIGNED.signer.certificate()));
        let placed = place(&mut linux, &image);
        assert_refused(&linux, &placed.ranges, false, Errno::Enokey, "another signer is trusted");
    }
}
