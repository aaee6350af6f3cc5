//! Heap of KexecValidate: little of it, none of it lost, and with one that refuses any one request nothing breaks and nothing
//! is left behind.
//!
//! A test binary of its own, because it counts, and fails, allocations.

#[path = "../heap/mod.rs"]
mod heap;

use std::fs;
use std::sync::Arc;

use heap::Quiet;
use heap::counting::counted;
use litebox_platform_lvbs::Platform;
use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::FrameState;
use litebox_platform_lvbs::loader::Generation;
use litebox_platform_lvbs::platform::PlatformConfig;
use litebox_platform_lvbs::vsm::{Gate, VsmFunction, VsmJumpTable, dispatch};
use vsm_handlers::{GATE, VSM_TABLE};
use vsm_sim::hosted::HostedMemory;
use vsm_sim::vtl0::authenticode;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::kexec::{DESCRIPTION, FILE, Image, PAGES, Placed, distribution_kernels};
use vsm_sim::vtl0::lists::{Range, Scratch, write_list};
use vsm_sim::vtl0::modules::Frames;
use vsm_sim::vtl0::signer::Signer;

const ENOMEM: i64 = -12;
const EBADMSG: i64 = -74;
/// The most heap that an image with a kernel of 14 MiB may take, all of its pages scattered, in bytes.
const MOST_HEAP: usize = 3 << 20;
/// The most heap for a list of 65,536 ranges that are all apart, in bytes: the frame registry's is most of it.
const MOST_HEAP_APART: usize = 9_500_000;
/// Frames of RAM below the end of VTL1, which has the last 16 MiB of them.
const RAM: u64 = 0x1_0000;
/// Where RAM ends above VTL1.
const MORE_RAM: u64 = 0x4_0000;
/// Where images go: below where frames are handed out.
const PLACE: u64 = 0x280_0000;
const FRAMES: u64 = 0x600_0000;

static TABLE: VsmJumpTable = VSM_TABLE;
static RULES: Gate = GATE;

/// A VTL0 and VTL1 that trusts somebody.
struct Linux {
    memory: Arc<HostedMemory>,
    platform: Platform,
    frames: Frames,
}

impl Linux {
    fn new(certificate: &[u8]) -> Self {
        let memory = Arc::new(HostedMemory::new(vec![FrameRange::from_gfns(0, MORE_RAM).unwrap()]));
        let vtl1_region = FrameRange::from_gfns(RAM - 0x1000, RAM).unwrap();
        let config = PlatformConfig { vtl1_region, possible_cpus: 1, boot_vp: 0, loader: Generation::G2 };
        let platform = Platform::new(Box::new(Quiet(Arc::clone(&memory))), config).unwrap();
        let frames = Frames::scattered(FRAMES, (RAM - 0x1000) << 12, 5);
        let mut linux = Self { memory, platform, frames };
        let kernel = KernelData { certificates: certificate.to_vec(), ..KernelData::default() };
        let ranges = kernel.write(&*linux.memory, || linux.frames.take()).unwrap();
        let list = write_list(&*linux.memory, &mut Scratch::default(), &ranges).unwrap();
        assert_eq!(linux.raw(VsmFunction::LoadKData, [list.pa, list.nranges, 0], usize::MAX).0, 0);
        linux
    }

    /// Makes a call; the result, the most heap in use during it, and what is in use afterwards, both beyond what was before.
    /// The `refuse`th allocation fails, if there is one.
    fn raw(&self, function: VsmFunction, [a1, a2, a3]: [u64; 3], refuse: usize) -> (i64, usize, isize) {
        counted(refuse, || dispatch(&TABLE, &RULES, &self.platform, 0, [function.id(), a1, a2, a3]))
    }

    fn validate(&self, ranges: &[Range], crash: bool, refuse: usize) -> (i64, usize, isize) {
        let list = write_list(&*self.memory, &mut Scratch::default(), ranges).unwrap();
        self.raw(VsmFunction::KexecValidate, [list.pa, list.nranges, u64::from(crash)], refuse)
    }

    fn invalidate(&self, crash: bool, refuse: usize) -> (i64, usize, isize) {
        self.raw(VsmFunction::KexecValidate, [0, 0, u64::from(crash)], refuse)
    }

    fn place(&mut self, image: &Image) -> Placed {
        image.place(&*self.memory, &mut self.frames).unwrap()
    }

