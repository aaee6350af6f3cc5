//! Query over the hypervisor model: what is said, in both phases, into whose pages, and that no other byte changes.

use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::{VSM_BASE, VsmFunction as F};
use vsm_sim::hosted::{HostedConfig, HostedMachine};
use vsm_sim::vtl0::bytes;

use crate::setup::{end_boot, give_frames};

/// Calls that may be made in any phase, and those that the end of boot closes: by hand, from the contract (§4, §5).
const ANY_PHASE: [F; 8] = [
    F::ValidateModule,
    F::FreeModuleInit,
    F::UnloadModule,
    F::CopySecondaryKey,
    F::KexecValidate,
    F::PatchText,
    F::OpteeMessage,
    F::Query,
];
const BOOT_ONLY: [F; 7] = [
    F::EnableAPsVtl,
    F::BootAPs,
    F::LockRegs,
    F::SignalEndOfBoot,
    F::ProtectMemory,
    F::LoadKData,
    F::AllocateRingbufferMemory,
];
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
    machine.vtl_call(0, F::Query.id(), at, 0, 0)
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

/// The calls' bits in a mask of Query.
fn bits(functions: &[F]) -> u64 {
    functions.iter().map(|function| 1 << function.index()).sum()
}

#[test]
fn a_vtl0_learns_what_there_is_and_when() {
    let machine = machine();
    // Calls that have come since are not in the contract; nothing is said of them here.
    let contract = [&ANY_PHASE[..], &BOOT_ONLY].concat();
    let since: Vec<F> = F::ALL.iter().filter(|function| !contract.contains(function)).copied().collect();
    let known = !bits(&since);
    for phase in [0, 1] {
        assert_eq!(query(&machine, PAGE), 0);
        let page = page(&machine);
        assert_eq!(u32_at(&page, 0), 56, "size");
        assert_eq!(u32_at(&page, 4), vsm_handlers::ABI_VERSION);
        assert_eq!(u64_at(&page, 8), vsm_handlers::ABI_HASH);
        assert_eq!(u64_at(&page, 16), VSM_BASE, "base");
        assert_eq!(u64_at(&page, 24) & known, bits(&contract), "supported");
        assert_eq!(u64_at(&page, 32) & known, bits(&contract), "before the end of boot");
        assert_eq!(u64_at(&page, 40) & known, bits(&ANY_PHASE), "after it");
        assert_eq!((u32_at(&page, 48), u32_at(&page, 52)), (phase, 0));
        assert!(page[56..].iter().all(|byte| *byte == FILL), "nothing else is written");
        if phase == 0 {
            assert_eq!(end_boot(&machine), 0);
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
        give_frames(&machine, GFN..GFN + 1, owner, permission);
        assert_eq!(query(&machine, PAGE), Errno::Eacces.to_result(), "{owner}");
        assert_eq!(page(&machine), [FILL; 4096], "{owner}");
    }
    let machine = machine();
    for (at, errno) in [
        (PAGE + 8, Errno::Einval),
        (32 << 20, Errno::Eacces),
        ((48 << 20) - 4096, Errno::Eacces),
        (64 << 20, Errno::Efault),
        (1 << 52, Errno::Efault),
        (!0xfff, Errno::Efault),
    ] {
        assert_eq!(query(&machine, at), errno.to_result(), "{at:#x}");
    }
}
