//! CopySecondaryKey: who is trusted may bring in others, and nobody else may.

use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::RacePoint;
use vsm_sim::hv::GuestMemory;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::made_up::{MODULES, MadeUp, MadeUpKernel};
use vsm_sim::vtl0::modules::Placed;
use vsm_sim::vtl0::signer::Signer;

use crate::linux::{EBADMSG, EFAULT, EINVAL, EKEYREJECTED, ENOKEY, Linux, VTL1};

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
    let before = linux.everything();
    assert_eq!(linux.validate(&placed), ENOKEY);
    assert!(linux.everything() == before);
    assert_eq!(linux.copy_key(vendor.certificate()), 0);
    let keys = |linux: &Linux| linux.everything().keys;
    assert_eq!(keys(&linux), (before.keys.0, 1));
    // Again is fine, and so is one that is trusted anyway.
    assert_eq!(linux.copy_key(vendor.certificate()), 0);
    assert_eq!(linux.copy_key(kernel.signer.certificate()), 0);
    assert_eq!(keys(&linux), (before.keys.0, 1));
    assert_eq!(linux.validate(&placed), 1);
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
    let before = linux.everything();
    let mut damaged = vendor.certificate().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    for (what, certificate, errno) in [
        ("a stranger", stranger.certificate().to_vec(), ENOKEY),
        ("somebody that a stranger has signed", strangers.certificate().to_vec(), ENOKEY),
        ("somebody that a module's key has signed", no_authority.certificate().to_vec(), EKEYREJECTED),
        ("somebody who is revoked", revoked.certificate().to_vec(), EKEYREJECTED),
        ("a signature that does not hold", damaged, EKEYREJECTED),
        ("half a certificate", vendor.certificate()[..200].to_vec(), EBADMSG),
        ("a certificate and a byte", [vendor.certificate(), &[0]].concat(), EBADMSG),
        ("two certificates", [vendor.certificate(), vendor.certificate()].concat(), EBADMSG),
        ("garbage", vec![0xa5; 600], EBADMSG),
        ("too much", vec![0x30; 8193], EINVAL),
    ] {
        assert_eq!(linux.copy_key(&certificate), errno, "{what}");
        assert!(linux.everything() == before, "{what}");
    }
    let start = VTL1.start << 12;
    let range = |pa, bytes, attributes| Range { va: 0xffff_c900_0000_0000, pa, epa: pa + bytes, attributes };
    for (what, ranges, errno) in [
        ("VTL1's memory", vec![range(start, 600, 0)], crate::linux::EACCES),
        ("another attribute", vec![range(0x5000, 600, 1)], EINVAL),
        ("beyond RAM", vec![range(crate::linux::RAM << 12, 600, 0)], EFAULT),
        ("a list of nothing", vec![], EFAULT),
    ] {
        let result = linux.call(VsmFunction::CopySecondaryKey, &ranges);
        assert!([errno, EINVAL].contains(&result), "{what}: {result}");
        assert!(linux.everything() == before, "{what}");
    }
}

#[test]
fn before_the_kernels_data_nobody_is_trusted() {
    let kernel = MadeUpKernel::new(300).unwrap();
    let mut linux = Linux::new(None);
    for certificate in [kernel.signer.certificate(), &[]] {
        let expected = if certificate.is_empty() { EBADMSG } else { ENOKEY };
        let result = linux.copy_key(certificate);
        assert!(result == expected || (certificate.is_empty() && [EINVAL, EFAULT].contains(&result)), "{result}");
    }
    let placed = linux.place(&kernel.first, 0);
    let before = linux.everything();
    assert_eq!(linux.validate(&placed), ENOKEY);
    assert!(linux.everything() == before);
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
    for (signer, expected) in [(&stranger, ENOKEY), (&vendor, 1)] {
        let placed = linux.place(&module.signed(signer).unwrap(), 0);
        assert_eq!(linux.validate(&placed), expected);
    }
}