    fn states(&self) -> (Vec<FrameState>, String) {
        let states = self.platform.frames().lock().intervals().collect();
        (states, format!("{:?}", self.platform.vtl0().kexec().lock()))
    }
}

#[test]
fn a_heap_that_refuses_any_one_request_is_an_errno_and_leaves_nothing_behind() {
    let signer = Signer::authority("kernels").unwrap();
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer).unwrap();
    for crash in [false, true] {
        let mut linux = Linux::new(signer.certificate());
        let placed = linux.place(&Image::new(&file, PLACE, crash).unwrap());
        // In an empty slot, and in one that is taken.
        for round in 0..2 {
            let before = linux.states();
            let mut refusals = 0;
            loop {
                let (result, _, kept) = linux.validate(&placed.ranges, crash, refusals);
                if result == 0 {
                    break;
                }
                assert_eq!(result, ENOMEM, "allocation {refusals}");
                assert!(linux.states() == before, "allocation {refusals}");
                assert!(kept < 64 << 10, "{kept} bytes stay after allocation {refusals} has failed");
                refusals += 1;
            }
            println!("crash {crash}, round {round}: {refusals} allocations, each refused once");
            assert!(refusals > 15);
        }
        let before = linux.states();
        let mut refusals = 0;
        while linux.invalidate(crash, refusals).0 != 0 {
            assert!(linux.states() == before, "allocation {refusals}");
            refusals += 1;
        }
        println!("crash {crash}, invalidate: {refusals} allocations, each refused once");
    }
}

#[test]
fn images_that_come_and_go_lose_no_heap() {
    let signer = Signer::authority("kernels").unwrap();
    let file = authenticode::sign(&authenticode::made_up(0x3456, 1), &signer).unwrap();
    let mut linux = Linux::new(signer.certificate());
    let placed =
        [false, true].map(|crash| linux.place(&Image::new(&file, PLACE + (u64::from(crash) << 24), crash).unwrap()));
    let mut total = 0;
    for round in 0..20 {
        let mut kept = 0;
        for placed in &placed {
            let crash = placed.flag() == 1;
            let (result, _, bytes) = linux.validate(&placed.ranges, crash, usize::MAX);
            assert_eq!(result, 0);
            kept += bytes;
        }
        for crash in [false, true] {
            kept += linux.invalidate(crash, usize::MAX).2;
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
    let mut linux = Linux::new(&authenticode::signer_of(&file).unwrap());
    let placed = linux.place(&Image::new(&file, PLACE, false).unwrap());
    let (result, peak, kept) = linux.validate(&placed.ranges, false, usize::MAX);
    println!("{} ranges: {} KiB of heap at most, {} KiB kept", placed.ranges.len(), peak >> 10, kept >> 10);
    assert_eq!(result, 0);
    assert!(placed.ranges.len() > 10_000);
    assert!(peak < MOST_HEAP, "{peak} bytes of heap");
}

/// A list names as many pages as it can, none beside another, all of them below a file of such pages. To record each as it is
/// looked at would move the record of what lies above it, 49,151 times; the record would also be seen here.
#[test]
fn pages_apart_from_each_other_are_not_recorded_one_by_one() {
    let mut linux = Linux::new(Signer::authority("kernels").unwrap().certificate());
    let image = Image::new(&authenticode::made_up(0x3456, 1), PLACE, false).unwrap();
    let kimage = linux.place(&image).kimage;
    let page = |gfn: u64, va: u64, attributes| Range { va, pa: gfn << 12, epa: (gfn + 1) << 12, attributes };
    let mut ranges = vec![page(kimage >> 12, 0xffff_8880_0000_0000, DESCRIPTION)];
    let (file, pages) = (RAM + 0x2_0000, RAM);
    ranges.extend((0..0x4000).map(|index| page(file + 2 * index, 0xffff_c900_0000_0000 + (index << 12), FILE)));
    ranges.extend((0..49_151).map(|index| page(pages + 2 * index, 0xffff_8880_0000_0000, PAGES)));
    let (result, peak, _) = linux.validate(&ranges, false, usize::MAX);
    println!("{} ranges, all apart: {} KiB of heap at most", ranges.len(), peak >> 10);
    assert_eq!(result, EBADMSG, "the file is no PE file, which is looked at last");
    assert!(peak < MOST_HEAP_APART, "{peak} bytes of heap");
}
