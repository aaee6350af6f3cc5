//! Query over the hypervisor model: what is said, in both phases, into whose pages, and that no other byte changes.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::vtl0::bytes;

const EACCES: i64 = -13;
const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
/// A page of VTL0's, and its address.
const GFN: u64 = 0x1000;
const PAGE: u64 = GFN << 12;
/// What lies on the page before.
const FILL: u8 = 0xee;

fn machine() -> HostedMachine {
    let machine = HostedMachine::new(HostedConfig::default());
    bytes::write(machine.memory(), PAGE, &[FILL; 4096]).unwrap();
    machine
}

fn query(machine: &HostedMachine, at: u64) -> i64 {
    machine.vtl_call(0, VsmFunction::Query.id(), at, 0, 0)
}

fn page(machine: &HostedMachine) -> Vec<u8> {
    let mut page = vec![0; 4096];
    bytes::read(machine.memory(), PAGE, &mut page).unwrap();
    page
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
}

#[test]
fn a_vtl0_learns_what_there_is_and_when() {
    let machine = machine();
    // By hand, from the contract: §4, §5 say which calls there are and which the end of boot closes. Calls that have come
    // since are behind them.
    let known: u64 = (1 << 18) - 1;
    let all: u64 = (0..=12).chain([16, 17]).map(|index| 1 << index).sum();
    let boot_only: u64 = [0, 1, 2, 3, 4, 5, 12].map(|index| 1 << index).iter().sum();
    for phase in [0, 1] {
        assert_eq!(query(&machine, PAGE), 0);
        let page = page(&machine);
        assert_eq!(u32_at(&page, 0), 56, "size");
        assert_eq!(u32_at(&page, 4), vsm_handlers::ABI_VERSION);
        assert_eq!(u64_at(&page, 8), vsm_handlers::ABI_HASH);
        assert_eq!(u64_at(&page, 16), 0x1_ffe0, "base");
        assert_eq!(u64_at(&page, 24) & known, all, "supported");
        assert_eq!(u64_at(&page, 32) & known, all, "before the end of boot");
        assert_eq!(u64_at(&page, 40) & known, all & !boot_only, "after it");
        assert_eq!((u32_at(&page, 48), u32_at(&page, 52)), (phase, 0));
        assert!(page[56..].iter().all(|byte| *byte == FILL), "nothing else is written");
        if phase == 0 {
            assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0);
        }
    }
    assert_eq!(machine.partition().reports(), []);
}

#[test]
fn what_the_header_says_is_what_is_answered() {
    let header = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../abi/vsm.h")).unwrap();
    let machine = machine();
    assert_eq!(query(&machine, PAGE), 0);
    let (version, hash) = (u32_at(&page(&machine), 4), u64_at(&page(&machine), 8));
    assert!(header.contains(&format!("#define VSM_ABI_VERSION {version}\n")), "a VTL0 built with it would refuse");
    assert!(header.contains(&format!("#define VSM_ABI_HASH {hash:#018x}ULL\n")), "a VTL0 built with it would refuse");
}

#[test]
fn only_a_page_that_is_nobodys_is_written() {
    for (owner, permission) in [
        (Owner::KernelText, Permission::RX),
        (Owner::BootProtected, Permission::R),
        (Owner::Module { token: Token::new(7).unwrap(), kind: ModuleMemoryKind::Data }, Permission::RW),
        (Owner::Kexec { crash: false }, Permission::R),
        (Owner::Kexec { crash: true }, Permission::R),
        (Owner::RingBuffer, Permission::R),
        (Owner::Trampoline, Permission::R),
    ] {
        let machine = machine();
        machine.in_vtl1(0, |platform| {
            let mut registry = platform.frames().lock();
            let mut transaction = registry.begin(platform.hardware(), Phase::Boot).unwrap();
            transaction.stage(FrameRange::from_gfns(GFN, GFN + 1).unwrap(), owner, owner, permission).unwrap();
            transaction.commit().unwrap();
        });
        assert_eq!(query(&machine, PAGE), EACCES, "{owner}");
        assert_eq!(page(&machine), [FILL; 4096], "{owner}");
    }
    let machine = machine();
    for (at, result) in [
        (PAGE + 8, EINVAL),
        (32 << 20, EACCES),
        ((48 << 20) - 4096, EACCES),
        (64 << 20, EFAULT),
        (1 << 52, EFAULT),
        (!0xfff, EFAULT),
    ] {
        assert_eq!(query(&machine, at), result, "{at:#x}");
    }
}
