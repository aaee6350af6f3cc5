//! CopySecondaryKey: a trusted key vouches for others, and no other key does.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::RacePoint;
use vsm_sim::hv::GuestMemory;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::made_up::{MODULES, MadeUp, MadeUpKernel};
use vsm_sim::vtl0::modules::Placed;
use vsm_sim::vtl0::signer::Signer;

use crate::linux::{Linux, VTL1};

fn made_up(kernel: &MadeUpKernel) -> MadeUp {
    MadeUp { name: "vendor".into(), calls: kernel.helper.clone(), start: MODULES, text_pages: 2 }
}

#[test]
fn a_key_that_a_trusted_one_has_signed_signs_modules() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let vendor = Signer::issued_by("a vendor", &kernel.signer).unwrap();
    let module = made_up(&kernel).signed(&vendor).unwrap();
    let mut linux = Linux::booted(Some(4), &kernel.data);
    let placed = linux.place(&module, 0);
    let before = linux.snapshot();
    assert_eq!(linux.validate(&placed), Errno::Enokey.to_result());
    assert!(linux.snapshot() == before);
    assert_eq!(linux.copy_key(vendor.certificate()), 0);
    let keys = |linux: &Linux| linux.snapshot().keys;
    assert_eq!(keys(&linux), (before.keys.0, 1));
    // Again is fine, and so is one that is trusted anyway.
    assert_eq!(linux.copy_key(vendor.certificate()), 0);
    assert_eq!(linux.copy_key(kernel.signer.certificate()), 0);
    assert_eq!(keys(&linux), (before.keys.0, 1));
    assert_eq!(linux.validate(&placed), 1);
}

/// The kernel's build key is no authority, and administrators sign with it the keys that they add (LVBS contract §11.6).
#[test]
fn a_key_that_the_build_key_has_signed_signs_modules() {
    let mut kernel = MadeUpKernel::new(300).unwrap();
    let build = Signer::issued_by("a build key", &kernel.signer).unwrap();
    let added = Signer::issued_by("an administrator's key", &build).unwrap();
    let below = Signer::issued_by("a key below it", &added).unwrap();
    kernel.data.certificates = build.certificate().to_vec();
    let mut linux = Linux::booted(None, &kernel.data);
    linux.machine.keep_log();
    let module = made_up(&kernel).signed(&added).unwrap();
    let placed = linux.place(&module, 0);
    assert_eq!(linux.validate(&placed), Errno::Enokey.to_result());
    assert_eq!(linux.copy_key(added.certificate()), 0);
    assert_eq!(linux.validate(&placed), 1);
    assert_eq!(linux.copy_key(below.certificate()), Errno::Ekeyrejected.to_result());
    let lines = linux.machine.log_lines();
    for why in ["a key of the kernel's that is no authority signed it", "is not an authority for it (-EKEYREJECTED)"] {
        assert_eq!(lines.iter().filter(|line| line.contains(why)).count(), 1, "{why}: {lines:#?}");
    }
}

#[test]
fn no_other_key_is_taken() {
    let mut kernel = MadeUpKernel::new(300).unwrap();
    let vendor = Signer::issued_by("a vendor", &kernel.signer).unwrap();
    let revoked = Signer::issued_by("a vendor that is revoked", &kernel.signer).unwrap();
    let stranger = Signer::authority("a stranger").unwrap();
    let strangers = Signer::issued_by("a stranger's vendor", &stranger).unwrap();
    let no_authority = Signer::issued_by("a vendor's vendor", &vendor).unwrap();
    kernel.data.revoked.extend(revoked.certificate());
    let mut linux = Linux::booted(None, &kernel.data);
    assert_eq!(linux.copy_key(vendor.certificate()), 0);
    let before = linux.snapshot();
    let mut damaged = vendor.certificate().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    for (what, certificate, errno) in [
        ("a stranger", stranger.certificate().to_vec(), Errno::Enokey),
        ("a key that a stranger has signed", strangers.certificate().to_vec(), Errno::Enokey),
        ("a key that a module's key has signed", no_authority.certificate().to_vec(), Errno::Ekeyrejected),
        ("a revoked key", revoked.certificate().to_vec(), Errno::Ekeyrejected),
        ("a signature that does not hold", damaged, Errno::Ekeyrejected),
        ("half a certificate", vendor.certificate()[..200].to_vec(), Errno::Ebadmsg),
        ("a certificate and a byte", [vendor.certificate(), &[0]].concat(), Errno::Ebadmsg),
        ("two certificates", [vendor.certificate(), vendor.certificate()].concat(), Errno::Ebadmsg),
        ("garbage", vec![0xa5; 600], Errno::Ebadmsg),
        ("too much", vec![0x30; 8193], Errno::Einval),
    ] {
        assert_eq!(linux.copy_key(&certificate), errno.to_result(), "{what}");
        assert!(linux.snapshot() == before, "{what}");
    }
    let start = VTL1.start << 12;
    let range = |pa, bytes, attributes| Range { va: 0xffff_c900_0000_0000, pa, epa: pa + bytes, attributes };
    for (what, ranges, errno) in [
        ("VTL1's memory", vec![range(start, 600, 0)], Errno::Eacces),
        ("another attribute", vec![range(0x5000, 600, 1)], Errno::Einval),
        ("beyond RAM", vec![range(crate::linux::RAM << 12, 600, 0)], Errno::Efault),
        ("a list of nothing", vec![], Errno::Efault),
    ] {
        let result = linux.call(VsmFunction::CopySecondaryKey, &ranges);
        assert!([errno, Errno::Einval].map(Errno::to_result).contains(&result), "{what}: {result}");
        assert!(linux.snapshot() == before, "{what}");
    }
}

#[test]
fn before_the_kernels_data_nobody_is_trusted() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::new(None);
    for certificate in [kernel.signer.certificate(), &[]] {
        let expected = if certificate.is_empty() { Errno::Ebadmsg.to_result() } else { Errno::Enokey.to_result() };
        let result = linux.copy_key(certificate);
        assert!(
            result == expected
                || (certificate.is_empty() && [Errno::Einval.to_result(), Errno::Efault.to_result()].contains(&result)),
            "{result}"
        );
    }
    let placed = linux.place(&kernel.first, 0);
    let before = linux.snapshot();
    assert_eq!(linux.validate(&placed), Errno::Enokey.to_result());
    assert!(linux.snapshot() == before);
}

#[test]
fn a_key_that_changes_counts_as_it_was_read() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let vendor = Signer::issued_by("a vendor", &kernel.signer).unwrap();
    let stranger = Signer::authority("a stranger").unwrap();
    let mut linux = Linux::booted(None, &kernel.data);
    let mut placed = Placed::default();
    let place = linux.machine.memory();
    placed.put(place, &mut linux.frames, 0, 0xffff_c900_0000_0000, vendor.certificate()).unwrap();
    let (page, bytes) = (placed.pages(0)[0], stranger.certificate().to_vec());
    linux.machine.memory().set_race(Some(Box::new(move |point, memory| {
        if matches!(point, RacePoint::AfterRead { gpa, .. } if gpa == page) {
            memory.write(page, &bytes).unwrap();
        }
    })));
    assert_eq!(linux.call(VsmFunction::CopySecondaryKey, &placed.ranges), 0);
    linux.machine.memory().set_race(None);
    let module = made_up(&kernel);
    for (signer, expected) in [(&stranger, Errno::Enokey.to_result()), (&vendor, 1)] {
        let placed = linux.place(&module.signed(signer).unwrap(), 0);
        assert_eq!(linux.validate(&placed), expected);
    }
}
