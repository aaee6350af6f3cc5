//! It boots from every loader, place, size and state of memory that VTL0 may give it (contract §1, §2).

use anyhow::{Context, Result, ensure};
use litebox_platform_lvbs::Errno;
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::engine::{Access, Engine};
use vsm_sim::machine::{MachineConfig, VTL0};
use vsm_sim::vtl0::loader::Generation;
use vsm_sim::vtl0::memory_map::{MemoryMap, default_region_size};

use crate::setup::{boot, call, console, printed};

/// An id next to the first one: no call.
const NO_CALL: u64 = 0x1_ffdf;

/// Boots, and shows that VTL1 serves calls, has MBEC on (which `boot` checks as VTL0 does) and its region to itself.
fn boots(config: MachineConfig, generation: Generation, possible: u32) -> Result<()> {
    let map = config.map;
    let mut vtl0 = boot(config, generation, possible)?;
    let machine = vtl0.machine();
    let lines = console(&machine);
    ensure!(vtl0.vtl_call(NO_CALL, 0, 0, 0)?.value == Errno::Einval.to_result(), "an unknown id\n{lines}");
    ensure!(call(&mut vtl0, VsmFunction::SignalEndOfBoot, [0; 3])? == 0, "SignalEndOfBoot\n{lines}");
    ensure!(printed(&machine, &format!("vtl1: starting, region at {:#x}", map.region_start)), "{lines}");

    let (start, end) = (map.region_start >> 12, map.region_end() >> 12);
    for (from, to, flags) in machine.partition().effective_protections() {
        let inside = start <= from && to <= end;
        let outside = to <= start || end <= from;
        let wanted = if inside { MapFlags::empty() } else { MapFlags::ALL };
        ensure!((inside || outside) && flags == wanted, "frames {from:#x}..{to:#x} are {flags} to VTL0");
    }
    for gfn in [start, start + 1, u64::midpoint(start, end), end - 1] {
        ensure!(machine.engine().access(VTL0, gfn)? == Some(Access::NONE), "the engine lets VTL0 at frame {gfn:#x}");
    }
    let reports = machine.partition().reports();
    ensure!(reports.is_empty(), "beyond the TLFS: {reports:?}");
    Ok(())
}

fn both_loaders(total: u64, start: Option<u64>, possible: u32, dirt: &[Option<u8>]) -> Result<()> {
    let map = MemoryMap::new(total, start, default_region_size(possible))?;
    for generation in [Generation::G2, Generation::G3] {
        for dirt in dirt {
            let config = MachineConfig { dirt: *dirt, ..MachineConfig::new(map, 1) };
            boots(config, generation, possible)
                .with_context(|| format!("{generation:?}, region {:#x}, memory full of {dirt:x?}", map.region_start))?;
        }
    }
    Ok(())
}

const GIB: u64 = 1 << 30;
/// Both loaders find memory as the firmware or an earlier kernel left it: zeros, all ones, a pattern without the
/// present bit of a page-table entry in it, one with it.
const DIRT: [Option<u8>; 4] = [None, Some(0xFF), Some(0xA4), Some(0xA5)];

#[test]
fn machine_boots_at_the_contracts_example() -> Result<()> {
    both_loaders(GIB, Some(0x0800_0000), 1, &DIRT)
}

#[test]
fn machine_boots_where_vtl0_puts_the_region_of_a_4_gib_guest() -> Result<()> {
    both_loaders(4 * GIB, None, 2, &DIRT[..2])
}

#[test]
fn machine_boots_just_above_3_gib() -> Result<()> {
    both_loaders(4 * GIB, Some(0xC020_0000), 1, &DIRT[2..])
}

/// VTL0 reserves the region below 4 GiB; the image needs not know.
#[test]
fn machine_boots_above_4_gib() -> Result<()> {
    both_loaders(8 * GIB, Some(0x1_4760_0000), 1, &DIRT[2..])
}

/// The window's eight page tables are the last eight entries of a page directory.
#[test]
fn machine_boots_in_the_last_quarter_of_a_gib() -> Result<()> {
    both_loaders(3 * GIB, Some(0x4000_0000 + 504 * 0x20_0000), 2, &DIRT[..2])?;
    both_loaders(GIB, Some(400 * 0x20_0000), 1, &DIRT[3..])
}

#[test]
fn machine_boots_with_the_regions_of_1_2_8_and_96_processors() -> Result<()> {
    for possible in [1, 2, 8, 96] {
        both_loaders(GIB, None, possible, &DIRT[..1]).with_context(|| format!("{possible} processors"))?;
    }
    Ok(())
}

/// `securekernel=` may ask for any size: not a multiple of 2 MiB, and more than VTL1 maps.
#[test]
fn machine_boots_with_regions_of_other_sizes() -> Result<()> {
    for size in [(17 << 20) + 0x3000, (1 << 30) + (128 << 20)] {
        let map = MemoryMap::new(2 * GIB, None, size)?;
        boots(MachineConfig::new(map, 1), Generation::G3, 1).with_context(|| format!("{size:#x} bytes"))?;
    }
    Ok(())
}
