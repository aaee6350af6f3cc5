//! What cannot work ends in a printed reason and a stopped processor, not in silence.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::hv::Vtl;
use litebox_platform_lvbs::hv::cpuid::{HYPERVISOR_PRESENT, LEAF_FEATURES, LEAF_INTERFACE, Privileges};
use vsm_sim::hv::PartitionConfig;
use vsm_sim::machine::{HiddenBits, MachineConfig, Stop, Vtl0};
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::loader::{Generation, Start};
use vsm_sim::vtl0::memory_map::MemoryMap;

use crate::setup::{config, console, loaded};

/// Makes the first call with what is left in `start`; it must end with VTL1 stopped for `reason`.
fn must_stop(vtl0: &mut Vtl0, start: &Start, reason: &str) -> Result<()> {
    let machine = vtl0.machine();
    let [rdi, rsi, rdx, r8] = start.arguments;
    let (stop, _) = vtl0.try_vtl_call(rdi, rsi, rdx, r8)?;
    let lines = console(&machine);
    ensure!(stop == Stop::Halted(Vtl::Vtl1), "{reason}: the call ended in {stop:x?}\n{lines}");
    // The reason, whole, and then where in the source.
    let prefix = format!("vtl1: panic: {reason} (");
    ensure!(machine.console_lines().iter().any(|line| line.starts_with(&prefix)), "{reason}: not printed\n{lines}");
    Ok(())
}

fn lacks(hidden: HiddenBits, reason: &str) -> Result<()> {
    let config = MachineConfig { hidden: vec![hidden], ..config(1) };
    let (mut vtl0, start) = loaded(config, Generation::G2, 1)?;
    must_stop(&mut vtl0, &start, reason)
}

#[test]
fn machine_says_which_processor_feature_is_missing() -> Result<()> {
    let leaf_7 = |bit: u32| HiddenBits { leaf: 7, bits: [0, 1 << bit, 0, 0] };
    lacks(leaf_7(7), "cannot start: the processor lacks SMEP")?;
    lacks(leaf_7(20), "cannot start: the processor lacks SMAP")?;
    lacks(leaf_7(0), "cannot start: the processor lacks FSGSBASE")?;
    lacks(HiddenBits { leaf: 0x8000_0001, bits: [0, 0, 0, 1 << 20] }, "cannot start: the processor lacks NX")
}

#[test]
fn machine_says_that_there_is_no_hyperv() -> Result<()> {
    lacks(
        HiddenBits { leaf: 1, bits: [0, 0, HYPERVISOR_PRESENT, 0] },
        "cannot start: no Hyper-V here: interface signature 0x0",
    )?;
    lacks(
        HiddenBits { leaf: LEAF_INTERFACE, bits: [0xff, 0, 0, 0] },
        "cannot start: no Hyper-V here: interface signature 0x31237600",
    )
}

#[test]
fn machine_says_which_privilege_is_missing() -> Result<()> {
    const TEXT: &str = "(TLFS HV_PARTITION_PRIVILEGE_MASK)";
    // Without these two VTL0 still gets as far as VTL1.
    let missing = Privileges::ACCESS_INTR_CTRL_REGS | Privileges::ACCESS_VP_INDEX;
    let all = PartitionConfig::new(Vec::new(), 1).privileges;
    let config = MachineConfig { privileges: Some(all - missing), ..config(1) };
    let (mut vtl0, start) = loaded(config, Generation::G3, 1)?;
    must_stop(&mut vtl0, &start, &format!("cannot start: the partition lacks the privileges 0x50 {TEXT}"))?;
    // The others VTL0 needs itself: CPUID alone says that they are missing.
    for (bits, missing) in [([1 << 2, 0, 0, 0], 1u64 << 2), ([0, 1 << 16, 0, 0], 1 << 48)] {
        let reason = format!("cannot start: the partition lacks the privileges {missing:#x} {TEXT}");
        lacks(HiddenBits { leaf: LEAF_FEATURES, bits }, &reason)?;
    }
    Ok(())
}

#[test]
fn machine_says_that_the_region_is_too_small() -> Result<()> {
    // 16 MiB and 256 KiB a processor is the least.
    for generation in [Generation::G2, Generation::G3] {
        let map = MemoryMap::new(1 << 30, None, 20 << 20)?;
        let (mut vtl0, start) = loaded(MachineConfig::new(map, 1), generation, 17)?;
        must_stop(
            &mut vtl0,
            &start,
            "cannot start: the region has 0x1400000 bytes; 0x1440000 are needed for 17 processors",
        )?;
    }
    Ok(())
}

#[test]
fn machine_says_that_it_does_not_know_the_loader() -> Result<()> {
    for generation in [Generation::G2, Generation::G3] {
        let (mut vtl0, start) = loaded(config(1), generation, 1)?;
        let region = vtl0.machine().config().map.region_start;
        let start = Start { arguments: [7777, 0x1234_5000, 3, 4], ..start };
        let registers = "rdi=0x1e61 rsi=0x12345000 rdx=0x3 r8=0x4";
        let reason = format!("cannot start: unknown loader: {registers}, image region starts at {region:#x}");
        must_stop(&mut vtl0, &start, &reason)?;
    }
    Ok(())
}

/// A page that VTL0's loader has filled says something else.
fn with_boot_params(change: impl FnOnce(&Vtl0, u64) -> Result<()>, reason: impl FnOnce(u64) -> String) -> Result<()> {
    let (mut vtl0, start) = loaded(config(1), Generation::G2, 1)?;
    let region = vtl0.machine().config().map.region_start;
    change(&vtl0, region + 0xE000)?;
    must_stop(&mut vtl0, &start, &format!("cannot start: {}", reason(region)))
}

#[test]
fn machine_says_what_is_wrong_with_boot_params() -> Result<()> {
    let write = |vtl0: &Vtl0, at, value: &[u8]| bytes::write(vtl0.machine().ram(), at, value);
    // The second e820 entry is the region (contract §2.7).
    with_boot_params(
        |vtl0, params| bytes::write_u64(vtl0.machine().ram(), params + 0x2D0 + 20, 0x0800_0000),
        |region| format!("boot_params says the region starts at 0x8000000, but the image lies in {region:#x}"),
    )?;
    with_boot_params(
        |vtl0, params| write(vtl0, params + 0x1E8, &[1]),
        |_| "boot_params has 1 e820 entries and none of them is RAM within bounds".to_owned(),
    )?;
    with_boot_params(
        |vtl0, params| write(vtl0, params + 0x1000, b"possible_cpus=many\0"),
        |_| "possible_cpus is missing or not a number from 1 to 2048".to_owned(),
    )?;
    with_boot_params(
        |vtl0, params| write(vtl0, params + 0x1000, &[b' '; 4096]),
        |region| {
            format!("the command line at {:#x} is not the page behind boot_params, or has no end", region + 0xF000)
        },
    )
}
