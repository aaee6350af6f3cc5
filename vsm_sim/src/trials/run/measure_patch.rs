//! What a step of a text poke costs, with few and with many recorded sites.
//!
//! A machine takes its kernel's sites once, so each number of them is measured on a machine of its own.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction as F;

use crate::machine::Vtl0;
use crate::vtl0::bytes;
use crate::vtl0::kdata::{KernelData, Site, patch_record};
use crate::vtl0::lists::{Range, write_list};
use crate::vtl0::patcher::{Form, poke};

/// Bytes from one site to the next.
const STEP: u64 = 16;
/// The most sites: what fits the mebibyte that LoadKData takes.
pub const MOST_SITES: usize = 43_000;
/// READ and EXEC (LVBS contract §5.1).
const TEXT: u64 = 5;
const PAGE: u64 = 4096;

/// Boots a kernel with `sites` jump labels on a machine on which VTL1 has been booted, and switches some of them: the
/// average of instructions for the three steps, from VTL entry to VTL return; of each the fewest, for nothing else than a
/// busy host makes a step longer.
///
/// # Errors
/// When a call does not end as it must.
pub fn step_cost(vtl0: &mut Vtl0, sites: usize) -> Result<u64> {
    let machine = vtl0.machine();
    let pages = (sites as u64 * STEP).div_ceil(PAGE);
    let start = vtl0.with_scratch(|scratch| scratch.pages(pages))?;
    let site = |pa| Site { pa, next_page: 0, jump: [0xe9, 1, 2, 3, 4], size: 5 };
    let all: Vec<Site> = (start..).step_by(usize::try_from(STEP)?).take(sites).map(site).collect();
    let kernel = KernelData { patches: patch_record(&all), ..KernelData::made_up(20, 1).0 };
    let list = vtl0.with_scratch(|scratch| {
        let ranges = kernel.write(machine.ram(), || scratch.pages(1))?;
        write_list(machine.ram(), scratch, &ranges)
    })?;
    must(vtl0, F::LoadKData, [list.pa, list.nranges])?;
    let text = [Range::direct(start, start + pages * PAGE, TEXT)];
    let list = vtl0.with_scratch(|scratch| write_list(machine.ram(), scratch, &text))?;
    must(vtl0, F::ProtectMemory, [list.pa, list.nranges])?;
    must(vtl0, F::SignalEndOfBoot, [0, 0])?;
    let request = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let mut fewest = [u64::MAX; 3];
    for number in 0..16 {
        let site = &all[sites * number / 16];
        bytes::write(machine.ram(), site.pa, &site.jump)?;
        for form in [Form::Nop, Form::Jump] {
            for (step, fewest) in poke(site, form).into_iter().zip(&mut fewest) {
                bytes::write(machine.ram(), request, &step.to_bytes())?;
                *fewest = must(vtl0, F::PatchText, [request, 0])?.min(*fewest);
            }
        }
    }
    Ok(fewest.iter().sum::<u64>() / 3)
}

fn must(vtl0: &mut Vtl0, call: F, [a1, a2]: [u64; 2]) -> Result<u64> {
    let result = vtl0.vtl_call(call.id(), a1, a2, 0)?;
    ensure!(result.value == 0, "{} returned {}", call.name(), result.value);
    Ok(result.instructions)
}
