//! KexecValidate takes frames, and may take only those that are nobody's or its own slot's; the kernel's file is frozen for a
//! while, and only where the frames are. Where segments go, the frames must be nobody's or its own as well.

use std::sync::OnceLock;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::kexec::{DESCRIPTION, FILE, Image, PAGES, Placed, SEGMENT, SEGMENTS};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::modules::Frames;
use vsm_sim::vtl0::signer::Signer;

use super::{OWNED, OWNERS, PLACES, machine_with};
use crate::kdata::{RAM, VTL1, load, snapshot, write};
use crate::setup::call_with_list;

/// A signed kernel's file, and who has signed it.
fn signed() -> &'static (Vec<u8>, Signer) {
    static SIGNED: OnceLock<(Vec<u8>, Signer)> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let signer = Signer::authority("kernels").unwrap();
        (authenticode::sign(&authenticode::made_up(0x3456, 1), &signer).unwrap(), signer)
    })
}

/// A machine on which some frames are `owner`'s, that trusts the signer, and an image in its memory.
fn prepared(owner: Owner, permission: Permission, crash: bool) -> (HostedMachine, Placed) {
    let machine = machine_with(owner, permission);
    let (file, signer) = signed();
    let kernel = KernelData { certificates: signer.certificate().to_vec(), ..KernelData::default() };
    assert_eq!(load(&machine, &write(&machine, &kernel)), 0);
    let image = Image::new(file, 0x280_0000, crash).unwrap();
    let placed = image.place(machine.memory(), &mut Frames::consecutive(0x300_0000, 0x400_0000)).unwrap();
    (machine, placed)
}

fn validate(machine: &HostedMachine, ranges: &[Range], crash: bool) -> i64 {
    call_with_list(machine, VsmFunction::KexecValidate, ranges, u64::from(crash))
}

/// The ranges, of which the one of `kind` names other frames: pages besides those that the image needs.
fn with_range_at(placed: &Placed, kind: u64, (first, count): (u64, u64)) -> Vec<Range> {
    let mut ranges = placed.ranges.clone();
    if kind == PAGES {
        ranges.push(Range::direct(first << 12, (first + count) << 12, PAGES));
        return ranges;
    }
    let range = ranges.iter_mut().find(|range| range.attributes == kind).unwrap();
    let size = if kind == FILE { count << 12 } else { range.epa - range.pa };
    (range.va, range.pa, range.epa) = (range.va & !0xfff, first << 12, (first << 12) + size);
    ranges
}

#[test]
fn an_image_takes_only_what_is_nobodys_or_its_own() {
    for crash in [false, true] {
        for (owner, permission) in OWNERS {
            let own = [Owner::Nobody, Owner::Kexec { crash }].contains(&owner);
            for place in PLACES {
                for kind in [DESCRIPTION, FILE, PAGES] {
                    let (machine, placed) = prepared(owner, permission, crash);
                    let before = snapshot(&machine);
                    let result = validate(&machine, &with_range_at(&placed, kind, place), crash);
                    let what = format!("{owner} {permission}, {kind} in {place:x?}, crash {crash}: {result}");
                    // The description is in one page, and the first frame of some places is nobody's.
                    let touches = kind != DESCRIPTION || place.0 >= OWNED;
                    if own && kind == PAGES {
                        // Any page may be frozen with the image, whatever it holds.
                        assert_eq!(result, 0, "{what}");
                        let registry = machine.platform().frames().lock();
                        for gfn in place.0..place.0 + place.1 {
                            assert_eq!(registry.get(gfn), Some((Owner::Kexec { crash }, Permission::R)), "{what}");
                        }
                        continue;
                    }
                    // Nothing lies there but zeros: no image and no kernel.
                    assert_eq!(result == Errno::Eacces.to_result(), !own && touches, "{what}");
                    assert!(result < 0 && snapshot(&machine) == before, "{what}");
                }
                // A segment there: the parameters', which may hold anything.
                let (machine, placed) = prepared(owner, permission, crash);
                let at = placed.kimage + SEGMENTS + SEGMENT + 16;
                bytes::write_u64(machine.memory(), at, place.0 << 12).unwrap();
                bytes::write_u64(machine.memory(), at + 8, place.1 << 12).unwrap();
                let before = snapshot(&machine);
                let result = validate(&machine, &placed.ranges, crash);
                let what = format!("{owner} {permission}, a segment in {place:x?}, crash {crash}: {result}");
                if own && crash {
                    assert_eq!(result, 0, "{what}");
                    continue;
                }
                // The page list says where it goes as well.
                assert_eq!(result, if own { Errno::Einval.to_result() } else { Errno::Eacces.to_result() }, "{what}");
                assert!(snapshot(&machine) == before, "{what}");
            }
        }
    }
}

#[test]
fn no_part_reaches_into_vtl1_or_beyond_ram() {
    for crash in [false, true] {
        let (machine, placed) = prepared(Owner::Nobody, Permission::RW, crash);
        let before = snapshot(&machine);
        for kind in [DESCRIPTION, FILE, PAGES] {
            for place in [(VTL1.start, 1), (VTL1.end - 1, 1), (VTL1.start - 1, 2), (VTL1.start - 1, 0x1002)] {
                machine.memory().count_fetches();
                let result = validate(&machine, &with_range_at(&placed, kind, place), crash);
                let fetches = machine.memory().take_fetches();
                let touches = kind != DESCRIPTION || place.0 >= VTL1.start;
                assert_eq!(
                    result,
                    if touches { Errno::Eacces.to_result() } else { Errno::Einval.to_result() },
                    "{kind} in {place:x?}"
                );
                assert!(!fetches.keys().any(|gpa| VTL1.contains(&(gpa >> 12))), "{kind}: VTL1 was read");
                assert!(snapshot(&machine) == before, "{kind} in {place:x?}");
            }
            for place in [(RAM, 1), (RAM - 1, 2), (1 << 30, 1)] {
                let result = validate(&machine, &with_range_at(&placed, kind, place), crash);
                let expected: &[i64] = if place.0 < RAM {
                    &[Errno::Eio.to_result(), Errno::Einval.to_result()]
                } else {
                    &[Errno::Eio.to_result(), Errno::Efault.to_result()]
                };
                assert!(expected.contains(&result), "{kind} in {place:x?}: {result}");
                assert!(snapshot(&machine) == before, "{kind} in {place:x?}");
            }
        }
    }
}
