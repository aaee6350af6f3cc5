//! Heap of KexecValidate.

use std::fs;

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::kexec::{DESCRIPTION, FILE, Image, PAGES, Placed, distribution_kernels};
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::signer::Signer;

use crate::counting::{Counted, NEVER};
use crate::linux::{Linux, RAM};

/// The most heap that an image with a kernel of 14 MiB may take, all of its pages scattered, in bytes.
const MOST_HEAP: usize = 3 << 20;
/// The most heap for a list of 65,536 ranges that are all apart, in bytes: the frame registry's is most of it.
const MOST_HEAP_APART: usize = 9_500_000;
/// Where images go: below where frames are handed out.
const PLACE: u64 = 0x280_0000;
const FRAMES: u64 = 0x600_0000;

/// A VTL0 whose VTL1 trusts the certificate.
fn trusting(certificate: &[u8]) -> Linux {
    Linux::new(&KernelData { certificates: certificate.to_vec(), ..KernelData::default() }, FRAMES)
}

fn validate(linux: &Linux, ranges: &[Range], crash: bool, refuse: usize) -> Counted<i64> {
    linux.call_with_list(VsmFunction::KexecValidate, ranges, u64::from(crash), refuse)
}

fn invalidate(linux: &Linux, crash: bool, refuse: usize) -> Counted<i64> {
    linux.call(VsmFunction::KexecValidate, [0, 0, u64::from(crash)], refuse)
}

fn place(linux: &mut Linux, image: &Image) -> Placed {
    image.place(&*linux.memory, &mut linux.frames).unwrap()
}

#[test]
fn a_heap_that_refuses_any_one_request_is_an_errno_and_leaves_nothing_behind() {
    let signer = Signer::authority("kernels").unwrap();
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer).unwrap();
    for crash in [false, true] {
        let mut linux = trusting(signer.certificate());
        let placed = place(&mut linux, &Image::new(&file, PLACE, crash).unwrap());
        // In an empty slot, and in one that is taken.
        for round in 0..2 {
            let (result, refusals) = linux.refuse_each(|refuse| validate(&linux, &placed.ranges, crash, refuse));
            assert_eq!(result, 0);
            println!("crash {crash}, round {round}: {refusals} allocations, each refused once");
            assert!(refusals > 15);
        }
        let (_, refusals) = linux.refuse_each(|refuse| invalidate(&linux, crash, refuse));
        println!("crash {crash}, invalidate: {refusals} allocations, each refused once");
    }
}

#[test]
fn images_that_come_and_go_lose_no_heap() {
    let signer = Signer::authority("kernels").unwrap();
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer).unwrap();
    let mut linux = trusting(signer.certificate());
    let placed = [false, true]
        .map(|crash| place(&mut linux, &Image::new(&file, PLACE + (u64::from(crash) << 24), crash).unwrap()));
    let mut total = 0;
    for round in 0..20 {
        let mut kept = 0;
        for placed in &placed {
            let crash = placed.flag() == 1;
            let validated = validate(&linux, &placed.ranges, crash, NEVER);
            assert_eq!(validated.result, 0);
            kept += validated.kept;
        }
        for crash in [false, true] {
            kept += invalidate(&linux, crash, NEVER).kept;
        }
        if round >= 10 {
            // By then nothing more is set aside.
            total += kept;
        }
    }
    assert_eq!(total, 0, "bytes lost in 10 lives");
}

#[test]
fn a_distribution_s_kernel_in_scattered_pages_takes_little_heap() {
    let Some(path) = distribution_kernels().into_iter().next() else {
        println!("SKIPPED: there is no signed kernel in target/kernels; `cargo xtask doctor --fix` fetches one");
        return;
    };
    let file = fs::read(path).unwrap();
    let mut linux = trusting(&authenticode::signer_of(&file).unwrap());
    let placed = place(&mut linux, &Image::new(&file, PLACE, false).unwrap());
    let Counted { result, peak, kept, .. } = validate(&linux, &placed.ranges, false, NEVER);
    println!("{} ranges: {} KiB of heap at most, {} KiB kept", placed.ranges.len(), peak >> 10, kept >> 10);
    assert_eq!(result, 0);
    assert!(placed.ranges.len() > 10_000);
    assert!(peak < MOST_HEAP, "{peak} bytes of heap");
}

/// A list names as many pages as it can, none beside another, all of them below a file of such pages. To record each as it is
/// looked at would move the record of what lies above it, 49,151 times; the record would also be seen here.
#[test]
fn pages_apart_from_each_other_are_not_recorded_one_by_one() {
    let mut linux = trusting(Signer::authority("kernels").unwrap().certificate());
    let image = Image::new(&authenticode::made_up(0x3456, 1), PLACE, false).unwrap();
    let kimage = place(&mut linux, &image).kimage;
    let page = |gfn: u64, va: u64, attributes| Range { va, pa: gfn << 12, epa: (gfn + 1) << 12, attributes };
    let mut ranges = vec![page(kimage >> 12, 0xffff_8880_0000_0000, DESCRIPTION)];
    let (file, pages) = (RAM + 0x2_0000, RAM);
    ranges.extend((0..0x4000).map(|index| page(file + 2 * index, 0xffff_c900_0000_0000 + (index << 12), FILE)));
    ranges.extend((0..49_151).map(|index| page(pages + 2 * index, 0xffff_8880_0000_0000, PAGES)));
    let Counted { result, peak, .. } = validate(&linux, &ranges, false, NEVER);
    println!("{} ranges, all apart: {} KiB of heap at most", ranges.len(), peak >> 10);
    assert_eq!(result, Errno::Ebadmsg.to_result(), "the file is no PE file, which is looked at last");
    assert!(peak < MOST_HEAP_APART, "{peak} bytes of heap");
}
